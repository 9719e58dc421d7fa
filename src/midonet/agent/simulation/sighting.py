"""Which connection the packet belongs to: asked once by a walk, and only if something needs it.

The answer follows from the header of the packet as it entered (all of the five-tuple, VLAN, type,
protocol and fragment kind are recorded) and from the connections known at that moment (the tag of
the key, whether there is one or not). It does not follow from the key alone for what begins or
ends a connection, for ICMP and for fragments: their outcome is for one packet.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from midonet.agent.flow_state.connection import ConnectionKey, Direction
from midonet.agent.flow_state.fragments import (
    DatagramId,
    FragmentReader,
    NoteFragment,
    datagram_of,
)
from midonet.agent.flow_state.reader import ConnectionReader
from midonet.agent.flow_state.sight import Sight, Standing
from midonet.agent.flow_state.tcp_table import WATCHED_FLAGS
from midonet.agent.flow_state.tracking import is_icmp_error, may_begin, standing
from midonet.agent.flow_state.zone import Zone
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.simulation.header import (
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    IP_DST,
    IP_FRAG,
    IP_PROTO,
    IP_PROTO_ICMP,
    IP_PROTO_ICMPV6,
    IP_PROTO_SCTP,
    IP_PROTO_TCP,
    IP_PROTO_UDP,
    IP_SRC,
    L4_DST,
    L4_SRC,
    VLAN_TCI,
)
from midonet.agent.topology.view import PortView
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple, five_tuple
from midonet.packets.flowkey import VLAN_PRESENT, FragmentKind
from midonet.packets.fragment_place import FragmentPlace
from midonet.packets.frame import ParsedFrame
from midonet.packets.icmp_quote import find_quote

_IP_TYPES = frozenset((ETH_TYPE_IPV4, ETH_TYPE_IPV6))
ICMP_PROTOCOLS = frozenset((IP_PROTO_ICMP, IP_PROTO_ICMPV6))

_FOLLOWED = ICMP_PROTOCOLS | {IP_PROTO_TCP, IP_PROTO_UDP, IP_PROTO_SCTP}
"""Protocols whose later fragments have ports that only the first one shows."""

FORWARD_SIGHT = Sight(Standing.NEW)
"""What has no connection and can have none travels forward."""

RETURN_SIGHT = Sight(Standing.NEW, Direction.RETURN)
"""Of what a device made by itself: it answers, so it travels back."""


@dataclass(frozen=True, slots=True)
class Known:
    """What there is to ask."""

    connections: ConnectionReader
    fragments: FragmentReader


@dataclass(frozen=True, slots=True)
class Observation:
    """What a walk learns when it asks for its connection.

    key: of the packet, where it entered; None when it has no five-tuple. may_begin: a connection
    may begin with it. is_single: the outcome is for this packet only. tcp_flags_clear: it is for
    segments without these flags. should_wait: another host may know the connection.
    may_be_answer: it could begin a connection, but also answer one that left by another member of
    the port's stateful group, or one that was translated.
    about: key of the connection that an error is about. fragment: which part of a datagram it is.
    stray: why a fragment must not go on. awaits_first: it may, once its first has come.
    """

    sight: Sight
    key: ConnectionKey | None = None
    may_begin: bool = False
    is_single: bool = False
    tcp_flags_clear: int = 0
    should_wait: bool = False
    may_be_answer: bool = False
    about: ConnectionKey | None = None
    fragment: NoteFragment | None = None
    stray: tuple[DropReason, DatagramId] | None = None
    awaits_first: DatagramId | None = None


def zone_of(port: PortView, vlan_tci: int) -> Zone:
    """Return the zone of a frame with this outermost tag (0 for none) at a port."""
    vlan = vlan_tci & 0xFFF if vlan_tci & VLAN_PRESENT else 0
    return Zone(port.stateful_group_id or port.id, vlan)


def observe(known: Known, packet: ParsedFrame, port: PortView, now_s: float) -> Observation:
    """Return what there is to know of the connection of a packet that enters at `port`."""
    zone = zone_of(port, packet.key.vlan_tci)
    datagram = datagram_of(packet, zone) if packet.key.ip_proto in _FOLLOWED else None
    if datagram is not None:
        return _observe_fragment(known, packet, port, datagram, now_s)
    tuple_ = five_tuple(packet)
    if tuple_ is None:
        return _observe_error(known, packet, zone, now_s)
    return _observe_tuple(known, packet, port, tuple_, now_s)


def _observe_fragment(
    known: Known,
    packet: ParsedFrame,
    port: PortView,
    datagram: tuple[DatagramId, FragmentPlace],
    now_s: float,
) -> Observation:
    """A later fragment has the tuple of its first; what overlaps others is refused."""
    identity, place = datagram
    if known.fragments.contradicts(identity, place, now_s):
        stray = DropReason.FRAGMENT_INVALID, identity
        return Observation(FORWARD_SIGHT, is_single=True, stray=stray)
    is_later = packet.key.ip_frag == FragmentKind.LATER
    tuple_ = known.fragments.first(identity, now_s) if is_later else five_tuple(packet)
    if tuple_ is not None:
        observed = _observe_tuple(known, packet, port, tuple_, now_s)
        note = NoteFragment(identity, place, tuple_)
        begins = observed.may_begin and not is_later
        return replace(observed, fragment=note, is_single=True, may_begin=begins)
    if not is_later:
        return _observe_error(known, packet, zone_of(port, packet.key.vlan_tci), now_s)
    if known.fragments.may_come(identity, now_s):
        return Observation(FORWARD_SIGHT, is_single=True, awaits_first=identity)
    stray = DropReason.FRAGMENT_UNKNOWN, identity
    return Observation(FORWARD_SIGHT, is_single=True, stray=stray)


def _observe_error(known: Known, packet: ParsedFrame, zone: Zone, now_s: float) -> Observation:
    """An error is about the connection whose packet it quotes; nothing else is about any."""
    if not is_icmp_error(packet):
        return Observation(FORWARD_SIGHT)
    quote = find_quote(packet)
    quoted = quote.tuple if quote is not None else None
    if quoted is None:
        return Observation(FORWARD_SIGHT, is_single=True)
    about = ConnectionKey(zone, quoted.inverse())
    found = known.connections.find(about, now_s)
    if found is not None:
        sight = Sight(Standing.RELATED, found.direction_of(about), found)
        return Observation(sight, is_single=True, about=about)
    should_wait = known.connections.should_wait(about, now_s)
    return Observation(FORWARD_SIGHT, is_single=True, should_wait=should_wait, about=about)


def _observe_tuple(
    known: Known, packet: ParsedFrame, port: PortView, tuple_: FiveTuple, now_s: float
) -> Observation:
    connections = known.connections
    key = ConnectionKey(zone_of(port, packet.key.vlan_tci), tuple_)
    found = connections.find(key, now_s)
    rank = standing(found, packet)
    if rank is Standing.KNOWN and found is not None:
        sight = Sight(rank, found.direction_of(key), found)
    else:
        # A connection that is over is shown to whoever confirms: it gives way.
        sight = Sight(rank, Direction.FORWARD, found)
    is_tcp = tuple_.protocol == IP_PROTO_TCP
    return Observation(
        sight,
        key,
        rank is not Standing.KNOWN and may_begin(tuple_, packet),
        packet.key.ip_frag != FragmentKind.NONE
        or tuple_.protocol in ICMP_PROTOCOLS
        or (is_tcp and bool(packet.tcp_flags & WATCHED_FLAGS)),
        WATCHED_FLAGS if is_tcp else 0,
        rank is Standing.UNKNOWN and connections.should_wait(key, now_s),
        rank is Standing.NEW and not is_tcp and port.stateful_group_id is not None,
    )


def record_read(packet: ParsedFrame, has_tuple: bool, mask: list[int]) -> None:
    """Enter in a mask what `observe` read of the header of the packet as it entered."""
    mask[ETH_TYPE] |= 0xFFFF
    if packet.key.eth_type not in _IP_TYPES:
        return
    mask[IP_PROTO] |= 0xFF
    mask[IP_FRAG] |= 0xFF
    if packet.key.ip_proto in ICMP_PROTOCOLS:
        mask[L4_SRC] |= 0xFFFF
    if has_tuple:
        bits = (1 << (32 if packet.ip_version is IpVersion.V4 else 128)) - 1
        mask[VLAN_TCI] |= VLAN_PRESENT | 0xFFF
        mask[IP_SRC] |= bits
        mask[IP_DST] |= bits
        mask[L4_SRC] |= 0xFFFF
        mask[L4_DST] |= 0xFFFF
