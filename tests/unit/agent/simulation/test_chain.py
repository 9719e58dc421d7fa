"""Chains and conditions: what matches, what is recorded, what fails closed."""

from __future__ import annotations

import pytest

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.tags import chain_tag
from midonet.agent.simulation.result import Await, Drop, Forward, LoadDevices
from midonet.model.chains import FragmentPolicy, PortRange
from midonet.packets.addresses import parse_mac
from midonet.packets.tcp import TcpFlag
from tests.unit.agent.simulation.frames import M1, M2, M3, arp, echo, tcp, udp
from tests.worlds import World, rule


def guarded(*rules: object) -> World:
    """Bridge with a chain on the way into port `p1`; everything goes to `p2`."""
    world = World().bridge("b").chain("c", *rules)  # type: ignore[arg-type]
    world.port("p1", on="b", host="h1", inbound="c").port("p2", on="b", host="h1")
    return world.mac_at("b", M2, "p2")


def passes(world: World, frame: bytes) -> bool:
    result = world.simulate("p1", frame)
    if isinstance(result, Drop):
        assert result.reason in (DropReason.FILTERED, DropReason.REJECTED)
    return isinstance(result, Forward)


def matches(frame: bytes | None = None, **condition: object) -> bool:
    """Tell whether a condition matches, by a rule that drops what it matches."""
    return not passes(guarded(rule("drop", **condition)), frame or udp())


def fragment(more: bool = True, offset: int = 0) -> bytes:
    """Return a UDP fragment; its header checksum is not looked at."""
    frame = bytearray(udp())
    frame[20:22] = ((0x2000 if more else 0) | offset).to_bytes(2, "big")
    return bytes(frame)


def reason(world: World, frame: bytes | None = None) -> DropReason:
    result = world.simulate("p1", frame or udp())
    assert isinstance(result, Drop)
    return result.reason


# Flow of control.


def test_first_deciding_rule_wins_and_the_end_accepts() -> None:
    assert passes(guarded(rule("accept"), rule("drop")), udp())
    assert not passes(guarded(rule("drop"), rule("accept")), udp())
    assert passes(guarded(), udp())
    assert passes(guarded(rule("return"), rule("drop")), udp())


def test_return_goes_back_to_the_caller() -> None:
    world = guarded(rule("jump", jump="inner"), rule("drop")).chain("inner", rule("return"))
    assert not passes(world, udp())
    assert passes(world.chain("inner", rule("accept")), udp())


def test_chain_visited_through_two_jumps_runs_once() -> None:
    world = guarded(rule("jump", jump="x"), rule("jump", jump="y"))
    world.chain("x", rule("return")).chain("y", rule("jump", jump="x"), rule("drop"))
    assert not passes(world, udp())
    world = guarded(rule("jump", jump="c"), rule("jump", jump="x"), rule("jump", jump="x"))
    assert passes(world.chain("x"), udp())


def test_nesting_is_limited() -> None:
    world = guarded(rule("jump", jump="n1"))
    for index in range(1, 40):
        world.chain(f"n{index}", rule("jump", jump=f"n{index + 1}"))
    assert reason(world.chain("n40")) is DropReason.CHAIN_LIMIT


def test_missing_chain_fails_closed_and_is_tagged() -> None:
    world = guarded(rule("jump", jump="gone")).absent("gone")
    result = world.simulate("p1", udp())
    assert isinstance(result, Drop)
    assert result.reason is DropReason.MISSING_CHAIN
    assert chain_tag(world.id("gone")) in result.program.tags
    assert result.program.lifetime_s == 5


def test_jump_without_a_target_fails_closed() -> None:
    assert reason(guarded(rule("jump"))) is DropReason.MISSING_CHAIN


def test_chain_that_is_not_loaded_is_awaited() -> None:
    world = guarded(rule("jump", jump="far"))
    assert world.simulate("p1", udp()) == Await(LoadDevices((world.id("far"),)))


def test_changed_chain_of_the_same_id_is_compiled_again() -> None:
    world = guarded(rule("drop"))
    assert not passes(world, udp())
    assert passes(world.chain("c", rule("accept")), udp())


@pytest.mark.parametrize(
    "condition",
    [
        "port_group_id",
        "in_port_group_id",
        "out_port_group_id",
        "ip_address_group_src_id",
        "ip_address_group_dst_id",
    ],
)
def test_unresolvable_group_fails_closed(condition: str) -> None:
    world = World()
    for inverted in (False, True):
        spec = rule("accept", inverted=inverted, **{condition: world.id("group")})
        assert reason(guarded(spec)) is DropReason.MISSING_GROUP


def test_group_behind_a_failed_test_is_not_reached() -> None:
    world = World()
    spec = rule("drop", ip_proto=6, ip_address_group_src_id=world.id("group"))
    assert passes(guarded(spec), udp())


# Rejection.


def test_reject_answers_tcp_with_a_reset() -> None:
    (delivery,) = guarded(rule("reject")).send("p1", tcp())
    assert delivery.packet.tcp_flags == TcpFlag.RST | TcpFlag.ACK
    assert delivery.place == "p1"
    assert (delivery.packet.key.l4_src, delivery.packet.key.l4_dst) == (80, 4000)


def test_reject_of_a_reset_is_silent() -> None:
    assert guarded(rule("reject")).send("p1", tcp(flags=TcpFlag.RST)) == []


def test_reject_of_other_protocols_on_a_bridge_is_silent() -> None:
    world = guarded(rule("reject"))
    assert world.send("p1", echo()) == []
    assert world.send("p1", arp("10.0.0.1", "10.0.0.2")) == []
    assert reason(world, echo()) is DropReason.REJECTED


def test_reject_is_not_answered_to_groups_and_broadcasts() -> None:
    world = guarded(rule("reject"))
    for frame in (
        udp("10.0.1.5", "224.0.0.5", eth_dst="01:00:5e:00:00:05"),
        udp("10.0.1.5", "255.255.255.255", eth_dst="ff:ff:ff:ff:ff:ff"),
        udp("0.0.0.0", "10.0.0.2"),
        fragment(offset=5),
    ):
        assert world.send("p1", frame) == []


# Conditions.


def test_absent_condition_matches_everything() -> None:
    assert matches()
    assert matches(arp("10.0.0.1", "10.0.0.2"))


def test_inversion_of_the_whole_condition() -> None:
    assert not matches(inverted=True)
    assert matches(inverted=True, ip_proto=6)


def test_fragment_mismatch_is_false_even_inverted() -> None:
    for inverted in (False, True):
        assert not matches(inverted=inverted, fragment_policy=FragmentPolicy.NONHEADER, ip_proto=6)


@pytest.mark.parametrize(
    ("policy", "whole", "first", "later"),
    [
        (FragmentPolicy.ANY, True, True, True),
        (FragmentPolicy.NONHEADER, False, False, True),
        (FragmentPolicy.HEADER, True, True, False),
        (FragmentPolicy.UNFRAGMENTED, True, False, False),
    ],
)
def test_fragment_policies(policy: FragmentPolicy, whole: bool, first: bool, later: bool) -> None:
    assert matches(udp(), fragment_policy=policy) is whole
    assert matches(fragment(), fragment_policy=policy) is first
    assert matches(fragment(offset=9), fragment_policy=policy) is later


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"eth_type": 0x0800}, True),
        ({"eth_type": 0x86DD}, False),
        ({"eth_src": M1}, True),
        ({"eth_src": M3}, False),
        ({"eth_src": M3, "eth_src_mask": 0xFFFFFFFFFF00}, True),
        ({"eth_dst": M2}, True),
        ({"eth_dst": M1, "eth_dst_mask": 0xFFFFFFFFFFFF}, False),
        ({"ip_proto": 17}, True),
        ({"ip_proto": 6}, False),
        ({"ip_tos": 0}, True),
        ({"ip_tos": 4}, False),
        ({"ip_src": "10.0.1.0/24"}, True),
        ({"ip_src": "10.0.2.0/24"}, False),
        ({"ip_src": "fd00::/8"}, False),
        ({"ip_dst": "10.0.2.5"}, True),
        ({"ip_dst": "0.0.0.0/0"}, True),
        ({"ip_dst": "10.0.2.4/32"}, False),
        ({"l4_src": PortRange(4000, 4000)}, True),
        ({"l4_src": PortRange(0, 3999)}, False),
        ({"l4_dst": PortRange(1024, 65535)}, True),
        ({"l4_dst": PortRange(5001, 6000)}, False),
        ({"in_port_ids": ("p1",)}, True),
        ({"in_port_ids": ("p2",)}, False),
        ({"out_port_ids": ("p2",)}, False),
        ({"no_vlan": True}, True),
        ({"vlan": 5}, False),
    ],
)
def test_conditions(condition: dict[str, object], expected: bool) -> None:
    assert matches(**condition) is expected
    (name,) = [key for key in condition if not key.endswith("_mask")]
    flag = {"in_port_ids": "in_ports_inverted", "out_port_ids": "out_ports_inverted"}
    if name not in ("no_vlan", "vlan"):
        inverted = {flag.get(name, f"{name}_inverted"): True}
        assert matches(**condition, **inverted) is not expected


def test_vlan_conditions_on_a_tagged_frame() -> None:
    assert matches(udp(vlan=5), vlan=5)
    assert not matches(udp(vlan=6), vlan=5)
    assert not matches(udp(vlan=5), no_vlan=True)
    assert matches(udp(vlan=0), no_vlan=True)


def test_every_packet_is_forward_without_connection_state() -> None:
    assert matches(match_forward_flow=True)
    assert not matches(match_return_flow=True)


def test_generated_packets_are_return() -> None:
    world = guarded(rule("drop")).chain("out", rule("accept", match_return_flow=True), rule("drop"))
    world.chain("c", rule("reject"))
    world.port("p1", on="b", host="h1", inbound="c", outbound="out")
    assert len(world.send("p1", udp())) == 1


def test_traversed_device() -> None:
    world = guarded(rule("drop", traversed_device_id=World().id("p1")))
    assert not passes(world, udp())
    world = guarded(rule("drop", traversed_device_id=World().id("p9")))
    assert passes(world, udp())
    world = guarded(
        rule("drop", traversed_device_id=World().id("p9"), traversed_device_inverted=True)
    )
    assert not passes(world, udp())


def test_protocol_and_port_tests_need_the_field() -> None:
    request = arp("10.0.0.1", "10.0.0.2")
    assert not matches(request, ip_proto=1)
    assert matches(request, ip_proto=1, ip_proto_inverted=True)
    assert not matches(request, l4_src=PortRange(0, 65535))
    assert not matches(fragment(offset=9), l4_dst=PortRange(0, 65535))
    assert matches(fragment(), l4_dst=PortRange(5000, 5000))
    assert matches(echo(), l4_src=PortRange(8, 8))


def test_arp_has_addresses() -> None:
    assert matches(arp("10.0.0.1", "10.0.0.2"), ip_src="10.0.0.1/32")


# What is recorded.


def test_failed_prefix_records_the_shortest_proof() -> None:
    world = guarded(rule("drop", ip_src="192.168.0.0/16"))
    result = world.simulate("p1", udp())
    assert isinstance(result, Forward)
    assert result.program.mask.ip_src == 0xFF000000
    world = guarded(rule("drop", ip_src="10.0.2.0/24"))
    result = world.simulate("p1", udp())
    assert isinstance(result, Forward)
    assert result.program.mask.ip_src == 0xFFFFFF00


def test_port_ranges_record_a_block_where_that_is_enough() -> None:
    for first, last, expected in ((1024, 65535, 0xFF00), (4990, 5010, 0xFFFF), (0, 1023, 0xFF00)):
        result = guarded(rule("drop", l4_dst=PortRange(first, last))).simulate("p1", udp())
        assert isinstance(result, Forward | Drop)
        assert result.program.mask.l4_dst == expected


def test_rules_after_the_decision_record_nothing() -> None:
    result = guarded(rule("accept"), rule("drop", ip_proto=17)).simulate("p1", udp())
    assert isinstance(result, Forward)
    assert result.program.mask.ip_proto == 0


def test_mac_masks_of_rules_are_recorded_as_the_whole_mac() -> None:
    result = guarded(rule("drop", eth_dst=M3, eth_dst_mask=0xFF)).simulate("p1", udp())
    assert isinstance(result, Forward)
    assert result.program.mask.eth_dst == (1 << 48) - 1
    assert parse_mac(M3) != parse_mac(M2)
