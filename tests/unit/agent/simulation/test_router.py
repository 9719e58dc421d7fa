"""Routers: routes, TTL, next hops, address resolution, local delivery."""

from __future__ import annotations

import pytest

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import Rewrite, SlowPathReason
from midonet.agent.flows.tags import neighbour_tag
from midonet.agent.simulation.result import (
    Await,
    Consume,
    Drop,
    Forward,
    LoadDevices,
    RefreshNeighbour,
    ResolveNeighbour,
)
from midonet.agent.simulation.simulate import simulate_generated
from midonet.agent.soft_state.lessons import LearnNeighbour
from midonet.model.devices import NextHopKind
from midonet.packets.addresses import IpVersion, parse_ip, parse_mac
from midonet.packets.build import ethernet_frame
from midonet.packets.frame import parse_frame
from midonet.packets.neighbour import (
    arp_reply,
    neighbour_advertisement,
    neighbour_solicitation,
)
from tests.unit.agent.simulation.frames import (
    BROADCAST,
    M1,
    M2,
    M3,
    arp,
    echo,
    solicitation,
    tcp,
    udp,
)
from tests.worlds import NOW, World, rule

R1 = "02:00:00:00:01:01"
R2 = "02:00:00:00:01:02"


def edge(**router: object) -> World:
    """Router `r` with bound ports on two networks."""
    world = World("h1").router("r", **router)  # type: ignore[arg-type]
    world.port("a", on="r", host="h1", mac=R1, addresses=("10.0.1.1/24", "fd00:1::1/64"))
    world.port("b", on="r", host="h1", mac=R2, addresses=("10.0.2.1/24", "fd00:2::1/64"))
    world.neighbour("r", "10.0.2.5", M2).neighbour("r", "fd00:2::5", M2)
    return world.neighbour("r", "10.0.1.5", M1).neighbour("r", "fd00:1::5", M1)


V4 = ("10.0.1.5", "10.0.2.5")
V6 = ("fd00:1::5", "fd00:2::5")


def drop_reason(world: World, frame: bytes, ingress: str = "a") -> DropReason:
    result = world.simulate(ingress, frame)
    assert isinstance(result, Drop)
    return result.reason


@pytest.mark.parametrize("addresses", [V4, V6])
def test_packet_is_routed_with_new_macs_and_one_hop_less(addresses: tuple[str, str]) -> None:
    world = edge()
    result = world.simulate("a", udp(*addresses, eth_dst=R1))
    assert isinstance(result, Forward)
    (output,) = result.program.outputs
    assert output.rewrite == Rewrite(eth_dst=parse_mac(M2), eth_src=parse_mac(R2), ttl_decrement=1)
    assert result.program.guards.ttl_above == 1
    address = parse_ip(addresses[1])
    assert neighbour_tag(world.id("r"), address.version, address.value) in result.program.tags
    assert len(result.program.regions) == 1


def test_mask_of_a_routed_packet_leaves_out_what_did_not_matter() -> None:
    result = edge().simulate("a", udp(*V4, eth_dst=R1))
    assert isinstance(result, Forward)
    mask = result.program.mask
    assert (mask.ip_dst, mask.ip_src) == (0xFFFFFFFF, 0xFF000000)
    assert (mask.ip_proto, mask.l4_src, mask.l4_dst, mask.eth_src) == (0, 0, 0, 0)


def test_route_with_a_gateway_needs_no_more_than_the_prefix() -> None:
    world = edge().route("r", "172.16.0.0/12", via="b", gateway="10.0.2.5")
    result = world.simulate("a", udp("10.0.1.5", "172.20.3.4", eth_dst=R1))
    assert isinstance(result, Forward)
    assert result.program.mask.ip_dst == 0xFFFF0000  # /12 in steps of eight


@pytest.mark.parametrize("addresses", [V4, V6])
@pytest.mark.parametrize("ttl", [0, 1])
def test_expired_packet_is_answered_from_the_ingress_port(
    addresses: tuple[str, str], ttl: int
) -> None:
    world = edge()
    frame = udp(*addresses, eth_dst=R1, ttl=ttl)
    result = world.simulate("a", frame)
    assert isinstance(result, Drop)
    assert result.reason is DropReason.TTL_EXCEEDED
    assert result.program.slow_path is SlowPathReason.GUARD
    (delivery,) = world.settle(result)
    key = delivery.packet.key
    assert delivery.place == "a"
    assert (key.ip_src, key.ip_dst) == (
        parse_ip(addresses[0].replace("5", "1")).value,
        parse_ip(addresses[0]).value,
    )
    assert (key.eth_src, key.eth_dst) == (parse_mac(R1), parse_mac(M1))
    assert key.l4_src == (11 if addresses is V4 else 3)
    assert frame[14:] in delivery.frame


def test_traceroute_sees_every_router() -> None:
    world = World("h1")
    for index in range(1, 4):
        world.router(f"r{index}")
    world.port("in", on="r1", host="h1", mac=R1, addresses=("10.0.1.1/24",))
    for index in (1, 2):
        world.port(f"e{index}", on=f"r{index}", addresses=(f"10.1.{index}.1/30",))
        world.port(f"w{index}", on=f"r{index + 1}", addresses=(f"10.1.{index}.2/30",))
        world.link(f"e{index}", f"w{index}")
        world.route(f"r{index}", "10.9.0.0/16", via=f"e{index}", gateway=f"10.1.{index}.2")
        world.route(f"r{index + 1}", "10.0.1.0/24", via=f"w{index}", gateway=f"10.1.{index}.1")
    world.port("srv", on="r3", host="h1", addresses=("10.9.0.1/16",))
    world.neighbour("r3", "10.9.0.5", M3).neighbour("r1", "10.0.1.5", M1)
    seen = []
    for ttl in (1, 2, 3):
        (delivery,) = world.send("in", udp("10.0.1.5", "10.9.0.5", eth_dst=R1, ttl=ttl))
        assert delivery.place == "in"
        assert delivery.packet.key.l4_src == 11
        seen.append(delivery.packet.key.ip_src)
    assert seen == [parse_ip(text).value for text in ("10.0.1.1", "10.1.1.2", "10.1.2.2")]
    result = world.simulate("in", udp("10.0.1.5", "10.9.0.5", eth_dst=R1, ttl=4))
    assert isinstance(result, Forward)
    assert result.program.guards.ttl_above == 3
    (last,) = world.send("in", udp("10.0.1.5", "10.9.0.1", eth_dst=R1, ttl=3))
    assert (last.packet.key.l4_src, last.packet.key.l4_dst) == (3, 3)


# Routes.


@pytest.mark.parametrize(("addresses", "code"), [(V4, (3, 0)), (V6, (1, 0))])
def test_no_route_is_reported(addresses: tuple[str, str], code: tuple[int, int]) -> None:
    world = (
        World()
        .router("r")
        .port("a", on="r", host="h1", mac=R1, addresses=("10.0.1.1/24", "fd00:1::1/64"))
    )
    result = world.simulate("a", udp(*addresses, eth_dst=R1))
    assert isinstance(result, Drop)
    assert result.reason is DropReason.NO_ROUTE
    assert result.program.lifetime_s == 5
    assert result.program.slow_path is SlowPathReason.ANSWERED
    (delivery,) = world.settle(result)
    assert (delivery.packet.key.l4_src, delivery.packet.key.l4_dst) == code


def test_blackhole_route_is_silent() -> None:
    world = edge().route("r", "10.0.2.5/32", kind=NextHopKind.BLACKHOLE)
    result = world.simulate("a", udp(*V4, eth_dst=R1))
    assert isinstance(result, Drop)
    assert (result.reason, result.generated) == (DropReason.BLACKHOLE_ROUTE, ())
    assert result.program.lifetime_s == 5


def test_reject_route_says_prohibited() -> None:
    world = edge().route("r", "10.0.2.5/32", kind=NextHopKind.REJECT)
    assert drop_reason(world, udp(*V4, eth_dst=R1)) is DropReason.REJECTED
    (delivery,) = world.send("a", udp(*V4, eth_dst=R1))
    assert (delivery.packet.key.l4_src, delivery.packet.key.l4_dst) == (3, 13)


def test_route_whose_source_does_not_match_falls_back_to_a_shorter_prefix() -> None:
    world = edge().route("r", "10.0.2.5/32", source="10.7.0.0/16", kind=NextHopKind.BLACKHOLE)
    result = world.simulate("a", udp(*V4, eth_dst=R1))
    assert isinstance(result, Forward)
    assert result.program.mask.ip_src == 0xFFFF0000


def test_missing_egress_port_fails_closed() -> None:
    world = edge().route("r", "10.3.0.0/16", via="gone").absent("gone")
    frame = udp("10.0.1.5", "10.3.0.1", eth_dst=R1)
    assert drop_reason(world, frame) is DropReason.MISSING_DEVICE
    world = edge().route("r", "10.3.0.0/16", via="far")
    assert world.simulate("a", frame) == Await(LoadDevices((world.port_id("far"),)))


def test_route_without_a_port_fails_closed() -> None:
    world = edge().route("r", "10.3.0.0/16")
    assert drop_reason(world, udp("10.0.1.5", "10.3.0.1", eth_dst=R1)) is DropReason.MISSING_DEVICE


def test_egress_port_without_an_address_of_the_version_is_named() -> None:
    world = edge().port("c", on="r", host="h1", addresses=("fd00:3::1/64",))
    world.route("r", "10.3.0.0/16", via="c", gateway="10.3.0.1")
    assert drop_reason(world, udp("10.0.1.5", "10.3.0.9", eth_dst=R1)) is DropReason.NO_PORT_ADDRESS


def test_own_address_without_a_local_route_is_not_sent_out() -> None:
    world = World().router("r").port("a", on="r", host="h1", mac=R1, addresses=("10.0.1.1/24",))
    world.port("b", on="r", host="h1", addresses=("10.0.2.1/24",), routes=False)
    world.route("r", "10.0.2.0/24", via="b")
    frame = udp("10.0.1.5", "10.0.2.1", eth_dst=R1)
    assert drop_reason(world, frame) is DropReason.LOCAL_NOT_HANDLED


# Entry.


def test_frames_for_others_are_not_routed() -> None:
    world = edge()
    for mac in (M3, BROADCAST, "01:00:5e:00:00:05"):
        assert drop_reason(world, udp(*V4, eth_dst=mac)) is DropReason.NOT_FOR_ROUTER


def test_group_destinations_are_not_routed() -> None:
    world = edge()
    for destination, source in (("224.0.0.5", "10.0.1.5"), ("ff02::5", "fd00:1::5")):
        frame = udp(source, destination, eth_dst=R1)
        assert drop_reason(world, frame) is DropReason.NOT_FOR_ROUTER


def test_other_ethertypes_and_tags_are_unsupported() -> None:
    world = edge()
    mpls = ethernet_frame(parse_mac(R1), parse_mac(M1), 0x8847, bytes(46))
    assert drop_reason(world, mpls) is DropReason.UNSUPPORTED_ETHERTYPE
    assert drop_reason(world, udp(*V4, eth_dst=R1, vlan=7)) is DropReason.UNSUPPORTED_ETHERTYPE


def test_priority_tag_is_removed() -> None:
    world = edge()
    tagged = world.simulate("a", udp(*V4, eth_dst=R1, vlan=0))
    assert isinstance(tagged, Forward)
    assert tagged == world.simulate("a", udp(*V4, eth_dst=R1))


@pytest.mark.parametrize(
    "source", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::", "::1", "ff02::1"]
)
def test_sources_that_name_no_host_are_not_routed(source: str) -> None:
    destination = V6[1] if ":" in source else V4[1]
    frame = udp(source, destination, eth_dst=R1)
    assert drop_reason(edge(), frame) is DropReason.SOURCE_ADDRESS_INVALID


def test_link_local_packets_stay_on_their_link() -> None:
    world = edge()
    frame = udp("fe80::5", "fd00:2::5", eth_dst=R1)
    assert drop_reason(world, frame) is DropReason.SOURCE_ADDRESS_INVALID
    frame = udp("fe80::5", "fe80::9", eth_dst=R1)
    assert drop_reason(world, frame) is DropReason.NOT_FOR_ROUTER


@pytest.mark.parametrize(
    ("port", "reason"), [(True, DropReason.PORT_DOWN), (False, DropReason.DEVICE_DOWN)]
)
def test_what_is_down_says_prohibited(port: bool, reason: DropReason) -> None:
    world = World().router("r", up=port)
    world.port("a", on="r", host="h1", mac=R1, addresses=("10.0.1.1/24",), up=not port)
    frame = udp(*V4, eth_dst=R1)
    assert drop_reason(world, frame) is reason
    result = world.simulate("a", frame)
    assert isinstance(result, Drop)
    assert len(result.generated) == 1


def test_absent_router_and_bridge_fail_closed() -> None:
    world = World().port("a", on="lost", host="h1").absent("lost")
    assert drop_reason(world, udp()) is DropReason.MISSING_DEVICE


# Next hops.


def test_unknown_neighbour_is_awaited() -> None:
    world = edge()
    awaited = ResolveNeighbour(world.id("r"), world.port_id("b"), parse_ip("10.0.2.77"))
    assert world.simulate("a", udp("10.0.1.5", "10.0.2.77", eth_dst=R1)) == Await(awaited)


@pytest.mark.parametrize(
    ("addresses", "code"),
    [(("10.0.1.5", "10.0.2.9"), (3, 1)), (("fd00:1::5", "fd00:2::9"), (1, 3))],
)
def test_failed_neighbour_is_unreachable(addresses: tuple[str, str], code: tuple[int, int]) -> None:
    world = edge().neighbour("r", addresses[1], None)
    result = world.simulate("a", udp(*addresses, eth_dst=R1))
    assert isinstance(result, Drop)
    assert result.reason is DropReason.NEIGHBOUR_UNRESOLVED
    assert result.program.lifetime_s == 5
    (delivery,) = world.settle(result)
    assert (delivery.packet.key.l4_src, delivery.packet.key.l4_dst) == code


def test_stale_neighbour_is_used_and_refreshed() -> None:
    world = edge().neighbour("r", "10.0.2.5", M2, stale=True)
    result = world.simulate("a", udp(*V4, eth_dst=R1))
    assert isinstance(result, Forward)
    refresh = RefreshNeighbour(world.id("r"), world.port_id("b"), parse_ip("10.0.2.5"))
    assert refresh in result.effects


def test_next_hop_outside_the_networks_of_the_port_is_unreachable() -> None:
    world = edge().route("r", "10.3.0.0/16", via="b")
    frame = udp("10.0.1.5", "10.3.0.1", eth_dst=R1)
    assert drop_reason(world, frame) is DropReason.NEIGHBOUR_UNRESOLVED


def test_next_hop_behind_a_bridge_is_found_in_its_table_without_arp() -> None:
    world = edge().bridge("lan")
    world.port("c", on="r", mac="02:00:00:00:01:03", addresses=("10.3.0.1/24",)).attach("c", "lan")
    world.port("vm", on="lan", host="h1").bridge_neighbour("lan", "10.3.0.5", M3)
    world.mac_at("lan", M3, "vm")
    (delivery,) = world.send("a", udp("10.0.1.5", "10.3.0.5", eth_dst=R1))
    assert (delivery.place, delivery.packet.key.eth_dst) == ("vm", parse_mac(M3))


def test_next_hop_may_be_another_router_on_the_bridge() -> None:
    world = edge().bridge("transit").router("r2")
    world.port("c", on="r", addresses=("10.3.0.1/24",)).attach("c", "transit")
    world.port("d", on="r2", addresses=("10.3.0.2/24",)).attach("d", "transit")
    world.port("e", on="r2", host="h1", addresses=("10.4.0.1/24",)).neighbour("r2", "10.4.0.5", M3)
    world.route("r", "10.4.0.0/24", via="c", gateway="10.3.0.2")
    (delivery,) = world.send("a", udp("10.0.1.5", "10.4.0.5", eth_dst=R1))
    assert (delivery.place, delivery.packet.ttl) == ("e", 62)


def test_unplugged_egress_port_is_named() -> None:
    world = edge().port("c", on="r", addresses=("10.3.0.1/24",))
    assert drop_reason(world, udp("10.0.1.5", "10.3.0.5", eth_dst=R1)) is DropReason.PORT_UNPLUGGED


# Address resolution.


def test_arp_for_an_own_address_is_answered_and_the_sender_learnt() -> None:
    world = edge()
    result = world.simulate("a", arp("10.0.1.9", "10.0.1.1", mac=M3))
    assert isinstance(result, Consume)
    learned = LearnNeighbour(world.id("r"), parse_ip("10.0.1.9"), parse_mac(M3))
    assert result.effects == (learned,)
    (delivery,) = world.settle(result)
    assert delivery.packet.arp is not None
    assert delivery.packet.arp.sender_mac == parse_mac(R1)


def test_arp_probe_is_answered_without_learning() -> None:
    result = edge().simulate("a", arp("0.0.0.0", "10.0.1.1"))
    assert isinstance(result, Consume)
    assert (len(result.generated), result.effects) == (1, ())


def test_arp_from_outside_the_network_or_for_others_is_dropped() -> None:
    world = edge()
    for frame in (arp("172.16.0.1", "10.0.1.1"), arp("10.0.1.9", "10.0.1.8")):
        assert drop_reason(world, frame) is DropReason.NOT_FOR_ROUTER


def test_arp_reply_and_announcement_are_learnt() -> None:
    reply = arp_reply(
        parse_mac(M3), parse_ip("10.0.1.9").value, parse_mac(R1), parse_ip("10.0.1.1").value
    )
    for frame in (reply, arp("10.0.1.9", "10.0.1.9", mac=M3)):
        world = edge()
        result = world.simulate("a", frame)
        assert isinstance(result, Consume)
        learned = LearnNeighbour(world.id("r"), parse_ip("10.0.1.9"), parse_mac(M3))
        assert result.effects == (learned,)


def test_malformed_arp_is_named() -> None:
    frame = ethernet_frame(parse_mac(BROADCAST), parse_mac(M1), 0x0806, bytes(28))
    assert drop_reason(edge(), frame) is DropReason.MALFORMED


@pytest.mark.parametrize("target", ["fd00:1::1", "fe80::ff:fe00:101"])
def test_solicitation_for_an_own_address_is_answered_and_the_sender_learnt(target: str) -> None:
    world = edge()
    result = world.simulate("a", solicitation("fd00:1::9", target, mac=M3))
    assert isinstance(result, Consume)
    learned = LearnNeighbour(world.id("r"), parse_ip("fd00:1::9"), parse_mac(M3))
    assert result.effects == (learned,)
    (delivery,) = world.settle(result)
    assert delivery.packet.nd_link_address == parse_mac(R1)


def test_duplicate_address_detection_is_answered_to_all_nodes() -> None:
    frame = neighbour_solicitation(parse_mac(M3), 0, parse_ip("fd00:1::1").value)
    world = edge()
    result = world.simulate("a", frame)
    assert isinstance(result, Consume)
    assert result.effects == ()
    (delivery,) = world.settle(result)
    assert delivery.packet.key.ip_dst == parse_ip("ff02::1").value


def test_solicitation_for_others_is_not_for_the_router() -> None:
    frame = solicitation("fd00:1::9", "fd00:1::8")
    assert drop_reason(edge(), frame) is DropReason.NOT_FOR_ROUTER


def test_advertisement_is_learnt() -> None:
    world = edge()
    target = parse_ip("fd00:1::9")
    frame = neighbour_advertisement(
        parse_mac(M3), target.value, parse_mac(R1), parse_ip("fd00:1::1").value
    )
    result = world.simulate("a", frame)
    assert isinstance(result, Consume)
    assert result.effects == (LearnNeighbour(world.id("r"), target, parse_mac(M3)),)


def test_router_solicitation_is_not_served() -> None:
    frame = bytearray(solicitation("fe80::5", "fd00:1::1", mac=M1))
    frame[54] = 133
    result = edge().simulate("a", bytes(frame))
    assert isinstance(result, Drop)
    assert (result.reason, result.generated) == (DropReason.LOCAL_NOT_HANDLED, ())


# Local delivery.


@pytest.mark.parametrize(
    ("addresses", "kind"),
    [
        (("10.0.1.5", "10.0.1.1"), 0),
        (("10.0.1.5", "10.0.2.1"), 0),
        (("fd00:1::5", "fd00:1::1"), 129),
        (("fe80::5", "fe80::ff:fe00:101"), 129),
    ],
)
def test_echo_to_the_router_is_answered(addresses: tuple[str, str], kind: int) -> None:
    world = edge()
    frame = echo(*addresses, eth_dst=R1, size=56)
    result = world.simulate("a", frame)
    assert isinstance(result, Consume)
    (delivery,) = world.settle(result)
    key = delivery.packet.key
    assert delivery.place == "a"
    assert (key.l4_src, key.eth_dst) == (kind, parse_mac(M1))
    assert key.ip_src == parse_ip(addresses[1]).value
    assert delivery.packet.icmp_id == 1


def test_echo_reply_passes_the_outbound_filters() -> None:
    world = edge(outbound="deny").chain("deny", rule("drop", ip_proto=1))
    assert world.send("a", echo("10.0.1.5", "10.0.1.1", eth_dst=R1)) == []
    world = World().router("r").chain("deny", rule("drop", ip_proto=1))
    world.port("a", on="r", host="h1", mac=R1, addresses=("10.0.1.1/24",), outbound="deny")
    world.neighbour("r", "10.0.1.5", M1)
    assert world.send("a", echo("10.0.1.5", "10.0.1.1", eth_dst=R1)) == []


def test_echo_reply_awaits_its_next_hop() -> None:
    world = edge()
    result = world.simulate("a", echo("10.0.1.77", "10.0.1.1", eth_dst=R1))
    assert isinstance(result, Consume)
    [reply] = result.generated
    again = simulate_generated(
        world.view(),
        world.soft_state(),
        parse_frame(reply.frame),
        reply.egress,
        NOW,
        router_id=reply.router_id,
    )
    assert isinstance(again, Await)
    assert isinstance(again.what, ResolveNeighbour)


def test_other_traffic_to_the_router_is_refused() -> None:
    world = edge()
    for frame, protocol, kind in (
        (udp("10.0.1.5", "10.0.1.1", eth_dst=R1), 1, 3),
        (tcp("10.0.1.5", "10.0.1.1", eth_dst=R1), 6, 80),
    ):
        assert drop_reason(world, frame) is DropReason.LOCAL_NOT_HANDLED
        (delivery,) = world.send("a", frame)
        assert (delivery.packet.key.ip_proto, delivery.packet.key.l4_src) == (protocol, kind)


# Equal-cost routes.


def ecmp_world(count: int) -> World:
    world = edge()
    for index in range(count):
        gateway = f"10.0.2.{100 + index}"
        world.route("r", "10.9.0.0/16", via="b", gateway=gateway)
        world.neighbour("r", gateway, f"02:bb:00:00:00:{index:02x}")
    return world


def test_equal_routes_share_connections_and_record_eight_hash_bits() -> None:
    world = ecmp_world(4)
    chosen = set()
    for port in range(64):
        result = world.simulate("a", udp("10.0.1.5", "10.9.0.1", eth_dst=R1, sport=port))
        assert isinstance(result, Forward)
        assert result.program.mask.flow_hash == 0xFF
        assert result.program.mask.l4_src == 0
        chosen.add(result.program.outputs[0].rewrite.eth_dst)
    assert len(chosen) == 4


def test_single_route_needs_no_hash() -> None:
    result = ecmp_world(1).simulate("a", udp("10.0.1.5", "10.9.0.1", eth_dst=R1))
    assert isinstance(result, Forward)
    assert result.program.mask.flow_hash == 0


def test_region_covers_the_outcome() -> None:
    result = ecmp_world(2).simulate("a", udp("10.0.1.5", "10.9.0.1", eth_dst=R1))
    assert isinstance(result, Forward)
    (region,) = result.program.regions
    assert (region.version, region.value) == (IpVersion.V4, parse_ip("10.9.0.0").value)
