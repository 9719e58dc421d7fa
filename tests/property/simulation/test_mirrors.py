"""Whatever is mirrored where, the packet itself fares as it would without mirrors."""

from __future__ import annotations

from copy import deepcopy
from random import Random

import pytest

from midonet.agent.flow_state.effects import ConfirmConnection
from midonet.agent.simulation.result import Await, Consume, Drop, Forward, SimulationResult
from midonet.packets.frame import parse_frame
from tests.differential.copies import draw_mirrors
from tests.differential.networks import LOCAL_PORTS, NetworkSource
from tests.differential.packets import PacketSource
from tests.worlds import World

NETWORKS, PACKETS = 250, 12


def taught(effects: tuple[object, ...]) -> list[object]:
    """Return effects without the facts that a connection depends on: mirrors are among them."""
    return [
        (one.connection, one.replaces) if isinstance(one, ConfirmConnection) else one
        for one in effects
    ]


def fate(result: SimulationResult) -> tuple[object, ...]:
    """Return what becomes of a packet, and what it teaches and is answered."""
    match result:
        case Await(what):
            return ("await", what)
        case Consume(generated, effects):
            return ("taken", generated, taught(effects))
        case Drop(reason, program, effects, generated):
            return (reason, program.learned, generated, taught(effects))
        case Forward(program, effects, generated):
            return (program.outputs, program.learned, generated, taught(effects))


def fate_beside(result: SimulationResult, alone: SimulationResult) -> tuple[object, ...]:
    """Return the fate of a packet with copies beside it, which come after its own outputs."""
    if not isinstance(result, Forward) or isinstance(alone, Await):
        return fate(result)
    program, answers = result.program, (result.generated, taught(result.effects))
    match alone:
        case Forward():
            own = program.outputs[: len(alone.program.outputs)]
            return (own, program.learned, *answers)
        case Drop(reason):
            return (reason, program.learned, *answers)
        case Consume():
            assert program.slow_path is not None, "what a device takes comes up each time"
            return ("taken", *answers)


def mirrored(world: World, random: Random) -> World:
    """Return the network with mirrors, some of them of their own copies."""
    world = deepcopy(world)
    draw_mirrors(world, random, lambda: {"ip_proto": random.choice((1, 6, 17, 58))})
    if random.random() < 0.3:
        for name in ("loop 1", "loop 2"):
            world.mirror(name, "l0", {}, outbound="l0")
        world.mirror("into the loop", "l0", {}, inbound=random.choice(LOCAL_PORTS))
    return world


@pytest.mark.parametrize("seed", range(5))
def test_mirrors_do_not_change_what_becomes_of_a_packet(seed: int) -> None:
    random = Random(seed)
    copied = 0
    for number in range(NETWORKS // 5):
        world = NetworkSource(random).draw().unwatched()
        beside = mirrored(world, random)
        source = PacketSource(random)
        for _ in range(PACKETS):
            port = random.choice(LOCAL_PORTS)
            packet = parse_frame(source.draw([]).frame())
            alone, with_copies = world.simulate(port, packet), beside.simulate(port, packet)
            expected = fate(alone)
            assert fate_beside(with_copies, alone) == expected, (seed, number, port, packet.frame)
            copied += _outputs(with_copies) - _outputs(alone)
    assert copied > 0, "no network mirrored anything"


def _outputs(result: SimulationResult) -> int:
    return len(result.program.outputs) if isinstance(result, Forward) else 0
