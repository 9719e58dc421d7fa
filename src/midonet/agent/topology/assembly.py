"""From stored objects to the pieces of a view. Pure functions of their arguments.

Text that does not parse raises DecodeError; the caller treats the object as missing, so that
what cannot be understood drops rather than passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from midonet.agent.flow_state.pool import EndpointRange, NatPool
from midonet.agent.topology.allowed_sources import AllowedSources
from midonet.agent.topology.view import (
    AdvertisingView,
    ChainView,
    Location,
    MirrorView,
    Nat64View,
    PortView,
    QosPolicyView,
    RouterAttachment,
    RouteView,
    RuleView,
    TunnelRoute,
)
from midonet.errors import DecodeError
from midonet.model.chains import NAT, FlowAction, NatTarget, Rule, RuleAction, evaluation_order
from midonet.model.devices import NAT64_FIRST_PORT, Port, Route, Router, RouterAdvertising
from midonet.model.dhcp import MAX_NAME_SERVERS
from midonet.model.groups import PortGroup
from midonet.model.hosts import PortLocation, TunnelKind, TunnelZone, TunnelZoneHost
from midonet.model.ids import ChainId
from midonet.model.mirrors import Mirror
from midonet.model.qos import QosDscpRule, QosPolicy
from midonet.packets.addresses import IpVersion, parse_ip, parse_mac, parse_prefix
from midonet.packets.domain_names import parse_search_list
from midonet.packets.nat64 import PREFIX_LENGTH

_OVERHEAD_V4 = {TunnelKind.VXLAN: 50, TunnelKind.GRE: 42}
"""Outer headers and inner Ethernet header in bytes: IPv4 20, UDP 8 and VXLAN 8 (RFC 7348
section 5) or GRE with key 8 (RFC 2890), Ethernet 14."""

_EXTRA_OVERHEAD_V6 = 20
"""Bytes by which the IPv6 header is longer than the IPv4 header without options."""

_LONGEST_LIFETIME_S, _LONGEST_INTERVAL_S = 9000, 1800
"""Of router advertisements (RFC 4861 section 6.2.1)."""

_DENYING = frozenset({RuleAction.DROP, RuleAction.REJECT})


def port_view(port: Port, groups: Sequence[PortGroup] = ()) -> PortView:
    """Return a port as the view holds it. groups: those of its groups that exist.

    Raises DecodeError.
    """
    stateful = [group.id for group in groups if group.stateful]
    return PortView(
        id=port.id,
        bridge_id=port.bridge_id,
        router_id=port.router_id,
        admin_state_up=port.admin_state_up,
        inbound_filter_id=port.inbound_filter_id,
        outbound_filter_id=port.outbound_filter_id,
        host_id=port.host_id,
        peer_port_id=port.peer_port_id,
        vlan_id=port.vlan_id,
        mac=parse_mac(port.mac) if port.mac else 0,
        addresses=tuple(parse_prefix(text) for text in port.addresses),
        port_group_ids=tuple(sorted(group.id for group in groups)),
        stateful_group_id=min(stateful, default=None),
        allowed_sources=_allowed_sources(port),
        inbound_mirror_ids=port.inbound_mirror_ids,
        post_in_filter_mirror_ids=port.post_in_filter_mirror_ids,
        pre_out_filter_mirror_ids=port.pre_out_filter_mirror_ids,
        outbound_mirror_ids=port.outbound_mirror_ids,
        qos_policy_id=port.qos_policy_id,
        insertion_inbound_filter_id=port.insertion_inbound_filter_id,
        insertion_outbound_filter_id=port.insertion_outbound_filter_id,
        is_service=port.is_service,
        advertising=advertising_view(port.advertising),
    )


def advertising_view(stored: RouterAdvertising | None) -> AdvertisingView | None:
    """Return what a router port advertises, None for nothing. Raises DecodeError."""
    if stored is None or not stored.is_enabled:
        return None
    if not (0 <= stored.lifetime_s <= _LONGEST_LIFETIME_S and stored.interval_s > 0):
        raise DecodeError("a router lifetime or interval that cannot be advertised")
    return AdvertisingView(
        stored.is_managed,
        stored.has_other,
        stored.is_autonomous,
        stored.lifetime_s,
        min(stored.interval_s, _LONGEST_INTERVAL_S),
        name_servers(stored.dns_addresses),
        parse_search_list(stored.domains),
    )


def name_servers(texts: Sequence[str]) -> tuple[int, ...]:
    """Return IPv6 addresses of name servers. Raises DecodeError for others, or too many."""
    addresses = [parse_ip(text) for text in texts]
    if len(addresses) > MAX_NAME_SERVERS:
        raise DecodeError("more name servers than fit in a message")
    if any(one.version is not IpVersion.V6 for one in addresses):
        raise DecodeError("a name server of another IP version")
    return tuple(one.value for one in addresses)


def mirror_view(mirror: Mirror) -> MirrorView:
    """Return a mirror as the view holds it."""
    return MirrorView(mirror.id, mirror.to_port_id, mirror.conditions)


def qos_policy_view(policy: QosPolicy, rules: Iterable[QosDscpRule]) -> QosPolicyView:
    """Return a policy with its rule; of several, the one with the lowest id counts."""
    first = min(rules, key=lambda rule: rule.id.int, default=None)
    return QosPolicyView(policy.id, None if first is None else first.dscp_mark)


def _allowed_sources(port: Port) -> AllowedSources | None:
    if not port.port_security_enabled or port.bridge_id is None:
        return None
    return AllowedSources(
        (parse_mac(one.mac), None if one.address is None else parse_prefix(one.address))
        for one in port.allowed_address_pairs
    )


def location_view(location: PortLocation) -> Location:
    """Return the place of a bound port."""
    return Location(location.host_id, location.tunnel_key, location.active)


def router_attachment(port: PortView, peer: Port) -> RouterAttachment | None:
    """Return what `peer` is to the bridge of `port`; None when it is no router's port.

    Raises DecodeError.
    """
    if peer.router_id is None:
        return None
    view = port_view(peer)
    return RouterAttachment(
        bridge_port_id=port.id,
        router_port_id=peer.id,
        router_id=peer.router_id,
        mac=view.mac,
        addresses=tuple(prefix.address for prefix in view.addresses),
        vlan_id=port.vlan_id,
        is_advertising=view.advertising is not None,
    )


def chain_view(
    chain_id: ChainId, rules: Iterable[Rule], before: ChainView | None = None
) -> ChainView:
    """Return a chain of all its rules, in whatever order they come.

    before: the view of an earlier version; the views of rules that are as they were are shared
        with it.
    """
    # By the identity of the ids, not by their values: hashing 10,000 UUIDs takes milliseconds.
    known = {} if before is None else {id(view.id): view for view in before.rules}
    views = []
    for rule in sorted(rules, key=evaluation_order):
        view = known.get(id(rule.id))
        if view is None or not _is_of(view, rule):
            view = rule_view(rule)
        views.append(view)
    return ChainView(chain_id, tuple(views))


def rule_view(rule: Rule) -> RuleView:
    """Return a rule as the view holds it. Raises DecodeError."""
    if rule.action in NAT and rule.flow_action is FlowAction.REDIRECT:
        raise DecodeError(f"a rule of type {rule.action} does not redirect")
    return RuleView(
        rule.id,
        rule.action,
        rule.condition,
        rule.jump_chain_id,
        nat_pool(rule.nat_targets) if rule.nat_targets else None,
        rule.flow_action,
        transform=rule.transform,
        target_port_id=rule.target_port_id,
    )


def nat_pool(targets: Iterable[NatTarget]) -> NatPool:
    """Return the targets of a NAT rule, of one IP version. Raises DecodeError."""
    ranges = []
    for target in targets:
        first, last = parse_ip(target.address_from), parse_ip(target.address_to)
        if first.version is not last.version or first.value > last.value:
            raise DecodeError(f"no range of addresses: {first} to {last}")
        ranges.append(
            EndpointRange(first.version, first.value, last.value, target.port_from, target.port_to)
        )
    if len({one.version for one in ranges}) != 1:
        raise DecodeError("NAT targets of several IP versions")
    return NatPool(tuple(ranges))


def _is_of(view: RuleView, rule: Rule) -> bool:
    return (
        view.id is rule.id
        and view.condition is rule.condition
        and view.action is rule.action
        and view.jump_chain_id == rule.jump_chain_id
        and view.flow_action is rule.flow_action
        and view.target_port_id == rule.target_port_id
        and view.transform == rule.transform
        and (view.pool is None) is (not rule.nat_targets)
        and (view.pool is None or view.pool == nat_pool(rule.nat_targets))
    )


def nat64_view(router: Router) -> Nat64View | None:
    """Return a router's way between IPv6 and IPv4, None when it has none. Raises DecodeError."""
    if router.nat64_prefix is None:
        return None
    prefix = parse_prefix(router.nat64_prefix)
    first = parse_ip(router.nat64_address_from or "")
    last = parse_ip(router.nat64_address_to or router.nat64_address_from or "")
    if prefix.version is not IpVersion.V6 or prefix.length != PREFIX_LENGTH:
        raise DecodeError(f"no prefix for IPv4 addresses: {prefix}")
    targets = NatTarget(str(first), str(last), NAT64_FIRST_PORT, 0xFFFF)
    if first.version is not IpVersion.V4:
        raise DecodeError(f"no IPv4 address: {first}")
    return Nat64View(prefix.network, nat_pool((targets,)))


def route_view(route: Route) -> RouteView:
    """Return a route as a forwarding table holds it. Raises DecodeError.

    Gateways 0.0.0.0, 255.255.255.255 and :: mean that the destination is directly connected.
    """
    gateway = parse_ip(route.gateway) if route.gateway else None
    if gateway is not None and (
        gateway.value == 0 or (gateway.version is IpVersion.V4 and gateway.value == 0xFFFF_FFFF)
    ):
        gateway = None
    return RouteView(
        id=route.id,
        kind=route.kind,
        source=parse_prefix(route.source),
        destination=parse_prefix(route.destination),
        next_hop_port_id=route.next_hop_port_id,
        gateway=gateway,
        weight=route.weight,
    )


def may_carry(port: PortView, location: Location | None, *, is_host_alive: bool) -> bool:
    """Tell whether routes through a router's port are usable: it is up, and linked or bound.

    location, is_host_alive: of the port when it is bound; it must be active on a live host.
    """
    if not port.admin_state_up:
        return False
    if port.peer_port_id is not None:
        return True
    return port.host_id is not None and location is not None and location.active and is_host_alive


def tunnel_route(
    memberships: Iterable[tuple[TunnelZone, TunnelZoneHost, TunnelZoneHost]],
    underlay_mtu_bytes: int,
    peer_mtu_bytes: int = 0,
) -> TunnelRoute | None:
    """Return how this host reaches another, or None when no zone joins them.

    memberships: (zone, ours, theirs) for each zone that both are in. The lowest zone id wins,
    so that both ends choose the same one; VTEP zones and pairs of unlike IP versions carry no
    tunnel. peer_mtu_bytes: largest inner packet that the other host reported, 0 for unknown.
    Raises DecodeError.
    """
    for zone, ours, theirs in sorted(memberships, key=lambda triple: triple[0].id.int):
        overhead = _OVERHEAD_V4.get(zone.kind)
        if overhead is None:
            continue
        local = parse_ip(ours.address)
        remote = parse_ip(theirs.address)
        if local.version is not remote.version:
            continue
        if local.version is IpVersion.V6:
            overhead += _EXTRA_OVERHEAD_V6
        length = max(0, underlay_mtu_bytes - overhead)
        if peer_mtu_bytes:
            length = min(length, peer_mtu_bytes)
        return TunnelRoute(zone.kind, local, remote, length)
    return None


def overlay_mtu(
    memberships: Iterable[tuple[TunnelZone, TunnelZoneHost]],
    underlay_mtu_bytes: int,
    tunnels: Iterable[TunnelRoute | None] = (),
) -> int:
    """Return the largest IP packet that every tunnel of a host takes, 0 when it can have none.

    memberships: zones that the host is in; a tunnel to a host yet to come is thought of.
    """
    lengths = [tunnel.max_inner_length for tunnel in tunnels if tunnel is not None]
    for zone, ours in memberships:
        overhead = _OVERHEAD_V4.get(zone.kind)
        if overhead is not None:
            is_ipv6 = ":" in ours.address
            overhead += _EXTRA_OVERHEAD_V6 if is_ipv6 else 0
            lengths.append(max(0, underlay_mtu_bytes - overhead))
    return min(lengths, default=0)


def may_deny(chain_id: ChainId | None, chains: Mapping[ChainId, ChainView]) -> bool:
    """Tell whether a packet that enters a chain may be refused there or in what it jumps to.

    A chain that is not in `chains` refuses everything.
    """
    if chain_id is None:
        return False
    seen = {chain_id}
    pending = [chain_id]
    while pending:
        chain = chains.get(pending.pop())
        if chain is None:
            return True
        for rule in chain.rules:
            if rule.action in _DENYING:
                return True
            if rule.jump_chain_id is not None and rule.jump_chain_id not in seen:
                seen.add(rule.jump_chain_id)
                pending.append(rule.jump_chain_id)
    return False


def adds_denial(
    before: Sequence[RuleView], after: Sequence[RuleView], chains: Mapping[ChainId, ChainView]
) -> bool:
    """Tell whether `after` has a rule that may refuse packets and is not in `before`."""
    shared = {id(rule) for rule in before}
    fresh = [rule for rule in after if id(rule) not in shared]
    known = {rule.id: rule for rule in before} if fresh else {}
    return any(
        rule.action in _DENYING
        or (rule.jump_chain_id is not None and may_deny(rule.jump_chain_id, chains))
        for rule in fresh
        if known.get(rule.id) != rule
    )
