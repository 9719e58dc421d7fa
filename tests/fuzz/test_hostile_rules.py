"""Rules made to cost much: circles of jumps, long chains, and packets made to need many masks.

Nothing here is about speed. What is looked at is that everything ends, within the bounds that the
product states, with the verdict that the rules give; and that one port's packets cost another
port nothing.
"""

from __future__ import annotations

from random import Random

import pytest

from midonet.agent.flows.classification import meets_guards
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.plans import InstallPlan
from midonet.agent.flows.table import FlowTable
from midonet.agent.simulation.result import Drop, Forward
from midonet.agent.simulation.simulate import simulate
from midonet.agent.simulation.trace import MetRule
from midonet.agent.simulation.walk import MAX_RULES
from midonet.model.chains import PortRange
from midonet.packets.frame import parse_frame
from tests.fuzz.soaking import SEED
from tests.scenario.bridging import with_rules
from tests.scenario.filtering import chains
from tests.scenario.frames import V4, V6, A, B, tcp, udp
from tests.worlds import NOW, World, rule

ROUTE4, ROUTE6 = (V4.host(1, 5), V4.host(1, 6)), (V6.host(1, 5), V6.host(1, 6))


def met(world: World, frame: bytes) -> list[MetRule]:
    """Return the rules that a packet meets, in order."""
    result = world.simulate("p1", frame, trace=True)
    assert isinstance(result, Forward | Drop)
    return [step.event for step in result.steps if isinstance(step.event, MetRule)]


def reason(world: World, frame: bytes) -> DropReason | None:
    result = world.simulate("p1", frame)
    assert isinstance(result, Forward | Drop)
    return result.reason if isinstance(result, Drop) else None


@pytest.mark.parametrize("count", [1, 2, 12, 24])
def test_chains_that_all_jump_to_each_other_are_each_met_once(count: int) -> None:
    names = ["top", *(f"c{index}" for index in range(1, count))]
    world = chains(**{
        name: tuple(rule("jump", jump=other) for other in names) for name in names
    })()  # fmt: skip
    seen = met(world, udp(ROUTE4))
    assert len(seen) == count * count
    assert len({one.rule_id for one in seen}) == count * count
    assert reason(world, udp(ROUTE4)) is None


def test_a_chain_that_jumps_to_itself_goes_on_behind_the_jump() -> None:
    world = chains(top=(rule("jump", jump="top"), rule("jump", jump="top"), rule("drop")))()
    assert reason(world, udp(ROUTE4)) is DropReason.FILTERED


def test_a_circle_behind_a_jump_of_full_depth_is_a_named_drop() -> None:
    names = ["top", *(f"c{index}" for index in range(1, 40))]
    world = chains(**{
        name: (rule("jump", jump=names[(index + 1) % len(names)]),)
        for index, name in enumerate(names)
    })()  # fmt: skip
    assert reason(world, udp(ROUTE4)) is DropReason.CHAIN_LIMIT


@pytest.mark.parametrize("position", [0, 4_999, 9_999])
def test_any_of_ten_thousand_rules_decides(position: int) -> None:
    rules = [rule("drop", ip_src=f"172.{16 + index // 256 % 16}.{index % 256}.0/24")
             for index in range(10_000)]  # fmt: skip
    rules[position] = rule("reject", l4_dst=PortRange(5000, 5000))
    world = with_rules(*rules)
    assert reason(world, udp(ROUTE4)) is DropReason.REJECTED
    assert reason(world, udp(ROUTE6)) is DropReason.REJECTED
    assert reason(world, tcp(ROUTE4)) is None
    assert reason(world, udp(ROUTE4, ports=(4000, 5001))) is None


def test_chains_of_ten_thousand_rules_one_after_the_other_end_at_the_bound() -> None:
    """Rules beyond the bound are not met: the packet is dropped by name instead."""
    count = MAX_RULES // 10_000 + 2
    long = tuple(rule("accept", ip_tos=1) for _ in range(10_000))
    bodies = {f"c{index}": long for index in range(count)}
    world = chains(top=tuple(rule("jump", jump=name) for name in bodies), **bodies)()
    assert reason(world, udp(ROUTE4)) is DropReason.RULE_LIMIT
    less = dict(list(bodies.items())[: count - 3])
    world = chains(top=tuple(rule("jump", jump=name) for name in less), **less)()
    assert reason(world, udp(ROUTE4)) is None


def many_prefixes() -> World:
    """Rules at each length of prefix, on both addresses, and ports: a mask for every mixture."""
    rules = []
    for length in range(1, 33):
        rules.append(rule("accept", ip_src=f"10.0.1.5/{length}", ip_dst=f"77.0.0.0/{length}"))
        rules.append(rule("accept", ip_dst=f"99.0.0.0/{length}", l4_dst=PortRange(length, 999)))
    for length in range(1, 129, 4):
        rules.append(rule("accept", ip_src=f"fd00:1::5/{length}", l4_src=PortRange(1, length)))
    world = World().chain("c", *rules).bridge("b").port("p1", on="b", host="h1", inbound="c")
    return world.port("p2", on="b", host="h1").port("p3", on="b", host="h1")


def crafted(random: Random) -> bytes:
    """Return a packet that leaves a prefix of the rules at some bit, with any ports."""
    ports = (random.randrange(65536), random.randrange(65536))
    if random.random() < 0.3:
        low = int.from_bytes(random.randbytes(16), "big") >> random.randrange(128)
        address = (0xFD00_0001 << 96 | 5) ^ low
        text = ":".join(f"{address >> shift & 0xFFFF:x}" for shift in range(112, -1, -16))
        return udp((text, ROUTE6[1]), ports=ports)
    parts = []
    for base in (0x0A000105, random.choice((0x4D000000, 0x63000000))):
        address = base ^ 1 << random.randrange(32) ^ random.getrandbits(32) >> random.randrange(32)
        parts.append(".".join(str(address >> shift & 0xFF) for shift in (24, 16, 8, 0)))
    make = random.choice((udp, tcp))
    return make((parts[0], parts[1]), ports=ports, tos=random.choice((0, 0x20, 0xB8)))


@pytest.mark.parametrize("masks", [32, 6, 1])
def test_packets_made_to_need_many_masks_get_few_and_the_right_programs(masks: int) -> None:
    world, random = many_prefixes(), Random(SEED)
    view, soft_state = world.view(), world.soft_state()
    attacker, victim = world.port_id("p1"), world.port_id("p2")
    table = FlowTable(2048, masks_per_port=masks)
    quiet = parse_frame(udp(ROUTE4, (B, A)), hash_seed=view.hash_seed)
    result = simulate(view, soft_state, quiet, victim, NOW)
    assert isinstance(result, Forward)
    assert isinstance(table.plan_install(result.program, 0, 0), InstallPlan)
    before = table.masks(victim)
    wanted = set()
    for _ in range(3000):
        packet = parse_frame(crafted(random), hash_seed=view.hash_seed)
        result = simulate(view, soft_state, packet, attacker, NOW)
        assert isinstance(result, Forward | Drop)
        if result.program.slow_path is not None:
            continue
        wanted.add(result.program.mask)
        held = table.lookup(attacker, packet.key)
        if held is not None:
            same = held.program.outputs, held.program.drop_reason
            assert same == (result.program.outputs, result.program.drop_reason), packet.frame.hex()
            assert meets_guards(held.program.guards, packet)
            continue
        assert isinstance(table.plan_install(result.program, 0, 0), InstallPlan)
        assert len(table.masks(attacker)) <= masks
    assert len(wanted) > 12  # else the packets are not hostile
    assert table.masks(victim) == before
    assert table.lookup(victim, quiet.key) is not None
    assert len(table) <= 2048
