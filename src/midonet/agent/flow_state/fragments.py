"""Later fragments follow their first: which tuple a fragmented datagram has. Pure but for memory.

The first fragment of a datagram carries the ports; what it was is kept for the datagram's other
fragments, both IP versions alike, for as long as a receiver waits for them. A datagram whose
fragments overlap is refused as a whole (RFC 5722, RFC 8900 section 3.5): receivers differ in what
they make of it. The oldest makes room for the newest; nothing here begins a connection.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from midonet.agent.flow_state.zone import Zone
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.flowkey import FragmentKind
from midonet.packets.fragment_place import FragmentPlace, fragment_place
from midonet.packets.frame import ParsedFrame

LIFETIME_S = 30.0
"""How long a receiver keeps fragments: Linux's time for IPv4 (RFC 1122 section 3.3.2 says 60 s)."""

WAIT_S = 0.25
"""How long a later fragment waits for its first: they come out of order, but together."""

CAPACITY = 8192
_PIECES_MAX = 64
"""Fragments of one datagram: 64 KiB in pieces of 1 KiB."""


class DatagramId(NamedTuple):
    """What the fragments of one datagram have in common, where they enter."""

    zone: Zone
    version: IpVersion
    protocol: int
    source: int
    destination: int
    identification: int


@dataclass(frozen=True, slots=True)
class NoteFragment:
    """Effect: a fragment is on its way. tuple: of the datagram."""

    datagram: DatagramId
    place: FragmentPlace
    tuple: FiveTuple


@dataclass(frozen=True, slots=True)
class RefuseDatagram:
    """Effect: the fragments of a datagram contradict each other; nothing more of it may pass."""

    datagram: DatagramId


class FragmentReader(Protocol):
    """The fragmented datagrams that are known."""

    def first(self, datagram: DatagramId, now_s: float) -> FiveTuple | None:
        """Return the tuple of a datagram whose first fragment has passed."""
        ...

    def may_come(self, datagram: DatagramId, now_s: float) -> bool:
        """Tell whether its first fragment is worth waiting for."""
        ...

    def contradicts(self, datagram: DatagramId, place: FragmentPlace, now_s: float) -> bool:
        """Tell whether a fragment there overlaps others of its datagram, or is one too many."""
        ...


@dataclass(slots=True)
class _Datagram:
    tuple: FiveTuple
    since_s: float
    pieces: set[FragmentPlace] = field(default_factory=set)
    is_refused: bool = False


class FragmentTable:
    """Datagrams in the order in which their first fragments came."""

    def __init__(self, *, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._known: OrderedDict[DatagramId, _Datagram] = OrderedDict()
        self._expected: OrderedDict[DatagramId, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def first(self, datagram: DatagramId, now_s: float) -> FiveTuple | None:
        """Return the tuple of a datagram whose first fragment has passed."""
        known = self._find(datagram, now_s)
        return None if known is None else known.tuple

    def may_come(self, datagram: DatagramId, now_s: float) -> bool:
        """Tell whether its first fragment is worth waiting for."""
        if self._find(datagram, now_s) is not None:
            return False
        return now_s < self._expected.get(datagram, now_s + WAIT_S)

    def contradicts(self, datagram: DatagramId, place: FragmentPlace, now_s: float) -> bool:
        """Tell whether a fragment there overlaps others of its datagram, or is one too many."""
        known = self._find(datagram, now_s)
        if known is None:
            return False
        if known.is_refused:
            return True
        if place in known.pieces:
            return False
        return len(known.pieces) >= _PIECES_MAX or any(map(place.overlaps, known.pieces))

    def expect(self, datagram: DatagramId, now_s: float) -> None:
        """Take note that a later fragment waits for its first."""
        if datagram not in self._expected:
            if len(self._expected) >= self._capacity:
                self._expected.popitem(last=False)
            self._expected[datagram] = now_s + WAIT_S

    def note(self, what: NoteFragment, now_s: float) -> None:
        """Take note of a fragment that passes."""
        known = self._find(what.datagram, now_s)
        if known is None or (what.place.is_first and known.tuple != what.tuple):
            self._known.pop(what.datagram, None)
            known = self._known[what.datagram] = _Datagram(what.tuple, now_s)
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)
        known.pieces.add(what.place)

    def refuse(self, datagram: DatagramId, now_s: float) -> None:
        """Let nothing more of a datagram pass."""
        known = self._find(datagram, now_s)
        if known is not None:
            known.is_refused = True

    def expire(self, now_s: float) -> None:
        """Let go of what no receiver waits for."""
        for table in (self._known, self._expected):
            while table and self._is_over(next(iter(table)), now_s):
                table.popitem(last=False)

    def _is_over(self, datagram: DatagramId, now_s: float) -> bool:
        known = self._known.get(datagram)
        since_s = self._expected.get(datagram, 0.0) if known is None else known.since_s
        return now_s - since_s >= LIFETIME_S

    def _find(self, datagram: DatagramId, now_s: float) -> _Datagram | None:
        known = self._known.get(datagram)
        return None if known is None or now_s - known.since_s >= LIFETIME_S else known


class _NoFragments:
    """A reader that knows of none, and waits for none."""

    def first(self, datagram: DatagramId, now_s: float) -> FiveTuple | None:
        return None

    def may_come(self, datagram: DatagramId, now_s: float) -> bool:
        return False

    def contradicts(self, datagram: DatagramId, place: FragmentPlace, now_s: float) -> bool:
        return False


NO_FRAGMENTS: FragmentReader = _NoFragments()


def datagram_of(packet: ParsedFrame, zone: Zone) -> tuple[DatagramId, FragmentPlace] | None:
    """Return which datagram a fragment is of, and which part of it; None when it is none."""
    version, key = packet.ip_version, packet.key
    place = fragment_place(packet)
    if version is None or key.ip_frag == FragmentKind.NONE or place is None:
        return None
    identity = DatagramId(zone, version, key.ip_proto, key.ip_src, key.ip_dst, place.identification)
    return identity, place
