"""The walk as a whole: entry, limits, guards, generated packets, trace."""

from __future__ import annotations

import pytest

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import SlowPathReason
from midonet.agent.flows.tags import device_tag, location_tag, tunnel_tag
from midonet.agent.simulation.result import Await, Drop, Forward, LoadDevices
from midonet.agent.simulation.simulate import simulate_generated
from midonet.agent.simulation.trace import (
    BeganFilter,
    EnteredOutput,
    Hook,
    MetRule,
    Rewrote,
    Waits,
    WasDropped,
)
from midonet.packets.addresses import parse_ip, parse_mac
from midonet.packets.frame import key_flow_hash, parse_frame
from tests.unit.agent.simulation.frames import M1, M2, M3, udp
from tests.worlds import NOW, World, rule

R1 = "02:00:00:00:01:01"


def test_ingress_port_that_does_not_exist_is_named() -> None:
    result = World().absent("p").simulate("p", udp())
    assert isinstance(result, Drop)
    assert result.reason is DropReason.UNKNOWN_INGRESS_PORT


def test_ingress_port_that_is_not_loaded_is_awaited() -> None:
    world = World()
    assert world.simulate("p", udp()) == Await(LoadDevices((world.port_id("p"),)))


def test_port_that_is_down_drops_in_both_directions() -> None:
    for ingress_up, egress_up in ((False, True), (True, False)):
        world = World().bridge("b").port("p1", on="b", host="h1", up=ingress_up)
        world.port("p2", on="b", host="h1", up=egress_up).mac_at("b", M2, "p2")
        result = world.simulate("p1", udp())
        assert isinstance(result, Drop)
        assert result.reason is DropReason.PORT_DOWN
        assert result.program.lifetime_s == 60


def test_unplugged_egress_port_is_named() -> None:
    world = World().bridge("b").port("p1", on="b", host="h1").port("p2", on="b")
    result = world.mac_at("b", M2, "p2").simulate("p1", udp())
    assert isinstance(result, Drop)
    assert result.reason is DropReason.PORT_UNPLUGGED


@pytest.mark.parametrize(("routers", "passes"), [(12, True), (13, False)])
def test_thirteenth_device_ends_the_walk(routers: int, passes: bool) -> None:
    world = World("h1")
    for index in range(1, routers + 1):
        world.router(f"r{index}")
    world.port("in", on="r1", host="h1", mac=R1, addresses=("10.0.1.1/24",))
    for index in range(1, routers):
        world.port(f"e{index}", on=f"r{index}", addresses=(f"10.1.{index}.1/30",))
        world.port(f"w{index}", on=f"r{index + 1}", addresses=(f"10.1.{index}.2/30",))
        world.link(f"e{index}", f"w{index}")
        world.route(f"r{index}", "10.9.0.0/16", via=f"e{index}", gateway=f"10.1.{index}.2")
    world.port("out", on=f"r{routers}", host="h1", addresses=("10.9.0.1/16",))
    world.neighbour(f"r{routers}", "10.9.0.5", M3)
    result = world.simulate("in", udp("10.0.1.5", "10.9.0.5", eth_dst=R1))
    if passes:
        assert isinstance(result, Forward)
    else:
        assert isinstance(result, Drop)
        assert result.reason is DropReason.LOOP_LIMIT
        assert result.program.lifetime_s == 5


def test_routing_loop_ends_with_the_limit() -> None:
    world = World("h1").router("r1").router("r2")
    world.port("in", on="r1", host="h1", mac=R1, addresses=("10.0.1.1/24",))
    world.port("e", on="r1", addresses=("10.1.0.1/30",)).port(
        "w", on="r2", addresses=("10.1.0.2/30",)
    )
    world.link("e", "w").route("r1", "0.0.0.0/0", via="e", gateway="10.1.0.2")
    world.route("r2", "0.0.0.0/0", via="w", gateway="10.1.0.1")
    result = world.simulate("in", udp("10.0.1.5", "8.8.8.8", eth_dst=R1))
    assert isinstance(result, Drop)
    assert result.reason is DropReason.LOOP_LIMIT


def chained_world() -> World:
    """bridge - router - bridge, with a filter on every hook, and the far port elsewhere."""
    world = World("h1")
    hooks = ("p1-in", "b1-in", "b1-out", "peer-out", "r-in", "r-out", "p2-out")
    for hook in hooks:
        world.chain(hook, rule("accept", ip_proto=17))
    world.bridge("b1", inbound="b1-in", outbound="b1-out").bridge("b2")
    world.router("r", inbound="r-in", outbound="r-out")
    world.port("p1", on="b1", host="h1", inbound="p1-in")
    world.port("p2", on="b2", host="h2", outbound="p2-out")
    world.port("rp1", on="r", mac=R1, addresses=("10.0.1.1/24",)).attach("rp1", "b1")
    world.port("rp2", on="r", addresses=("10.0.2.1/24",)).attach("rp2", "b2")
    return world.neighbour("r", "10.0.2.5", M3).mac_at("b2", M3, "p2")


def test_filters_run_in_order_and_the_trace_names_them() -> None:
    world = chained_world()
    result = world.simulate("p1", udp(eth_dst=R1), trace=True)
    assert isinstance(result, Forward)
    met = [step.event for step in result.steps if isinstance(step.event, MetRule)]
    matched = [event.chain_id for event in met if event.is_matching]
    hooks = ("p1-in", "b1-in", "b1-out", "r-in", "r-out", "p2-out")
    assert matched == [world.id(hook) for hook in hooks]
    asked = [step.event for step in result.steps if isinstance(step.event, BeganFilter)]
    assert [event.hook for event in asked] == [
        Hook.PORT_INBOUND,
        Hook.BRIDGE_INBOUND,
        Hook.BRIDGE_OUTBOUND,
        Hook.ROUTER_INBOUND,
        Hook.ROUTER_OUTBOUND,
        Hook.PORT_OUTBOUND,
    ]
    assert isinstance(result.steps[-1].event, EnteredOutput)


def test_the_trace_shows_what_each_device_changed() -> None:
    world = chained_world()
    result = world.simulate("p1", udp(eth_dst=R1), trace=True)
    assert isinstance(result, Forward)
    changed = {
        event.field: (event.device_id, event.before, event.after)
        for step in result.steps
        if isinstance(event := step.event, Rewrote)
    }
    router = world.id("r")
    assert changed.keys() == {"eth_src", "eth_dst", "ttl"}
    assert changed["eth_dst"] == (router, parse_mac(R1), parse_mac(M3))
    assert changed["ttl"] == (router, 0, 1)


def test_a_trace_that_waits_says_for_what() -> None:
    world = chained_world()
    result = world.simulate("p1", udp("10.0.1.5", "10.0.2.9", eth_dst=R1), trace=True)
    assert isinstance(result, Await)
    assert result.steps[-1].event == Waits(address=parse_ip("10.0.2.9"))


def test_no_steps_are_collected_unless_asked() -> None:
    result = chained_world().simulate("p1", udp(eth_dst=R1))
    assert isinstance(result, Forward)
    assert result.steps == ()


def test_trace_ends_with_the_drop() -> None:
    world = chained_world().chain("r-in", rule("drop"))
    result = world.simulate("p1", udp(eth_dst=R1), trace=True)
    assert isinstance(result, Drop)
    (rule_id,) = [
        step.event.rule_id for step in result.steps[-2:] if isinstance(step.event, MetRule)
    ]
    rp1 = world.port_id("rp1")
    assert result.steps[-1].event == WasDropped(DropReason.FILTERED, rp1, rule_id)


def test_everything_consulted_is_tagged() -> None:
    world = chained_world()
    result = world.simulate("p1", udp(eth_dst=R1))
    assert isinstance(result, Forward)
    devices = ("p1", "b1", "rp1-peer", "rp1", "r", "rp2", "rp2-peer", "b2", "p2")
    expected = {device_tag(world.id(name)) for name in devices}
    expected |= {location_tag(world.id("p2")), tunnel_tag(world.id("h2"))}
    assert expected <= result.program.tags


def test_drop_behind_a_router_keeps_its_guard() -> None:
    world = chained_world().chain("p2-out", rule("drop"))
    result = world.simulate("p1", udp(eth_dst=R1))
    assert isinstance(result, Drop)
    assert result.program.guards.ttl_above == 1
    assert result.program.slow_path is None


def test_reject_behind_a_router_is_answered_by_the_router() -> None:
    world = chained_world().chain("p2-out", rule("reject"))
    (delivery,) = world.send("p1", udp(eth_dst=R1))
    assert delivery.place == "p1"
    assert delivery.packet.key.ip_src == parse_ip("10.0.1.1").value
    assert (delivery.packet.key.l4_src, delivery.packet.key.l4_dst) == (3, 3)


def test_key_carries_the_flow_hash_of_the_deployment() -> None:
    world = chained_world()
    result = world.simulate("p1", udp(eth_dst=R1))
    assert isinstance(result, Forward)
    key = parse_frame(udp(eth_dst=R1)).key
    assert result.program.key.flow_hash == key_flow_hash(key, world.view().hash_seed)


def test_generated_packet_starts_at_the_egress_side_and_is_never_installed() -> None:
    world = chained_world()
    frame = udp(eth_src=R1, eth_dst=M1)
    result = simulate_generated(
        world.view(), world.soft_state(), parse_frame(frame), world.port_id("p1"), NOW
    )
    assert isinstance(result, Forward)
    assert result.program.slow_path is SlowPathReason.GENERATED
    assert [delivery.place for delivery in world.settle(result, frame)] == ["p1"]
    result = simulate_generated(
        world.view(), world.soft_state(), parse_frame(frame), world.port_id("rp1"), NOW
    )
    assert [delivery.place for delivery in world.settle(result, frame)] == ["p1"]


def test_generated_packet_out_of_a_port_that_is_gone_is_dropped() -> None:
    world = World().absent("p")
    result = simulate_generated(
        world.view(), world.soft_state(), parse_frame(udp()), world.port_id("p"), NOW
    )
    assert isinstance(result, Drop)
    assert result.reason is DropReason.MISSING_DEVICE
