"""Flow programs: what a datapath does with every packet of one class.

Viewpoint: ingress is into the virtual network at a local port; outputs leave it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from midonet.agent.flow_state.connection import ConnectionKey
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.mask import FlowMask
from midonet.agent.flows.tags import FlowTag, RouteRegion
from midonet.model.hosts import TunnelKind
from midonet.model.ids import BridgeId, PortId
from midonet.packets.addresses import IpAddress
from midonet.packets.flowkey import FlowKey
from midonet.packets.nat64 import FamilyChange


@dataclass(frozen=True, slots=True)
class DeepRewrite:
    """Changes behind the fields of a flow key. None leaves a field alone; checksums follow.

    icmp_id: identifier of an ICMP echo. quoted_*: of the packet quoted in an ICMP error; a quoted
        echo has its identifier in both ports.
    family: the packet becomes one of the other IP version first; all else is written then.
    """

    icmp_id: int | None = None
    quoted_src: int | None = None
    quoted_dst: int | None = None
    quoted_l4_src: int | None = None
    quoted_l4_dst: int | None = None
    family: FamilyChange | None = None


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One rewrite template. None leaves a field alone; checksums follow (RFC 1624).

    pop_vlan: remove the outermost tag first.
    push_vlan: then push a tag with this 16-bit TCI (PCP and VID).
    ttl_decrement: subtract from TTL or hop limit; the guard makes sure it stays above zero.
    ip_src, ip_dst: same version as the packet.
    deep: what no program can do. The agent does it itself, packet by packet, so that a rewrite with
        it stands in no installed program and comes to no datapath.
    """

    eth_dst: int | None = None
    eth_src: int | None = None
    pop_vlan: bool = False
    push_vlan: int | None = None
    ip_src: int | None = None
    ip_dst: int | None = None
    ip_tos: int | None = None
    l4_src: int | None = None
    l4_dst: int | None = None
    ttl_decrement: int = 0
    deep: DeepRewrite | None = None


NO_REWRITE = Rewrite()


@dataclass(frozen=True, slots=True)
class LocalOutput:
    """Deliver to a port bound at this host.

    is_uplink: the port leads out of the virtual network, so that underlay addresses may not be
        reached by it (`underlay_guard`).
    """

    port_id: PortId
    rewrite: Rewrite = NO_REWRITE
    is_uplink: bool = False


@dataclass(frozen=True, slots=True)
class TunnelOutput:
    """Encapsulate and send to another host.

    kind: VXLAN or GRE (never VTEP here). local, remote: underlay addresses of one version.
    tunnel_key: 24 bits; names the egress port, or a flood group, at the receiving host.
    is_uplink: of the egress port, as in `LocalOutput`.
    """

    kind: TunnelKind
    local: IpAddress
    remote: IpAddress
    tunnel_key: int
    rewrite: Rewrite = NO_REWRITE
    is_uplink: bool = False


Output = LocalOutput | TunnelOutput


@dataclass(frozen=True, slots=True)
class Guards:
    """Conditions that are not key fields; when one fails the packet goes up and nothing changes.

    ttl_above: the TTL or hop limit must be greater than this (ignored for non-IP frames).
    max_length: largest IP packet (header included; of one segment, for an offloaded
        super-packet) that may pass, in bytes; None is no limit.
    tcp_flags_clear: TCP segments with one of these flag bits may not pass (ignored for others).
    """

    ttl_above: int = 0
    max_length: int | None = None
    tcp_flags_clear: int = 0


NO_GUARDS = Guards()


class SlowPathReason(StrEnum):
    """Why a packet's outcome must not be installed as a flow program."""

    NEIGHBOUR_DISCOVERY = "neighbour_discovery"  # the outcome depends on the ND target
    ARP_CONTENT = "arp_content"  # the outcome depends on ARP hardware addresses
    GENERATED = "generated"  # the agent made the packet itself
    FRAGMENT_NEEDED = "fragment_needed"  # the packet must be fragmented in software
    GUARD = "guard"  # the outcome depends on a TTL or a length that a guard cannot express
    ANSWERED = "answered"  # the sender is told each time
    DHCP = "dhcp"  # the outcome depends on a DHCP message
    ICMP_IDENTIFIER = "icmp_identifier"  # the outcome depends on, or changes, an echo's identifier
    FAMILY = "family"  # the packet becomes one of the other IP version
    ICMP_QUOTE = "icmp_quote"  # the outcome depends on, or changes, the packet an error quotes
    CONNECTION = "connection"  # a connection begins or ends, or the key does not tell which it is


@dataclass(frozen=True, slots=True)
class LearnedMac:
    """A MAC that traffic of a program keeps alive in a bridge's table. vlan 0 is untagged."""

    bridge_id: BridgeId
    vlan: int
    mac: int
    port_id: PortId


@dataclass(frozen=True, slots=True)
class FlowProgram:
    """(key and mask, guards, actions, tags, lifetime) for one class of packets at one port.

    ingress: local port where the class enters; always matched exactly.
    key: the whole key of the packet that was simulated; `mask` says which bits matter.
    outputs: in order; empty exactly when `drop_reason` is set.
    tags, regions: facts this program depends on.
    learned: MAC entries to keep alive while the program is in use.
    lifetime_s: hard lifetime from installation, in seconds.
    slow_path: set when the program is for this one packet and must not be installed.
    connection: key of the connection that all packets of the class belong to; None: of none.
    """

    ingress: PortId
    key: FlowKey
    mask: FlowMask
    outputs: tuple[Output, ...] = ()
    drop_reason: DropReason | None = None
    guards: Guards = NO_GUARDS
    tags: frozenset[FlowTag] = frozenset()
    regions: frozenset[RouteRegion] = frozenset()
    learned: tuple[LearnedMac, ...] = ()
    lifetime_s: float = 60.0
    slow_path: SlowPathReason | None = None
    connection: ConnectionKey | None = None


@dataclass(frozen=True, slots=True)
class InstalledProgram:
    """A program with its place in the datapath.

    program_id: slot number >= 1, unique among installed programs, index of its statistics.
    mask_id: slot in the ingress port's mask list, 0 is the exact mask; `mask` is that slot's
        mask, a superset of `program.mask`. key: `program.key & mask`.
    facts: what is known of the facts it depends on when it was read back from a datapath, where
        tags and regions are lost (`fact_filter.py`).
    """

    program_id: int
    mask_id: int
    mask: FlowMask
    key: FlowKey
    program: FlowProgram
    facts: int = field(default=0, compare=False)
