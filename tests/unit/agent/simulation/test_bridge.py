"""Bridges: learning, forwarding, flooding, ARP, VLANs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from midonet.agent.flows.classification import masked
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import (
    LocalOutput,
    Rewrite,
    SlowPathReason,
    TunnelOutput,
)
from midonet.agent.flows.tags import device_tag, flood_set_tag, mac_tag
from midonet.agent.simulation.result import Await, Consume, Drop, Forward, LoadDevices
from midonet.agent.simulation.simulate import simulate
from midonet.agent.soft_state.lessons import LearnMac, MoveBridgeNeighbour
from midonet.packets.addresses import parse_ip, parse_mac
from midonet.packets.arp import ArpMessage, ArpOperation
from midonet.packets.build import ethernet_frame
from midonet.packets.frame import parse_frame
from midonet.packets.neighbour import unsolicited_advertisement
from tests.unit.agent.simulation.frames import (
    BROADCAST,
    M1,
    M2,
    M3,
    arp,
    solicitation,
    udp,
)
from tests.worlds import World, rule


def lan() -> World:
    world = World("h1").bridge("b")
    for name, host in (("p1", "h1"), ("p2", "h1"), ("p3", "h2"), ("p4", "h2"), ("p5", "h3")):
        world.port(name, on="b", host=host)
    return world


def places(world: World, frame: bytes, ingress: str = "p1") -> set[str | int]:
    return {delivery.place for delivery in world.send(ingress, frame)}


def test_unknown_unicast_is_flooded_to_every_port_but_the_ingress() -> None:
    world = lan()
    result = world.simulate("p1", udp())
    assert isinstance(result, Forward)
    assert places(world, udp()) == {"p2", 103, 104, 105}
    assert mac_tag(world.id("b"), 0, parse_mac(M2)) in result.program.tags
    assert flood_set_tag(world.id("b")) in result.program.tags


@pytest.mark.parametrize("target", ["gone", "elsewhere"])
def test_what_makes_a_mac_entry_useless_is_a_fact(target: str) -> None:
    world = lan().bridge("other").port("elsewhere", on="other", host="h1").absent("gone")
    world.mac_at("b", M2, target)
    result = world.simulate("p1", udp())
    assert isinstance(result, Forward)
    assert places(world, udp()) == {"p2", 103, 104, 105}
    assert device_tag(world.id(target)) in result.program.tags


def test_known_unicast_goes_to_one_port() -> None:
    world = lan().mac_at("b", M2, "p3")
    result = world.simulate("p1", udp())
    assert isinstance(result, Forward)
    (output,) = result.program.outputs
    assert isinstance(output, TunnelOutput)
    assert output.tunnel_key == 103
    assert output.rewrite == Rewrite()
    assert result.program.guards.max_length == 1450
    assert not result.program.mask.ip_dst


def test_source_mac_is_learnt_and_kept_alive() -> None:
    world = lan().mac_at("b", M2, "p2")
    result = world.simulate("p1", udp())
    assert isinstance(result, Forward)
    (learned,) = result.program.learned
    assert (learned.mac, learned.vlan, learned.port_id) == (parse_mac(M1), 0, world.id("p1"))
    assert result.effects == (LearnMac(learned),)


def test_mac_of_an_attached_router_is_never_learnt() -> None:
    world = lan().router("r").port("rp", on="r", mac=M1, addresses=("10.0.0.1/24",))
    result = world.attach("rp", "b").simulate("p1", udp())
    assert isinstance(result, Forward)
    assert result.effects == ()


def test_source_mac_is_learnt_although_the_inbound_filter_drops() -> None:
    world = World().chain("deny", rule("drop")).bridge("b", inbound="deny")
    result = world.port("p1", on="b", host="h1").simulate("p1", udp())
    assert isinstance(result, Drop)
    assert result.reason is DropReason.FILTERED
    assert len(result.effects) == 1


def test_multicast_source_is_dropped() -> None:
    result = lan().simulate("p1", udp(eth_src="03:00:00:00:00:01"))
    assert isinstance(result, Drop)
    assert result.reason is DropReason.SOURCE_MAC_MULTICAST


def test_bridge_that_is_down_drops() -> None:
    world = World().bridge("b", up=False).port("p1", on="b", host="h1")
    result = world.simulate("p1", udp())
    assert isinstance(result, Drop)
    assert result.reason is DropReason.DEVICE_DOWN
    assert result.effects == ()


@pytest.mark.parametrize("destination", [M1, M3])
def test_destination_behind_the_ingress_is_a_hairpin_for_five_seconds(destination: str) -> None:
    world = lan().mac_at("b", M3, "p1")
    result = world.simulate("p1", udp(eth_dst=destination))
    assert isinstance(result, Drop)
    assert result.reason is DropReason.HAIRPIN
    assert result.program.lifetime_s == 5


def test_mac_entry_of_a_port_that_is_gone_floods() -> None:
    world = lan().mac_at("b", M2, "gone").absent("gone")
    assert places(world, udp()) == {"p2", 103, 104, 105}


def test_mac_entry_of_a_port_that_is_not_loaded_awaits_it() -> None:
    world = lan().mac_at("b", M2, "far")
    assert world.simulate("p1", udp()) == Await(LoadDevices((world.port_id("far"),)))


def test_broadcast_and_multicast_are_flooded() -> None:
    for destination in (BROADCAST, "01:00:5e:00:00:fb", "33:33:00:00:00:01"):
        assert places(lan(), udp(eth_dst=destination)) == {"p2", 103, 104, 105}


def test_flood_without_another_port_is_named() -> None:
    result = World().bridge("b").port("p1", on="b", host="h1").simulate("p1", udp())
    assert isinstance(result, Drop)
    assert result.reason is DropReason.NO_FLOOD_TARGET


# Flood groups.


def test_flood_uses_one_copy_for_a_host_that_has_a_group() -> None:
    world = lan().flood_group("h2", "b", 7000).flood_group("h3", "b", 7001)
    assert places(world, udp()) == {"p2", 7000, 7001}


def test_flood_group_needs_every_port_of_the_host_without_filter() -> None:
    world = lan().chain("accept", rule("accept"))
    world.port("p6", on="b", host="h2", outbound="accept").flood_group("h2", "b", 7000)
    assert places(world, udp()) == {"p2", 103, 104, 105, 106}


def test_flood_group_is_not_used_when_a_port_of_the_host_is_down() -> None:
    world = lan().port("p6", on="b", host="h2", up=False).flood_group("h2", "b", 7000)
    assert places(world, udp()) == {"p2", 103, 104, 105}


def test_flood_branches_have_their_own_outbound_filters() -> None:
    world = (
        lan()
        .chain("deny", rule("drop", ip_proto=17))
        .port("p6", on="b", host="h1", outbound="deny")
    )
    assert places(world, udp()) == {"p2", 103, 104, 105}
    result = world.simulate("p1", udp())
    assert isinstance(result, Forward)
    assert result.program.mask.ip_proto == 0xFF


def test_flood_skips_ports_without_a_location() -> None:
    world = World().bridge("b").port("p1", on="b", host="h1")
    world.port("p2", on="b", host="h2", located=False)
    result = world.simulate("p1", udp())
    assert isinstance(result, Drop)
    assert result.reason is DropReason.NO_LOCATION
    assert result.program.lifetime_s == 5
    assert places(world.port("p3", on="b", host="h1"), udp()) == {"p3"}


def test_output_to_a_host_without_a_tunnel_is_named() -> None:
    world = lan().mac_at("b", M2, "p3").no_tunnel("h2")
    result = world.simulate("p1", udp())
    assert isinstance(result, Drop)
    assert result.reason is DropReason.NO_TUNNEL


def test_flood_awaits_all_ports_that_are_not_loaded_at_once() -> None:
    world = lan()
    view = world.view()
    missing = {world.id("p2"), world.id("p3")}
    partial = replace(view, ports={k: v for k, v in view.ports.items() if k not in missing})
    result = simulate(partial, world.soft_state(), parse_frame(udp()), world.port_id("p1"), 0.0)
    assert isinstance(result, Await)
    assert isinstance(result.what, LoadDevices)
    assert set(result.what.object_ids) == missing


# ARP and neighbour discovery.


def gateway_lan() -> World:
    world = lan().router("r")
    world.port("rp", on="r", mac="02:00:00:00:00:99", addresses=("10.0.0.1/24", "fd00::1/64"))
    return world.attach("rp", "b")


def test_bridge_answers_arp_for_an_attached_router_port() -> None:
    world = gateway_lan()
    result = world.simulate("p1", arp("10.0.0.5", "10.0.0.1"))
    assert isinstance(result, Consume)
    (delivery,) = world.settle(result)
    reply = delivery.packet.arp
    assert delivery.place == "p1"
    assert reply is not None
    assert (reply.operation, reply.sender_mac) == (ArpOperation.REPLY, 0x02_0000_0000_99)


def test_bridge_answers_arp_from_its_table() -> None:
    world = lan().bridge_neighbour("b", "10.0.0.7", M3)
    (delivery,) = world.send("p1", arp("10.0.0.5", "10.0.0.7"))
    assert delivery.packet.arp is not None
    assert delivery.packet.arp.sender_mac == parse_mac(M3)


def test_bridge_does_not_tell_an_owner_that_its_address_is_taken() -> None:
    world = lan().bridge_neighbour("b", "10.0.0.7", M1)
    assert places(world, arp("0.0.0.0", "10.0.0.7")) == {"p2", 103, 104, 105}


def test_unknown_arp_target_is_flooded_by_an_installable_program() -> None:
    result = lan().simulate("p1", arp("10.0.0.5", "10.0.0.7"))
    assert isinstance(result, Forward)
    assert result.program.slow_path is None
    assert result.program.mask.ip_dst == 0xFFFFFFFF


def test_gratuitous_arp_moves_an_entry_of_the_table_and_is_flooded() -> None:
    world = lan().bridge_neighbour("b", "10.0.0.7", M3)
    result = world.simulate("p1", arp("10.0.0.7", "10.0.0.7"))
    assert isinstance(result, Forward)
    assert result.program.slow_path is SlowPathReason.ARP_CONTENT
    assert MoveBridgeNeighbour(world.id("b"), parse_ip("10.0.0.7"), parse_mac(M1)) in result.effects


def test_gratuitous_arp_for_an_unknown_address_enters_nothing() -> None:
    result = lan().simulate("p1", arp("10.0.0.7", "10.0.0.7"))
    assert isinstance(result, Forward)
    assert all(isinstance(effect, LearnMac) for effect in result.effects)


def test_gratuitous_arp_for_the_router_goes_to_the_router() -> None:
    world = gateway_lan()
    result = world.simulate("p1", arp("10.0.0.1", "10.0.0.1"))
    assert isinstance(result, Drop)
    assert result.reason is DropReason.NOT_FOR_ROUTER


def test_tagged_arp_is_not_looked_into() -> None:
    message = ArpMessage(1, parse_mac(M1), 1, 0, parse_ip("10.0.0.1").value).serialise()
    frame = ethernet_frame(parse_mac(BROADCAST), parse_mac(M1), 0x0806, message, vlan_tci=5)
    assert places(gateway_lan(), frame) == {"p2", 103, 104, 105}


@pytest.mark.parametrize("target", ["fd00::1", "fe80::ff:fe00:99"])
def test_bridge_answers_solicitations_for_an_attached_router_port(target: str) -> None:
    world = gateway_lan()
    (delivery,) = world.send("p1", solicitation("fd00::5", target))
    assert delivery.place == "p1"
    assert delivery.packet.nd_link_address == 0x02_0000_0000_99
    assert delivery.packet.nd_target == parse_ip(target).value
    assert delivery.frame[delivery.packet.l4_offset + 4] & 0x80  # the router flag


def test_bridge_answers_solicitations_from_its_table() -> None:
    world = lan().bridge_neighbour("b", "fd00::7", M3)
    (delivery,) = world.send("p1", solicitation("fd00::5", "fd00::7"))
    assert delivery.packet.nd_link_address == parse_mac(M3)
    assert not delivery.frame[delivery.packet.l4_offset + 4] & 0x80


def test_unknown_solicitation_is_flooded_each_time() -> None:
    result = lan().simulate("p1", solicitation("fd00::5", "fd00::7"))
    assert isinstance(result, Forward)
    assert result.program.slow_path is SlowPathReason.NEIGHBOUR_DISCOVERY


def test_unsolicited_advertisement_moves_an_entry_of_the_table() -> None:
    world = lan().bridge_neighbour("b", "fd00::7", M3)
    frame = unsolicited_advertisement(parse_mac(M1), parse_ip("fd00::7").value)
    result = world.simulate("p1", frame)
    assert isinstance(result, Forward)
    moved = MoveBridgeNeighbour(world.id("b"), parse_ip("fd00::7"), parse_mac(M1))
    assert moved in result.effects


def test_truncated_arp_is_flooded_like_any_broadcast() -> None:
    frame = ethernet_frame(parse_mac(BROADCAST), parse_mac(M1), 0x0806, bytes(28))
    assert places(lan(), frame) == {"p2", 103, 104, 105}


def test_what_is_decided_for_no_real_arp_does_not_hold_for_a_request() -> None:
    """Else one such frame would keep a machine from its router."""
    world = gateway_lan()
    noise = ethernet_frame(parse_mac(BROADCAST), parse_mac(M1), 0x0806, b"\xff" * 28)
    result = world.simulate("p1", noise)
    assert isinstance(result, Forward)
    mask = result.program.mask
    request = parse_frame(arp("10.0.0.5", "10.0.0.1"), hash_seed=0).key
    assert masked(request, mask) != masked(result.program.key, mask)


# Filters and VLANs.


def test_tagged_frames_skip_bridge_filters_and_priority_tags_do_not() -> None:
    world = World().chain("deny", rule("drop"))
    for hook in ("inbound", "outbound"):
        world.bridge("b", **{hook: "deny"})  # type: ignore[arg-type]
        world.port("p1", on="b", host="h1").port("p2", on="b", host="h1")
        assert places(world, udp(vlan=5)) == {"p2"}
        for frame in (udp(), udp(vlan=0)):
            result = world.simulate("p1", frame)
            assert isinstance(result, Drop)
            assert result.reason is DropReason.FILTERED


def test_outbound_filter_knows_the_port_of_unicast_only() -> None:
    world = World().chain("deny", rule("drop", out_port_ids=("p2",))).bridge("b", outbound="deny")
    world.port("p1", on="b", host="h1").port("p2", on="b", host="h1").port("p3", on="b", host="h1")
    world.mac_at("b", M2, "p2")
    assert places(world, udp()) == set()
    assert places(world, udp(eth_dst=M3)) == {"p2", "p3"}


def test_reject_on_a_port_is_answered_in_the_name_of_the_addressee() -> None:
    world = World().chain("no", rule("reject")).bridge("b")
    world.port("p1", on="b", host="h1", inbound="no")
    (delivery,) = world.send("p1", udp())
    assert delivery.place == "p1"
    assert (delivery.packet.key.ip_proto, delivery.packet.key.l4_src) == (1, 3)
    assert delivery.packet.key.ip_src == parse_ip("10.0.2.5").value


def vlan_world() -> World:
    """Bridge `trunk` with VLANs 10 and 20, behind which are the bridges `b10` and `b20`."""
    world = World().bridge("trunk").bridge("b10").bridge("b20")
    world.port("t1", on="trunk", host="h1").port("t2", on="trunk", host="h1")
    for vlan in (10, 20):
        world.port(f"v{vlan}", on="trunk", vlan=vlan).port(f"u{vlan}", on=f"b{vlan}")
        world.port(f"a{vlan}", on=f"b{vlan}", host="h1").link(f"v{vlan}", f"u{vlan}")
    return world


def test_trunk_floods_to_trunks_and_to_the_port_of_the_vlan() -> None:
    world = vlan_world()
    deliveries = world.send("t1", udp(vlan=10))
    tagged = {delivery.place: delivery.packet.key.vlan_tci & 0xFFF for delivery in deliveries}
    assert tagged == {"t2": 10, "a10": 0}
    assert places(world, udp(vlan=30), "t1") == {"t2"}
    assert places(world, udp(), "t1") == {"t2"}


def test_frame_from_a_vlan_port_is_tagged_towards_trunks() -> None:
    world = vlan_world()
    deliveries = world.send("a20", udp())
    assert {delivery.place: delivery.packet.key.vlan_tci & 0xFFF for delivery in deliveries} == {
        "t1": 20,
        "t2": 20,
    }


def test_vlan_aware_bridge_learns_per_vlan() -> None:
    world = vlan_world()
    world.send("t1", udp(vlan=10))
    assert world.soft_state().macs[world.id("trunk"), 10, parse_mac(M1)] == world.id("t1")
    back = world.send("a10", udp(eth_src=M2, eth_dst=M1))
    assert {delivery.place for delivery in back} == {"t1"}
    assert {delivery.packet.key.vlan_tci & 0xFFF for delivery in back} == {10}


@pytest.mark.parametrize("vlan", [None, 20])
def test_unicast_to_a_vlan_port_needs_its_tag(vlan: int | None) -> None:
    world = vlan_world().mac_at("trunk", M2, "v10", vlan=vlan or 0)
    result = world.simulate("t1", udp(vlan=vlan))
    assert isinstance(result, Drop)
    assert result.reason is DropReason.VLAN_MISMATCH


def test_second_tag_is_refused() -> None:
    result = vlan_world().simulate("a10", udp(vlan=7))
    assert isinstance(result, Drop)
    assert result.reason is DropReason.VLAN_MISMATCH


def test_local_output_names_the_port() -> None:
    world = lan().mac_at("b", M2, "p2")
    result = world.simulate("p1", udp())
    assert isinstance(result, Forward)
    assert result.program.outputs == (LocalOutput(world.port_id("p2")),)
    assert result.program.guards.max_length is None
