"""The kernel's parser and the Python one give the same key, or both call the frame malformed."""

from __future__ import annotations

import random
import struct
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, IPv6ExtHdrRouting
from scapy.layers.l2 import ARP, LLC, SNAP, Dot1Q, Dot3, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Raw

from midonet.agent.datapath.ebpf import abi, codec
from midonet.agent.datapath.ebpf.loader import LoadedObject
from midonet.agent.datapath.ebpf.syscalls import run_program
from midonet.errors import DecodeError
from midonet.packets.frame import ParsedFrame, parse_frame
from tests.property.packets.scapy_frames import ip_frames, ipv4_frames, ipv6_frames

SEED = 0x0123_4567_89AB_CDEF
ZERO = bytes(4)
SEED_OFFSET = 152 + abi.TUNNEL.size
PROBE_SIZE = 160 + abi.TUNNEL.size
CONTEXT_SIZE = 192
GSO_SIZE_OFFSET = 176
LEAST = 15
"""Bytes that a test run takes at least."""


class Parsed(NamedTuple):
    """What the kernel made of a frame: key, size of the IP packet, TTL, the frame afterwards, and
    its tag beside the bytes (bit 16 set when there is one)."""

    key: bytes
    ip_length: int
    ttl: int
    frame: bytes
    tag: int


def kernel_parse(probe: LoadedObject, frame: bytes, gso_size: int = 0) -> Parsed:
    """Return a frame as the kernel sees it. Raises DecodeError when it is malformed."""
    probe.maps["probe"].update(ZERO, bytes(SEED_OFFSET) + struct.pack("=Q", SEED))
    context = b""
    if gso_size:
        context = bytearray(CONTEXT_SIZE)
        struct.pack_into("=I", context, 164, 2)  # gso_segs
        struct.pack_into("=I", context, GSO_SIZE_OFFSET, gso_size)
    try:
        ran = run_program(probe.programs["probe_parse"], frame, context=bytes(context))
    except OSError:
        # The test run itself refuses frames whose type says IP and that have no IP header.
        assert len(frame) < 54
        raise DecodeError("malformed") from None
    if ran.verdict != 0:
        raise DecodeError("malformed")
    room = probe.maps["probe"].get(ZERO)
    assert room is not None
    _, ip_length, ttl, tag = struct.unpack_from("=IIII", room, 72)
    return Parsed(room[:72], ip_length, ttl, ran.frame, tag)


def python_parse(frame: bytes, gso_size: int = 0) -> ParsedFrame | None:
    try:
        return parse_frame(frame, hash_seed=SEED, gso_size=gso_size)
    except DecodeError:
        return None


def check(probe: LoadedObject, frame: bytes, gso_size: int = 0) -> bool:
    """Compare both parsers; tell whether the frame was well-formed."""
    expected = python_parse(frame, gso_size)
    try:
        key, ip_length, ttl, _, _ = kernel_parse(probe, frame, gso_size)
    except DecodeError:
        assert expected is None, f"only the kernel calls it malformed: {frame.hex()}"
        return False
    assert expected is not None, f"only Python calls it malformed: {frame.hex()}"
    assert codec.unpack_key(key) == expected.key, frame.hex()
    assert key == codec.pack_key(0, 0, expected.key), "the same fields, but other bytes"
    assert ttl == expected.ttl
    if expected.ip_version is not None:
        assert ip_length == expected.packet_length
    return True


@settings(max_examples=100)
@given(built=ip_frames, padding=st.integers(0, 20))
def test_ip_frames_have_the_key_that_python_computes(
    probe: LoadedObject, built: object, padding: int
) -> None:
    assert check(probe, bytes(built) + bytes(padding))  # type: ignore[call-overload]


@settings(max_examples=60)
@given(built=st.one_of(ipv4_frames(), ipv6_frames()), data=st.data())
def test_truncated_frames_are_malformed_for_both_or_neither(
    probe: LoadedObject, built: object, data: st.DataObject
) -> None:
    frame = bytes(built)  # type: ignore[call-overload]
    check(probe, frame[: data.draw(st.integers(LEAST, len(frame)))])


def mutated(frame: bytes, chance: random.Random) -> bytes:
    """Return the frame with some bytes changed, most of them in the headers."""
    changed = bytearray(frame)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(min(len(changed), 90))] = chance.choice(
            (0, 1, 6, 17, 43, 44, 58, 60, 0x45, 0x60, 0x81, 0xFF, chance.randrange(256))
        )
    return bytes(
        changed[: chance.randint(LEAST, len(changed))] if chance.random() < 0.2 else changed
    )


SEEDS = [
    bytes(packet)
    for packet in (
        Ether() / IP(dst="10.0.0.1") / TCP() / Raw(b"x" * 30),
        Ether() / Dot1Q(vlan=5) / IP(dst="10.0.0.1", flags="MF") / UDP() / Raw(b"x" * 30),
        Ether() / IP(dst="10.0.0.1", proto=132) / SCTP() / Raw(b"x" * 30),
        Ether() / ARP(),
        Ether() / IPv6(dst="fd00::1") / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / UDP() / "x",
        Ether() / IPv6(dst="fd00::1") / IPv6ExtHdrFragment(offset=3, m=1, nh=17) / Raw(b"x" * 30),
        Ether() / IPv6(dst="fd00::1") / IPv6ExtHdrFragment(m=1, nh=6) / TCP() / Raw(b"x" * 30),
        Ether() / IP(dst="10.0.0.1", frag=9) / Raw(b"x" * 30),
        Ether() / Dot1Q(vlan=0) / Dot1Q(vlan=5) / Dot1Q(vlan=0) / IP() / TCP() / Raw(b"x" * 30),
        Dot3() / LLC() / SNAP(code=0x0806) / Raw(b"x" * 30),
    )
]


@pytest.mark.parametrize("index", range(len(SEEDS)))
def test_mutated_frames_get_the_same_judgement(probe: LoadedObject, index: int) -> None:
    check(probe, SEEDS[index])
    chance = random.Random(index)
    for _ in range(600):
        check(probe, mutated(SEEDS[index], chance))


def test_random_bytes_get_the_same_judgement(probe: LoadedObject) -> None:
    chance = random.Random(1)
    types = (b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x81\x00", b"\x88\xa8", b"\x00\x20")
    for _ in range(1500):
        body = chance.randbytes(chance.randint(LEAST - 14, 120))
        check(probe, chance.randbytes(12) + chance.choice(types) + body)


def extension_chain(count: int, units: int = 0) -> bytes:
    """Return an IPv6 frame with `count` destination options of 8 * (units + 1) bytes and UDP."""
    headers = b""
    for index in range(count):
        following = 60 if index + 1 < count else 17
        headers += bytes((following, units)) + bytes(6 + 8 * units)
    payload = headers + struct.pack("!HHHH", 1, 2, 8, 0)
    first = 60 if count else 17
    fixed = struct.pack("!IHBB", 6 << 28, len(payload), first, 64) + bytes(32)
    return bytes(12) + b"\x86\xdd" + fixed + payload


@pytest.mark.parametrize(
    ("count", "units", "is_fine"),
    [(6, 0, True), (7, 0, False), (4, 31, True), (5, 31, False), (1, 126, True), (1, 128, False)],
)
def test_extension_headers_are_bounded(
    probe: LoadedObject, count: int, units: int, is_fine: bool
) -> None:
    assert check(probe, extension_chain(count, units)) is is_fine


@pytest.mark.parametrize("gso_size", [1, 1000])
def test_super_packets_are_as_long_as_their_frame(probe: LoadedObject, gso_size: int) -> None:
    frame = bytearray(bytes(Ether() / IP(dst="10.0.0.1") / TCP() / Raw(b"x" * 2500)))
    frame[16:18] = b"\0\0"  # the total length of a large super-packet
    assert check(probe, bytes(frame), gso_size)


@settings(max_examples=50)
@given(data=st.data())
def test_flow_hash_equals_the_python_one(probe: LoadedObject, data: st.DataObject) -> None:
    frame = bytes(data.draw(ip_frames))
    key = kernel_parse(probe, frame).key
    expected = python_parse(frame)
    assert expected is not None
    assert int.from_bytes(key[32:36], "big") == expected.flow_hash(SEED)


@pytest.mark.parametrize(("before", "is_well_formed"), [(5, True), (6, False)])
def test_a_later_fragment_counts_as_an_extension_header(
    probe: LoadedObject, before: int, is_well_formed: bool
) -> None:
    frame = bytearray(extension_chain(before + 1))
    frame[54 + 8 * (before - 1)] = 44
    frame[54 + 8 * before + 2 : 54 + 8 * before + 4] = b"\x00\x08"
    assert check(probe, bytes(frame)) is is_well_formed
