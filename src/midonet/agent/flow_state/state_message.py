"""What agents tell each other of connections: messages, and their form on the wire. Pure.

A message travels in a state frame (`state_frame.py`). Integers are in network byte order:

    | version (1) | kind | reserved | epoch of the sender (32 bits)   |
    | sequence of the sender in that epoch (64 bits)                  |
    | host id of the sender (16 bytes)                                |
    | body, by kind                                                   |
    | keyed digest of all before (BLAKE2s, 8 bytes)                   |

    TELL     remaining_s (16 bits), tcp state, flags (1: answered, 2: the initiator is written),
             number of return keys, number of bindings, initiator (16 bytes, when it is written;
             else the scope of the forward key), forward key, return keys, bindings
    PROOF    sequence (64 bits) of the message that is acknowledged
    KILL     forward key
    ASK      key
    NOTHING  key

    key       scope (16 bytes), VLAN (16 bits), tuple
    tuple     IP version, protocol, source, source port, destination, destination port
    binding   owner (16 bytes), side (0 source, 1 destination), end point before, end point after
    end point IP version, address, port

Times are relative: hosts share no clock. A receiver refuses what it does not understand as a
whole, by version, and what its digest does not prove to be of this deployment.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, assert_never
from uuid import UUID

from midonet.agent.flow_state.connection import (
    Binding,
    Connection,
    ConnectionKey,
    Endpoint,
    Side,
    TcpState,
)
from midonet.agent.flow_state.zone import Zone
from midonet.errors import DecodeError
from midonet.model.ids import HostId, PortId
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple

VERSION = 1
RETURN_KEYS_MAX = 16
"""Return keys in one message; a flood that confirmed more tells the first."""

BINDINGS_MAX = 8
REMAINING_MAX_S = 0xFFFF

_DIGEST_SIZE = 8
_PERSON = b"mn-state"
_HEAD = struct.Struct("!BBHIQ16s")
_TELL = struct.Struct("!HBBBB")
_SEQUENCE = struct.Struct("!Q")
_ZONE = struct.Struct("!16sH")
_BINDING = struct.Struct("!16sB")
_PORT = struct.Struct("!H")
_ANSWERED, _HAS_INITIATOR = 1, 2
_SIDES = (Side.SOURCE, Side.DESTINATION)
_BYTES_OF = {IpVersion.V4: 4, IpVersion.V6: 16}


class _Kind(IntEnum):
    TELL = 1
    PROOF = 2
    KILL = 3
    ASK = 4
    NOTHING = 5


@dataclass(frozen=True, slots=True)
class Tell:
    """A connection as the sender knows it: new, changed, still in use, or asked for.

    remaining_s: whole seconds after which it is over, unless more is heard or seen of it.
    """

    connection: Connection
    remaining_s: int


@dataclass(frozen=True, slots=True)
class Proof:
    """The message of this host with that sequence has arrived and was taken in."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Kill:
    """The connection that begins with this key is over."""

    forward: ConnectionKey


@dataclass(frozen=True, slots=True)
class Ask:
    """Who knows the connection that has this key?"""

    key: ConnectionKey


@dataclass(frozen=True, slots=True)
class Nothing:
    """The sender knows no connection that has this key."""

    key: ConnectionKey


StateMessage = Tell | Proof | Kill | Ask | Nothing


class Signed(NamedTuple):
    """A message with who sent it. epoch: grows with each start of the sender's agent."""

    sender: HostId
    epoch: int
    sequence: int
    message: StateMessage


def encode_message(signed: Signed, secret: bytes) -> bytes:
    """Return the bytes of a message. secret: of the deployment, 1 to 32 bytes."""
    kind, body = _body(signed.message)
    head = _HEAD.pack(VERSION, kind, 0, signed.epoch, signed.sequence, signed.sender.bytes)
    return head + body + _digest(head + body, secret)


def decode_message(data: bytes, secret: bytes) -> Signed | None:
    """Read a message; None when it is of another version.

    Raises DecodeError when it is not of this deployment, or not what the module docstring says, to
    the last byte.
    """
    if len(data) < _HEAD.size + _DIGEST_SIZE:
        raise DecodeError("state message truncated")
    content, digest = data[:-_DIGEST_SIZE], data[-_DIGEST_SIZE:]
    if digest != _digest(content, secret):
        raise DecodeError("state message of another deployment")
    version, kind, _, epoch, sequence, sender = _HEAD.unpack_from(content)
    if version != VERSION:
        return None
    reader = _Reader(content, _HEAD.size)
    try:
        message = _READERS[_Kind(kind)](reader)
    except (struct.error, ValueError, KeyError) as error:
        raise DecodeError("state message malformed") from error
    if reader.at != len(content):
        raise DecodeError("state message with something behind it")
    return Signed(HostId(UUID(bytes=sender)), epoch, sequence, message)


def _digest(content: bytes, secret: bytes) -> bytes:
    return hashlib.blake2s(content, digest_size=_DIGEST_SIZE, key=secret, person=_PERSON).digest()


def encode_tell(tell: Tell) -> bytes:
    """Return the body of a TELL alone, for who stores it."""
    return _tell(tell)


def decode_tell(data: bytes) -> Tell:
    """Return what `encode_tell` was given. Raises DecodeError for anything else."""
    reader = _Reader(data, 0)
    try:
        tell = _read_tell(reader)
    except (ValueError, KeyError, struct.error) as error:
        raise DecodeError(f"not a connection: {error}") from None
    if reader.at != len(data):
        raise DecodeError("bytes behind a connection")
    return tell


def _body(message: StateMessage) -> tuple[_Kind, bytes]:
    match message:
        case Tell():
            return _Kind.TELL, _tell(message)
        case Proof(sequence):
            return _Kind.PROOF, _SEQUENCE.pack(sequence)
        case Kill(key):
            return _Kind.KILL, _key(key)
        case Ask(key):
            return _Kind.ASK, _key(key)
        case Nothing(key):
            return _Kind.NOTHING, _key(key)
        case _:
            assert_never(message)


def _tell(tell: Tell) -> bytes:
    connection = tell.connection
    returns = connection.returns[:RETURN_KEYS_MAX]
    bindings = connection.bindings[:BINDINGS_MAX]
    initiator = connection.initiator.bytes
    if connection.initiator == connection.forward.zone.scope:
        initiator = b""
    head = _TELL.pack(
        min(max(tell.remaining_s, 0), REMAINING_MAX_S),
        connection.tcp,
        _ANSWERED * connection.is_answered | _HAS_INITIATOR * bool(initiator),
        len(returns),
        len(bindings),
    )
    keys = [_key(key) for key in (connection.forward, *returns)]
    parts = [head, initiator, *keys, *map(_binding, bindings)]
    return b"".join(parts)


def _key(key: ConnectionKey) -> bytes:
    (scope, vlan), (version, protocol, source, source_port, destination, port) = key
    size = _BYTES_OF[version]
    return b"".join(
        (
            _ZONE.pack(scope.bytes, vlan),
            bytes((version, protocol)),
            source.to_bytes(size, "big"),
            _PORT.pack(source_port),
            destination.to_bytes(size, "big"),
            _PORT.pack(port),
        )
    )


def _binding(binding: Binding) -> bytes:
    head = _BINDING.pack(binding.owner.bytes, _SIDES.index(binding.side))
    return head + _endpoint(binding.before) + _endpoint(binding.after)


def _endpoint(endpoint: Endpoint) -> bytes:
    address = endpoint.address.to_bytes(_BYTES_OF[endpoint.version], "big")
    return bytes((endpoint.version,)) + address + _PORT.pack(endpoint.port)


class _Reader:
    """Takes values off the front of a message. Raises struct.error, ValueError or KeyError."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self.at = at

    def take(self, size: int) -> bytes:
        taken = self._data[self.at : self.at + size]
        if len(taken) != size:
            raise ValueError("truncated")
        self.at += size
        return taken

    def unpack(self, form: struct.Struct) -> tuple[int | bytes, ...]:
        return form.unpack(self.take(form.size))

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def object_id(self) -> UUID:
        return UUID(bytes=self.take(16))

    def key(self) -> ConnectionKey:
        scope, vlan = self.object_id(), self.number(2)
        if vlan > 4094:
            raise ValueError("VLAN")
        version, protocol = IpVersion(self.number(1)), self.number(1)
        size = _BYTES_OF[version]
        source, source_port = self.number(size), self.number(2)
        destination, port = self.number(size), self.number(2)
        ends = FiveTuple(version, protocol, source, source_port, destination, port)
        return ConnectionKey(Zone(scope, vlan), ends)

    def endpoint(self) -> Endpoint:
        version = IpVersion(self.number(1))
        return Endpoint(version, self.number(_BYTES_OF[version]), self.number(2))

    def binding(self) -> Binding:
        owner, side = self.object_id(), self.number(1)
        if side >= len(_SIDES):
            raise ValueError("side")
        return Binding(owner, _SIDES[side], self.endpoint(), self.endpoint())


def _read_tell(reader: _Reader) -> Tell:
    remaining_s, tcp, flags = reader.number(2), TcpState(reader.number(1)), reader.number(1)
    keys, bindings = reader.number(1), reader.number(1)
    known = _ANSWERED | _HAS_INITIATOR
    if flags & ~known or keys > RETURN_KEYS_MAX or bindings > BINDINGS_MAX:
        raise ValueError("bounds")
    initiator = reader.object_id() if flags & _HAS_INITIATOR else None
    forward = reader.key()
    connection = Connection(
        forward,
        tuple(reader.key() for _ in range(keys)),
        PortId(initiator or forward.zone.scope),
        tuple(reader.binding() for _ in range(bindings)),
        tcp,
        is_answered=bool(flags & _ANSWERED),
    )
    return Tell(connection, remaining_s)


_READERS: dict[_Kind, Callable[[_Reader], StateMessage]] = {
    _Kind.TELL: _read_tell,
    _Kind.PROOF: lambda reader: Proof(reader.number(8)),
    _Kind.KILL: lambda reader: Kill(reader.key()),
    _Kind.ASK: lambda reader: Ask(reader.key()),
    _Kind.NOTHING: lambda reader: Nothing(reader.key()),
}
