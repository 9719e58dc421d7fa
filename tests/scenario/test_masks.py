"""What a program of a scenario is installed for: every packet of its class fares alike.

The bits of a packet that its program does not look at are drawn anew, some times, and the packet
with them is simulated again: the program is the same. (`tests/differential` does it with networks
drawn at random.)
"""

from __future__ import annotations

from random import Random

import pytest

from midonet.agent.decisions.synthesis import synthesise_frame
from midonet.agent.flows.mask import FlowMask
from midonet.agent.simulation.result import Await, Drop, Forward
from midonet.agent.simulation.simulate import simulate
from midonet.errors import DecodeError
from midonet.packets.flowkey import FlowKey
from midonet.packets.frame import ParsedFrame, parse_frame
from tests.differential.judging import passes_guards, same_program
from tests.scenario.running import Scenario
from tests.scenario.test_scenarios import SCENARIOS, named
from tests.worlds import NOW

DRAWN = 6
"""Packets of a class that are looked at beside the first."""


def like(key: FlowKey, mask: FlowMask, random: Random) -> FlowKey:
    """Return a key of the same class, with a few of its other fields drawn anew."""
    fields = {}
    for name, value, bits in zip(FlowKey._fields, key, mask, strict=True):
        if name != "flow_hash" and random.random() < 0.4:
            drawn = random.getrandbits(128) & _WIDTHS[name]
            fields[name] = value & bits | drawn & ~bits & _WIDTHS[name]
    return key._replace(**fields)


_WIDTHS = {
    "eth_dst": (1 << 48) - 1, "eth_src": (1 << 48) - 1, "eth_type": 0xFFFF, "vlan_tci": 0,
    "ip_proto": 0xFF, "ip_tos": 0xFF, "ip_frag": 0, "ip_src": 0xFFFF_FFFF,
    "ip_dst": 0xFFFF_FFFF, "l4_src": 0xFFFF, "l4_dst": 0xFFFF,
}  # fmt: skip
"""Bits of a field that may be drawn. Of addresses the low ones, which both versions have."""


def of_the_class(packet: ParsedFrame, mask: FlowMask, random: Random) -> ParsedFrame | None:
    """Return another packet of a class; None when no frame has the key that was drawn."""
    key = like(packet.key, mask, random)
    try:
        other = parse_frame(synthesise_frame(key))
    except (DecodeError, ValueError):
        return None
    same = all(a & m == b & m for a, b, m in zip(other.key, packet.key, mask, strict=True))
    return other if same else None


@pytest.mark.parametrize("scenario", named(SCENARIOS))
def test_packets_of_one_class_fare_alike(scenario: Scenario) -> None:
    world, random = scenario.make(), Random(scenario.name)
    view, soft_state = world.view(), world.soft_state()
    for step in scenario.steps:
        packet, port_id = parse_frame(step.frame), world.port_id(step.port)
        result = simulate(view, soft_state, packet, port_id, NOW)
        if isinstance(result, Await):
            continue
        if isinstance(result, Forward | Drop) and result.program.slow_path is None:
            program = result.program
            if program.mask.flow_hash:
                continue  # another packet has another hash
            for _ in range(DRAWN):
                other = of_the_class(packet, program.mask, random)
                if other is None or not passes_guards(program, other):
                    continue
                again = simulate(view, soft_state, other, port_id, NOW)
                assert isinstance(again, Forward | Drop), (step, other.frame.hex())
                assert same_program(program, again.program), (step, other.frame.hex())
        soft_state.apply(result.effects)


def test_other_packets_of_a_class_are_found() -> None:
    """Else the test above would compare nothing."""
    found = 0
    for scenario in SCENARIOS[::5]:
        world, random = scenario.make(), Random(scenario.name)
        for step in scenario.steps[:3]:
            packet = parse_frame(step.frame)
            result = simulate(
                world.view(), world.soft_state(), packet, world.port_id(step.port), NOW
            )
            if isinstance(result, Forward | Drop) and result.program.slow_path is None:
                drawn = (of_the_class(packet, result.program.mask, random) for _ in range(DRAWN))
                found += sum(other is not None and other.key != packet.key for other in drawn)
    assert found > 100
