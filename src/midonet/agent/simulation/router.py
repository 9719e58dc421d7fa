"""Routers: from the ingress port to the next hop. IPv4 and IPv6 alike.

Order: VLAN and EtherType, administrative state, mirrors, group frames and address resolution,
the destination MAC, load balancer, inbound filter, route, TTL, load balancer, outbound filter,
next hop MAC, mirrors.
"""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import SlowPathReason
from midonet.agent.flows.tags import RouteRegion
from midonet.agent.simulation import answers
from midonet.agent.simulation.crossing import cross
from midonet.agent.simulation.ecmp import choose_route
from midonet.agent.simulation.filtering import apply_filter
from midonet.agent.simulation.header import (
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    ETH_TYPE_ARP,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    IP_DST,
    IP_FRAG,
    IP_PROTO,
    IP_PROTO_ICMPV6,
    IP_SRC,
    L4_DST,
    L4_SRC,
)
from midonet.agent.simulation.link_local import is_link_local, link_local_address
from midonet.agent.simulation.load_balancer import (
    Passage,
    balance_inbound,
    balance_outbound,
    hide_client,
)
from midonet.agent.simulation.mirroring import mirror
from midonet.agent.simulation.next_hop import resolve_mac
from midonet.agent.simulation.port_networks import is_subnet_broadcast
from midonet.agent.simulation.result import GeneratedPacket
from midonet.agent.simulation.router_discovery import process_arp, process_discovery
from midonet.agent.simulation.trace import Answered, ChoseRoute, Hook, MirrorPoint
from midonet.agent.simulation.walk import (
    Dropped,
    Ended,
    HookOutcome,
    Outcome,
    RouterVisit,
    ToEgress,
    Walk,
)
from midonet.agent.topology.view import PortView, RouterView, RouteView
from midonet.model.devices import NextHopKind
from midonet.model.ids import RouterId
from midonet.packets.address_kinds import AddressKind
from midonet.packets.addresses import MAC_BROADCAST, IpAddress, IpVersion, is_multicast_mac
from midonet.packets.icmp_echo import echo_reply, is_echo_request

_VERSIONS = {ETH_TYPE_IPV4: IpVersion.V4, ETH_TYPE_IPV6: IpVersion.V6}
_NEVER_ROUTED = frozenset((AddressKind.RESERVED, AddressKind.MULTICAST))
_DISCOVERY_TYPES = frozenset((133, 134, 135, 136, 137))


def process_router(walk: Walk, port: PortView, router_id: RouterId) -> Outcome:
    """Take a frame that entered by `port` through its router."""
    header = walk.header
    eth_type = header.read(ETH_TYPE)
    if header.vlan_id() or eth_type not in (ETH_TYPE_IPV4, ETH_TYPE_IPV6, ETH_TYPE_ARP):
        return Dropped(DropReason.UNSUPPORTED_ETHERTYPE)
    router = walk.router(router_id)
    if not isinstance(router, RouterView):
        return router
    if not router.admin_state_up:
        answers.answer_prohibited(walk)
        return Dropped(DropReason.DEVICE_DOWN, object_id=router.id)
    if router.inbound_mirror_ids:
        mirror_ids = router.inbound_mirror_ids
        awaited = mirror(walk, MirrorPoint.ROUTER_INBOUND, router.id, mirror_ids)
        if awaited is not None:
            return awaited
    local = _address_resolution(walk, router, port, eth_type)
    if local is not None:
        return local
    version = _VERSIONS[eth_type]
    passage = balance_inbound(walk, router, version)
    if not isinstance(passage, Passage):
        return passage
    is_balanced = passage is Passage.BALANCED
    if not is_balanced:
        instead = apply_filter(walk, Hook.ROUTER_INBOUND, router.id, router.inbound_filter_id)
        if instead is not None:
            return instead
    return _route(walk, router, port, version, is_balanced=is_balanced)


def originate(walk: Walk, port: PortView, router_id: RouterId) -> Outcome:
    """Send a packet of the router's own by its routes and outbound filter.

    port: where the question came from; the way back to a link-local address.
    """
    router = walk.router(router_id)
    if not isinstance(router, RouterView):
        return router
    walk.branch.traversed = (router_id,)
    version = walk.inputs.packet.ip_version
    if version is None:
        return Dropped(DropReason.UNSUPPORTED_ETHERTYPE)
    if version is IpVersion.V6 and is_link_local(walk.header.read(IP_DST)):
        return ToEgress(port)
    route = _lookup(walk, router, version)
    if isinstance(route, Dropped):
        return route
    if route.kind is not NextHopKind.NORMAL:
        return Dropped(DropReason.NO_ROUTE, object_id=route.id)
    return _send(walk, router, route, version)


def _address_resolution(
    walk: Walk, router: RouterView, port: PortView, eth_type: int
) -> Outcome | None:
    """Return what becomes of a frame that is not to be routed, or None if it is."""
    header = walk.header
    destination = header.read(ETH_DST)
    is_group = is_multicast_mac(destination)
    if destination != port.mac and not is_group:
        return Dropped(DropReason.NOT_FOR_ROUTER)
    if eth_type == ETH_TYPE_ARP:
        if is_group and destination != MAC_BROADCAST:
            return Dropped(DropReason.NOT_FOR_ROUTER)
        return process_arp(walk, router, port)
    if (
        eth_type == ETH_TYPE_IPV6
        and header.read(IP_PROTO) == IP_PROTO_ICMPV6
        and header.read(L4_SRC) in _DISCOVERY_TYPES
    ):
        header.read(IP_FRAG)
        return process_discovery(walk, router, port)
    return Dropped(DropReason.NOT_FOR_ROUTER) if is_group else None


def _route(
    walk: Walk, router: RouterView, port: PortView, version: IpVersion, *, is_balanced: bool
) -> Outcome:
    outside = _scope(walk, router, port, version)
    if outside is not None:
        return outside
    refused = cross(walk, router)
    if refused is not None:
        return refused
    version = _VERSIONS[walk.header.values[ETH_TYPE]]
    route = _lookup(walk, router, version)
    if isinstance(route, Dropped):
        return route
    if route.kind is NextHopKind.LOCAL:
        return _deliver_locally(walk, router, port)
    if route.kind is NextHopKind.BLACKHOLE:
        return Dropped(DropReason.BLACKHOLE_ROUTE, object_id=route.id)
    if route.kind is NextHopKind.REJECT:
        answers.answer_prohibited(walk)
        return Dropped(DropReason.REJECTED, object_id=route.id)
    return (
        _leaves_link(walk, version)
        or _decrement_ttl(walk)
        or _send(walk, router, route, version, is_balanced=is_balanced)
    )


def _scope(walk: Walk, router: RouterView, port: PortView, version: IpVersion) -> Outcome | None:
    """Return what becomes of a packet whose addresses a router has nothing to do with, or None."""
    header = walk.header
    source = header.address_kind(IP_SRC, version)
    if source in _NEVER_ROUTED:
        return Dropped(DropReason.SOURCE_ADDRESS_INVALID)
    destination = header.address_kind(IP_DST, version)
    if destination is AddressKind.MULTICAST:
        return Dropped(DropReason.NOT_FOR_ROUTER)
    if destination is AddressKind.RESERVED:
        return Dropped(DropReason.DESTINATION_ADDRESS_INVALID)
    if version is IpVersion.V4:
        return None
    if destination is AddressKind.LINK_LOCAL:
        if link_local_address(port.mac) == header.read(IP_DST):
            return _deliver_locally(walk, router, port)
        return Dropped(DropReason.NOT_FOR_ROUTER)
    # Nothing from a link-local address may be forwarded either (RFC 4291 section 2.5.6).
    if source is AddressKind.LINK_LOCAL and not _is_own(walk, port):
        return Dropped(DropReason.SOURCE_ADDRESS_INVALID)
    return None


def _leaves_link(walk: Walk, version: IpVersion) -> Dropped | None:
    """Refuse to forward what is of one link only (RFC 3927 section 7); IPv6 has been looked at.

    An ICMP error may come from such an address: the network between two routers is often a
    link-local one, and path MTU discovery through it must go on.
    """
    if version is IpVersion.V6:
        return None
    header = walk.header
    if header.address_kind(IP_DST, version) is AddressKind.LINK_LOCAL:
        return Dropped(DropReason.DESTINATION_ADDRESS_INVALID)
    if header.address_kind(IP_SRC, version) is AddressKind.LINK_LOCAL and not answers.is_error(
        header
    ):
        return Dropped(DropReason.SOURCE_ADDRESS_INVALID)
    return None


def _is_own(walk: Walk, port: PortView) -> bool:
    address = walk.header.read(IP_DST)
    return any(
        prefix.value == address and prefix.version is IpVersion.V6 for prefix in port.addresses
    )


def _lookup(walk: Walk, router: RouterView, version: IpVersion) -> RouteView | Dropped:
    header = walk.header
    bits = version.bits
    destination = header.values[IP_DST]
    match = router.fib.lookup(version, header.values[IP_SRC], destination)
    proof = match.destination_proof
    header.record_prefix(IP_DST, proof, bits)
    header.record_prefix(IP_SRC, match.source_proof, bits)
    network = destination >> (bits - proof) << (bits - proof)
    walk.findings.regions.append(RouteRegion(router.id, version, network, proof))
    if not match.routes:
        answers.answer_no_route(walk)
        return Dropped(DropReason.NO_ROUTE, object_id=router.id)
    route = match.routes[0] if len(match.routes) == 1 else choose_route(walk, match.routes)
    if walk.findings.steps is not None:
        walk.step(_chosen(router, route, len(match.routes)))
    return route


def _chosen(router: RouterView, route: RouteView, candidates: int) -> ChoseRoute:
    return ChoseRoute(
        router.id,
        route.id,
        route.destination,
        route.kind,
        route.gateway,
        route.next_hop_port_id,
        candidates,
    )


def _deliver_locally(walk: Walk, router: RouterView, port: PortView) -> Outcome:
    """Answer an echo request to the router itself; nothing else is served."""
    header = walk.header
    for field in (IP_PROTO, IP_FRAG, L4_SRC, L4_DST):
        header.read(field)
    request = answers.packet_as_received(walk)
    if not is_echo_request(request):
        answers.answer_not_served(walk)
        return Dropped(DropReason.LOCAL_NOT_HANDLED)
    if walk.findings.steps is not None:
        walk.step(Answered(port.id, "echo_reply"))
    walk.findings.generated.append(GeneratedPacket(port.id, echo_reply(request), router.id))
    return Ended.TAKEN


def _decrement_ttl(walk: Walk) -> Dropped | None:
    header = walk.header
    if walk.inputs.packet.ttl - header.ttl_decrement <= 1:
        walk.findings.slow_path = SlowPathReason.GUARD
        answers.answer_time_exceeded(walk)
        return Dropped(DropReason.TTL_EXCEEDED)
    header.ttl_decrement += 1
    walk.findings.ttl_above = max(walk.findings.ttl_above, header.ttl_decrement)
    return None


def _send(
    walk: Walk,
    router: RouterView,
    route: RouteView,
    version: IpVersion,
    *,
    is_balanced: bool = False,
) -> Outcome:
    """Take a routed packet to its egress port, with the MACs of the next hop.

    is_balanced: it goes to a VIP, and a member was found for it here.
    """
    if route.next_hop_port_id is None:
        return Dropped(DropReason.MISSING_DEVICE, object_id=route.id)
    port = walk.port(route.next_hop_port_id)
    if not isinstance(port, PortView):
        return port
    own = [prefix.value for prefix in port.addresses if prefix.version is version]
    if not own:
        return Dropped(DropReason.NO_PORT_ADDRESS, object_id=port.id)
    bits = version.bits
    header = walk.header
    if any(header.within(IP_DST, address, bits, bits) for address in own):
        return Dropped(DropReason.LOCAL_NOT_HANDLED)
    if route.gateway is None and is_subnet_broadcast(port, header.read(IP_DST)):
        # A directed broadcast is not forwarded (RFC 2644), and nobody has that address.
        return Dropped(DropReason.DESTINATION_ADDRESS_INVALID)
    branch = walk.branch
    branch.egress_port = port
    refused = _filter_outbound(walk, router, port, version, is_balanced=is_balanced)
    if refused is not None:
        return refused
    next_hop = route.gateway or IpAddress(version, header.read(IP_DST))
    mac = resolve_mac(walk, router, port, next_hop)
    if not isinstance(mac, int):
        return mac
    header.write(ETH_SRC, port.mac)
    header.write(ETH_DST, mac)
    visit = branch.router
    if visit is not None:
        branch.router = RouterVisit(visit.port, visit.header, port, header.copy())
    if router.outbound_mirror_ids:
        mirror_ids = router.outbound_mirror_ids
        awaited = mirror(walk, MirrorPoint.ROUTER_OUTBOUND, router.id, mirror_ids)
        if awaited is not None:
            return awaited
    return ToEgress(port)


def _filter_outbound(
    walk: Walk, router: RouterView, port: PortView, version: IpVersion, *, is_balanced: bool
) -> HookOutcome:
    """Let the load balancer, or else the outbound filter, have a packet that leaves by `port`."""
    if not is_balanced:
        passage = balance_outbound(walk, router, version)
        if not isinstance(passage, Passage):
            return passage
        if passage is Passage.BALANCED:
            return None
    instead = apply_filter(walk, Hook.ROUTER_OUTBOUND, router.id, router.outbound_filter_id)
    if instead is None and is_balanced:
        return hide_client(walk, router, port, version)
    return instead
