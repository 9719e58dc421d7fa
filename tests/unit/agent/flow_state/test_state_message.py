"""State messages: what is written is read, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midonet.agent.flow_state.connection import ConnectionKey
from midonet.agent.flow_state.state_frame import message_in, state_frame
from midonet.agent.flow_state.state_message import (
    VERSION,
    Ask,
    Kill,
    Nothing,
    Proof,
    Signed,
    StateMessage,
    Tell,
    decode_message,
    encode_message,
)
from midonet.errors import DecodeError
from midonet.model.ids import HostId
from midonet.packets.frame import key_flow_hash, parse_frame
from tests.unit.agent.flow_state.connection_samples import UDP, connections, keys, udp_connection

SECRET = b"of the deployment"
HOST = HostId(UUID(int=7))


def _digest(content: bytes) -> bytes:
    return hashlib.blake2s(content, digest_size=8, key=SECRET, person=b"mn-state").digest()


messages: st.SearchStrategy[StateMessage] = st.one_of(
    st.builds(Tell, connections, st.integers(0, 0xFFFF)),
    st.builds(Proof, st.integers(0, 2**64 - 1)),
    st.builds(Kill, keys),
    st.builds(Ask, keys),
    st.builds(Nothing, keys),
)


@given(messages, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
def test_a_message_is_read_as_it_was_written(
    message: StateMessage, epoch: int, sequence: int
) -> None:
    signed = Signed(HOST, epoch, sequence, message)
    assert decode_message(encode_message(signed, SECRET), SECRET) == signed


@given(messages, st.data())
def test_a_changed_or_cut_message_is_refused(message: StateMessage, data: st.DataObject) -> None:
    whole = encode_message(Signed(HOST, 1, 1, message), SECRET)
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[at] ^= data.draw(st.integers(1, 255))
    for broken in (bytes(flipped), whole[:at], whole + b"\0"):
        with pytest.raises(DecodeError):
            decode_message(broken, SECRET)


@given(messages)
def test_another_deployment_is_not_understood(message: StateMessage) -> None:
    with pytest.raises(DecodeError):
        decode_message(encode_message(Signed(HOST, 1, 1, message), b"another"), SECRET)


@given(st.integers(0, 7), st.binary(max_size=300))
def test_what_the_secret_signs_may_be_anything(kind: int, body: bytes) -> None:
    """A sender with the secret but another idea of the format raises nothing but DecodeError."""
    content = struct.pack("!BBHIQ16s", 1, kind, 0, 1, 1, HOST.bytes) + body
    signed_by_it = content + _digest(content)
    with contextlib.suppress(DecodeError):
        signed = decode_message(signed_by_it, SECRET)
        assert signed is not None
        assert encode_message(signed, SECRET) == signed_by_it


def test_another_version_is_told_apart() -> None:
    content = bytes((VERSION + 1,)) + bytes(60)
    assert decode_message(content + _digest(content), SECRET) is None


def test_a_connection_of_ipv4_is_short() -> None:
    message = encode_message(Signed(HOST, 1, 1, Tell(udp_connection(), 120)), SECRET)
    assert len(message) <= 128


@given(keys, st.binary(min_size=1, max_size=300))
def test_a_frame_carries_a_message(key: ConnectionKey, message: bytes) -> None:
    ends = key.tuple
    assert message_in(state_frame(message, ends)) == message


@pytest.mark.parametrize("protocol", [6, 17, 132, 1])
def test_a_frame_has_the_flow_hash_of_its_connection(protocol: int) -> None:
    ends = UDP._replace(protocol=protocol)
    frame = parse_frame(state_frame(b"message", ends))
    back = parse_frame(state_frame(b"message", ends.inverse()))
    assert (frame.key.ip_src, frame.key.ip_dst) == (ends.source, ends.destination)
    assert key_flow_hash(frame.key, 99) == key_flow_hash(back.key, 99)
    if protocol != 1:
        assert (frame.key.l4_src, frame.key.l4_dst) == (ends.source_port, ends.destination_port)


@pytest.mark.parametrize("size", [0, 13, 14, 20])
def test_a_short_frame_carries_none(size: int) -> None:
    frame = bytes(14) + b"\x45" + bytes(40)
    with pytest.raises(DecodeError):
        message_in(frame[:size])
