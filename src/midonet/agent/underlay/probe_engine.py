"""Probes between hosts: is the peer there, and how large a packet takes the way to it.

A protocol engine without I/O: datagrams and the time go in, datagrams and states come out. The
path MTU is searched as in RFC 8899 (packetisation layer path MTU discovery for datagrams): the
base size proves connectivity, the ceiling is tried first, then the interval is halved; the
found size is confirmed while the path is in use and raised again after ten minutes.

Wire format, network byte order, in a UDP datagram padded to the probed size:

     0                   1                   2                   3
    | magic "MNPB"                                                  |
    | version (1)   | kind          | probed IP packet size         |
    | sequence                                                      |
    | epoch of the sender                                           |
    | host id of the sender (16 bytes)                              |
    | keyed digest of all before (BLAKE2s, 8 bytes)                 |
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from uuid import UUID

from midonet.errors import DecodeError
from midonet.model.ids import HostId
from midonet.packets.addresses import IpAddress

_FORMAT = struct.Struct("!4sBBHII16s")
_DIGEST_SIZE = 8
PROBE_SIZE = _FORMAT.size + _DIGEST_SIZE
"""Bytes of a probe without its padding."""

_MAGIC = b"MNPB"
_VERSION = 1

INTERVAL_S = 1.0
"""Between two probes to one peer, while there are no more than PROBES_PER_S."""

PROBES_PER_S = 100
"""Probes of known peers per second; with more peers each is probed less often."""

REACHABLE_INTERVALS = 3.5
"""A peer that answered within so many intervals is reachable."""

RAISE_S = 600.0
"""After this time the ceiling is tried again (RFC 8899 PMTU_RAISE_TIMER)."""

CONFIRM_S = 30.0
"""After this time the found size is confirmed (RFC 8899 CONFIRMATION_TIMER)."""

MAX_PROBES = 3
"""Unanswered probes of one size before it is held to be too large (RFC 8899 MAX_PROBES)."""

BASE_MTU = 1200
"""IP packet size that every path is held to take (RFC 8899 BASE_PLPMTU)."""

SEARCH_STEP = 8
"""The search ends when the interval is no wider than this, in bytes."""


class _Kind(IntEnum):
    REQUEST = 1
    REPLY = 2


@dataclass(frozen=True, slots=True)
class Datagram:
    """A datagram to send. `payload` is the UDP payload."""

    remote: IpAddress
    payload: bytes


@dataclass(frozen=True, slots=True)
class PeerState:
    """What is known of a peer. path_mtu_bytes: IP packet size proven to pass; 0 while the ceiling
    has neither passed nor failed.

    round_trip_s: of the last answered probe. epoch: of the peer's agent, 0 before an answer.
    """

    is_reachable: bool
    path_mtu_bytes: int
    round_trip_s: float
    epoch: int


@dataclass(slots=True)
class _Peer:
    address: IpAddress
    ceiling: int
    next_at: float
    proven: int = 0
    too_large: int = 0
    tries: int = 0
    heard_at: float | None = None
    proven_at: float = 0.0
    searched_at: float = 0.0
    round_trip_s: float = 0.0
    epoch: int = 0
    alive_probe: tuple[int, float] | None = None  # sequence, sent at
    waiting: tuple[int, int] | None = None  # sequence and size of a search probe


def ip_overhead(address: IpAddress) -> int:
    """Return IP and UDP header bytes in front of a probe's payload."""
    return (20 if address.version == 4 else 40) + 8


class ProbeEngine:
    """Probes a set of peers. `key` is shared by the deployment; forged probes are ignored."""

    def __init__(self, host_id: HostId, epoch: int, key: bytes) -> None:
        self._host_id = host_id
        self._epoch = epoch
        self._key = key
        self._peers: dict[HostId, _Peer] = {}
        self._sequence = 0
        self._replies: list[Datagram] = []
        self._interval_s = INTERVAL_S
        self._next_due = math.inf
        self.ignored = 0

    def set_peers(self, peers: Mapping[HostId, tuple[IpAddress, int]], now: float) -> None:
        """Replace the peers: host to (address, largest packet its interface takes)."""
        for host_id in set(self._peers) - set(peers):
            del self._peers[host_id]
        self._interval_s = max(INTERVAL_S, len(peers) / PROBES_PER_S)
        for index, (host_id, (address, ceiling)) in enumerate(sorted(peers.items())):
            old = self._peers.get(host_id)
            if old is None or (old.address, old.ceiling) != (address, ceiling):
                spread = self._interval_s * (index % 64) / 256
                self._peers[host_id] = _Peer(address, max(ceiling, BASE_MTU), now + spread)
        self._next_due = min((peer.next_at for peer in self._peers.values()), default=math.inf)

    def state(self, host_id: HostId, now: float) -> PeerState | None:
        """Return what is known of a peer, None when it is not one."""
        peer = self._peers.get(host_id)
        if peer is None:
            return None
        heard = self._is_heard(peer, now)
        is_known = peer.too_large > 0 or peer.proven >= peer.ceiling
        return PeerState(heard, peer.proven if is_known else 0, peer.round_trip_s, peer.epoch)

    def next_timer(self) -> float | None:
        """Return when `datagrams` has something to send, None without peers."""
        return None if self._next_due == math.inf else self._next_due

    def receive(self, payload: bytes, remote: IpAddress, now: float) -> None:
        """Take in a datagram. What is not a genuine probe of a peer is counted and ignored."""
        try:
            kind, size, sequence, epoch, host_id = self._parse(payload)
        except DecodeError:
            self.ignored += 1
            return
        peer = self._peers.get(host_id)
        if peer is None or peer.address != remote:
            self.ignored += 1
        elif kind is _Kind.REQUEST:
            self._replies.append(Datagram(remote, self._build(_Kind.REPLY, size, sequence)))
        else:
            self._answered(peer, sequence, epoch, now)

    def datagrams(self, now: float) -> list[Datagram]:
        """Return what to send now: replies, and probes that are due."""
        due, self._replies = self._replies, []
        if self._next_due > now:
            return due
        for peer in self._peers.values():
            if peer.next_at <= now:
                self._expire(peer, now)
                peer.next_at = now + self._interval_s
                peer.alive_probe = (self._next_sequence(), now)
                due.append(self._request(peer, BASE_MTU, peer.alive_probe[0]))
                size = self._search_size(peer, now)
                if size is not None:
                    peer.waiting = (self._next_sequence(), size)
                    due.append(self._request(peer, size, peer.waiting[0]))
        self._next_due = min((peer.next_at for peer in self._peers.values()), default=math.inf)
        return due

    def _is_heard(self, peer: _Peer, now: float) -> bool:
        window_s = REACHABLE_INTERVALS * self._interval_s
        return peer.heard_at is not None and now - peer.heard_at <= window_s

    def _hurry(self, peer: _Peer, now: float) -> None:
        """Probe a peer again at once."""
        peer.next_at = now
        self._next_due = min(self._next_due, now)

    def refused(self, remote: IpAddress, size: int) -> None:
        """Take in that the local stack refused a packet of `size` bytes as too large."""
        for peer in self._peers.values():
            if peer.address == remote and peer.waiting is not None and peer.waiting[1] == size:
                peer.too_large = size
                peer.tries = 0
                peer.waiting = None
                self._hurry(peer, 0.0)

    def _next_sequence(self) -> int:
        self._sequence = (self._sequence + 1) & 0xFFFF_FFFF
        return self._sequence

    def _request(self, peer: _Peer, size: int, sequence: int) -> Datagram:
        payload = self._build(_Kind.REQUEST, size, sequence)
        padding = max(0, size - ip_overhead(peer.address) - len(payload))
        return Datagram(peer.address, payload + bytes(padding))

    def _search_size(self, peer: _Peer, now: float) -> int | None:
        """Return the size to try next to the liveness probe, None when there is nothing to find."""
        if not self._is_heard(peer, now):
            return None
        if peer.too_large and now - peer.searched_at > RAISE_S:
            peer.too_large = 0
        if not peer.too_large and peer.proven < peer.ceiling:
            return peer.ceiling
        if peer.too_large and peer.too_large - peer.proven > SEARCH_STEP:
            return (peer.too_large + peer.proven) // 2
        return peer.proven if now - peer.proven_at > CONFIRM_S else None

    def _expire(self, peer: _Peer, now: float) -> None:
        if peer.waiting is None:
            return
        size = peer.waiting[1]
        peer.waiting = None
        if not self._is_heard(peer, now):
            peer.tries = 0
            return
        peer.tries += 1
        if peer.tries >= MAX_PROBES:
            peer.tries = 0
            peer.too_large = size
            peer.searched_at = now
            if size <= peer.proven:  # what once passed does not any more: search anew
                peer.proven = BASE_MTU

    def _answered(self, peer: _Peer, sequence: int, epoch: int, now: float) -> None:
        peer.heard_at = now
        peer.epoch = epoch
        if peer.alive_probe is not None and peer.alive_probe[0] == sequence:
            peer.round_trip_s = now - peer.alive_probe[1]
            peer.alive_probe = None
            if not peer.proven:
                peer.proven = BASE_MTU
                self._hurry(peer, now)
        elif peer.waiting is not None and peer.waiting[0] == sequence:
            size = peer.waiting[1]
            peer.waiting = None
            peer.tries = 0
            peer.proven, peer.proven_at = size, now
            if size < peer.ceiling:
                self._hurry(peer, now)

    def _build(self, kind: _Kind, size: int, sequence: int) -> bytes:
        head = _FORMAT.pack(
            _MAGIC, _VERSION, kind, size, sequence, self._epoch & 0xFFFF_FFFF, self._host_id.bytes
        )
        return head + self._digest(head)

    def _digest(self, head: bytes) -> bytes:
        return hashlib.blake2s(head, key=self._key, digest_size=_DIGEST_SIZE).digest()

    def _parse(self, payload: bytes) -> tuple[_Kind, int, int, int, HostId]:
        if len(payload) < PROBE_SIZE:
            raise DecodeError("probe is truncated")
        head = payload[: _FORMAT.size]
        magic, version, kind, size, sequence, epoch, host = _FORMAT.unpack(head)
        if magic != _MAGIC or version != _VERSION or kind not in (_Kind.REQUEST, _Kind.REPLY):
            raise DecodeError("not a probe")
        if payload[_FORMAT.size : PROBE_SIZE] != self._digest(head):
            raise DecodeError("probe with a wrong digest")
        return _Kind(kind), size, sequence, epoch, HostId(UUID(bytes=host))
