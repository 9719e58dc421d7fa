"""Which connection the packet belongs to: asked once by a walk, and only if something needs it.

The answer follows from the header of the packet as it entered (all of the five-tuple, VLAN, type,
protocol and fragment kind are recorded) and from the connections known at that moment (the tag of
the key, whether there is one or not). It does not follow from the key alone for what begins or
ends a connection, for ICMP and for fragments: their outcome is for one packet.
"""

from __future__ import annotations

from dataclasses import dataclass

from midonet.agent.flow_state.connection import ConnectionKey, Direction
from midonet.agent.flow_state.reader import ConnectionReader
from midonet.agent.flow_state.sight import Sight, Standing
from midonet.agent.flow_state.tcp_table import WATCHED_FLAGS
from midonet.agent.flow_state.tracking import is_icmp_error, may_begin, standing
from midonet.agent.flow_state.zone import Zone
from midonet.agent.simulation.header import (
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    IP_DST,
    IP_FRAG,
    IP_PROTO,
    IP_PROTO_ICMP,
    IP_PROTO_ICMPV6,
    IP_PROTO_TCP,
    IP_SRC,
    L4_DST,
    L4_SRC,
    VLAN_TCI,
)
from midonet.agent.topology.view import PortView
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import five_tuple
from midonet.packets.flowkey import VLAN_PRESENT, FragmentKind
from midonet.packets.frame import ParsedFrame

_IP_TYPES = frozenset((ETH_TYPE_IPV4, ETH_TYPE_IPV6))
ICMP_PROTOCOLS = frozenset((IP_PROTO_ICMP, IP_PROTO_ICMPV6))

FORWARD_SIGHT = Sight(Standing.NEW)
"""What has no connection and can have none travels forward."""

RETURN_SIGHT = Sight(Standing.NEW, Direction.RETURN)
"""Of what a device made by itself: it answers, so it travels back."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a walk learns when it asks for its connection.

    key: of the packet, where it entered; None when it has no five-tuple. may_begin: a connection
    may begin with it. is_single: the outcome is for this packet only. tcp_flags_clear: it is for
    segments without these flags. should_wait: another host may know the connection.
    may_be_answer: it could begin a connection, but also answer one that left by another member of
    the port's stateful group.
    """

    sight: Sight
    key: ConnectionKey | None = None
    may_begin: bool = False
    is_single: bool = False
    tcp_flags_clear: int = 0
    should_wait: bool = False
    may_be_answer: bool = False


def zone_of(port: PortView, vlan_tci: int) -> Zone:
    """Return the zone of a frame with this outermost tag (0 for none) at a port."""
    vlan = vlan_tci & 0xFFF if vlan_tci & VLAN_PRESENT else 0
    return Zone(port.stateful_group_id or port.id, vlan)


def observe(
    connections: ConnectionReader, packet: ParsedFrame, port: PortView, now_s: float
) -> Observation:
    """Return what there is to know of the connection of a packet that enters at `port`."""
    tuple_ = five_tuple(packet)
    if tuple_ is None:
        is_later = packet.key.ip_frag == FragmentKind.LATER
        return Observation(FORWARD_SIGHT, is_single=is_later or is_icmp_error(packet))
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
