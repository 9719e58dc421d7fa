"""Pieces of a view from stored objects."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest

from midonet.agent.topology.assembly import (
    adds_denial,
    chain_view,
    may_carry,
    may_deny,
    overlay_mtu,
    port_view,
    route_view,
    router_attachment,
    tunnel_route,
)
from midonet.agent.topology.view import ChainView, Location, PortView, RuleView, TunnelRoute
from midonet.errors import DecodeError
from midonet.model.chains import Condition, Rule, RuleAction
from midonet.model.devices import Port, Route
from midonet.model.hosts import TunnelKind, TunnelZone, TunnelZoneHost
from midonet.model.ids import (
    BridgeId,
    ChainId,
    HostId,
    PortId,
    RouteId,
    RouterId,
    RuleId,
    TunnelZoneId,
)
from midonet.packets.addresses import parse_ip, parse_prefix

PORT, PEER = PortId(UUID(int=1)), PortId(UUID(int=2))
BRIDGE, ROUTER = BridgeId(UUID(int=3)), RouterId(UUID(int=4))
OURS, THEIRS = HostId(UUID(int=5)), HostId(UUID(int=6))


def membership(
    zone_number: int, kind: TunnelKind, ours: str, theirs: str
) -> tuple[TunnelZone, TunnelZoneHost, TunnelZoneHost]:
    zone = TunnelZone(id=TunnelZoneId(UUID(int=zone_number)), name="zone", kind=kind)
    one, two = (
        TunnelZoneHost(id=UUID(int=0), tunnel_zone_id=zone.id, host_id=host_id, address=address)
        for host_id, address in ((OURS, ours), (THEIRS, theirs))
    )
    return zone, one, two


def test_router_port_keeps_the_host_bits_of_its_addresses() -> None:
    view = port_view(
        Port(id=PORT, router_id=ROUTER, mac="02:00:00:00:00:01", addresses=("10.0.0.1/24",))
    )
    assert view.mac == 0x02_00_00_00_00_01
    assert view.addresses == (parse_prefix("10.0.0.1/24"),)


def test_port_that_does_not_parse_is_a_decode_error() -> None:
    with pytest.raises(DecodeError):
        port_view(Port(id=PORT, router_id=ROUTER, mac="rubbish"))


def test_only_a_router_port_is_an_attachment() -> None:
    port = PortView(PORT, bridge_id=BRIDGE, peer_port_id=PEER)
    assert router_attachment(port, Port(id=PEER, bridge_id=BRIDGE)) is None
    attachment = router_attachment(
        port, Port(id=PEER, router_id=ROUTER, mac="02:00:00:00:00:01", addresses=("10.0.0.1/8",))
    )
    assert attachment is not None
    assert attachment.bridge_port_id == PORT
    assert attachment.addresses == (parse_ip("10.0.0.1"),)


@pytest.mark.parametrize("gateway", [None, "0.0.0.0", "255.255.255.255", "::"])
def test_route_without_a_real_gateway_is_directly_connected(gateway: str | None) -> None:
    route = Route(id=RouteId(UUID(int=9)), router_id=ROUTER, gateway=gateway)
    assert route_view(route).gateway is None


def test_port_carries_routes_while_up_and_linked_or_bound_and_active() -> None:
    linked = PortView(PORT, router_id=ROUTER, peer_port_id=PEER)
    bound = PortView(PORT, router_id=ROUTER, host_id=OURS)
    active, inactive = Location(OURS, 1, True), Location(OURS, 1, False)
    assert may_carry(linked, None, is_host_alive=False)
    assert may_carry(bound, active, is_host_alive=True)
    assert not may_carry(bound, inactive, is_host_alive=True)
    assert not may_carry(bound, active, is_host_alive=False)
    assert not may_carry(bound, None, is_host_alive=True)
    assert not may_carry(PortView(PORT, router_id=ROUTER), active, is_host_alive=True)
    down = PortView(PORT, router_id=ROUTER, peer_port_id=PEER, admin_state_up=False)
    assert not may_carry(down, None, is_host_alive=True)


@pytest.mark.parametrize(
    ("kind", "ours", "theirs", "length"),
    [
        (TunnelKind.VXLAN, "192.0.2.1", "192.0.2.2", 1450),
        (TunnelKind.GRE, "192.0.2.1", "192.0.2.2", 1458),
        (TunnelKind.VXLAN, "2001:db8::1", "2001:db8::2", 1430),
        (TunnelKind.GRE, "2001:db8::1", "2001:db8::2", 1438),
    ],
)
def test_tunnel_leaves_room_for_its_headers(
    kind: TunnelKind, ours: str, theirs: str, length: int
) -> None:
    route = tunnel_route([membership(1, kind, ours, theirs)], 1500)
    assert route is not None
    assert (route.kind, route.max_inner_length) == (kind, length)
    assert (route.local, route.remote) == (parse_ip(ours), parse_ip(theirs))


def test_tunnel_uses_the_lowest_zone_that_can_carry_it() -> None:
    shared = [
        membership(4, TunnelKind.GRE, "192.0.2.1", "192.0.2.2"),
        membership(3, TunnelKind.VXLAN, "198.51.100.1", "198.51.100.2"),
        membership(2, TunnelKind.VXLAN, "192.0.2.1", "2001:db8::2"),
        membership(1, TunnelKind.VTEP, "192.0.2.1", "192.0.2.2"),
    ]
    route = tunnel_route(shared, 1500)
    assert route is not None
    assert route.remote == parse_ip("198.51.100.2")


def test_tunnel_is_no_longer_than_the_other_host_reports() -> None:
    shared = [membership(1, TunnelKind.VXLAN, "192.0.2.1", "192.0.2.2")]
    route = tunnel_route(shared, 1500, 1400)
    assert route is not None
    assert route.max_inner_length == 1400


def test_no_tunnel_without_a_shared_zone() -> None:
    assert tunnel_route([], 1500) is None


def rule(number: int, action: RuleAction, jump: ChainId | None = None) -> RuleView:
    return RuleView(RuleId(UUID(int=number)), action, Condition(), jump)


def test_chain_has_its_rules_by_rank_and_then_by_id() -> None:
    chain_id = ChainId(UUID(int=10))
    ranks = {21: "a", 20: "b", 22: "b", 19: "80000000"}
    rules = [
        Rule(id=RuleId(UUID(int=one)), chain_id=chain_id, rank=rank, action=RuleAction.ACCEPT)
        for one, rank in ranks.items()
    ]
    view = chain_view(chain_id, rules)
    assert [one.id.int for one in view.rules] == [19, 21, 20, 22]
    changed = msgspec.structs.replace(rules[0], action=RuleAction.DROP)
    after = chain_view(chain_id, [changed, *rules[1:3]], view)
    assert [one.action for one in after.rules] == ["drop", "accept", "accept"]
    assert after.rules[1:] == view.rules[2:]


def test_denial_is_found_through_jumps_that_go_in_circles() -> None:
    one, two, three = (ChainId(UUID(int=number)) for number in (1, 2, 3))
    chains = {
        one: ChainView(one, (rule(1, RuleAction.JUMP, two),)),
        two: ChainView(two, (rule(2, RuleAction.JUMP, one), rule(3, RuleAction.ACCEPT))),
    }
    assert not may_deny(None, chains)
    assert not may_deny(one, chains)
    assert may_deny(three, chains)
    chains[two] = ChainView(two, (rule(2, RuleAction.REJECT),))
    assert may_deny(one, chains)


def test_only_a_new_or_changed_denying_rule_adds_denial() -> None:
    accept, drop = rule(1, RuleAction.ACCEPT), rule(2, RuleAction.DROP)
    assert not adds_denial((drop,), (accept, drop), {})
    assert not adds_denial((accept, drop), (drop,), {})
    assert adds_denial((accept,), (accept, drop), {})
    assert adds_denial((accept,), (rule(1, RuleAction.DROP),), {})
    assert adds_denial((), (rule(3, RuleAction.JUMP, ChainId(UUID(int=9))),), {})


@pytest.mark.parametrize(
    ("zones", "tunnels", "told"),
    [
        ((), (), 0),
        (((TunnelKind.VXLAN, "192.0.2.1"),), (), 1450),
        (((TunnelKind.GRE, "192.0.2.1"),), (), 1458),
        (((TunnelKind.VXLAN, "2001:db8::1"),), (), 1430),
        (((TunnelKind.GRE, "192.0.2.1"), (TunnelKind.VXLAN, "2001:db8::1")), (), 1430),
        (((TunnelKind.VTEP, "192.0.2.1"),), (), 0),
        (((TunnelKind.VXLAN, "192.0.2.1"),), (1350, 1440), 1350),
    ],
)
def test_overlay_mtu_is_the_least_of_all_tunnels(
    zones: tuple[tuple[TunnelKind, str], ...], tunnels: tuple[int, ...], told: int
) -> None:
    memberships = [membership(7, kind, address, address)[:2] for kind, address in zones]
    routes = [
        TunnelRoute(TunnelKind.VXLAN, parse_ip("192.0.2.1"), parse_ip("192.0.2.2"), length)
        for length in tunnels
    ]
    assert overlay_mtu(memberships, 1500, routes) == told
