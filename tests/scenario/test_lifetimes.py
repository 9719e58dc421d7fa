"""How long a program of a scenario stands: a minute, or 5 s for what is likely to pass."""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.simulation.result import Await, Drop, Forward
from midonet.agent.simulation.simulate import simulate
from midonet.packets.frame import parse_frame
from tests.scenario.test_scenarios import SCENARIOS
from tests.worlds import NOW

BY_CONFIGURATION = frozenset(
    (
        DropReason.FILTERED,
        DropReason.REJECTED,
        DropReason.PORT_DOWN,
        DropReason.DEVICE_DOWN,
        DropReason.SOURCE_MAC_MULTICAST,
        DropReason.VLAN_MISMATCH,
        DropReason.LINK_LOCAL_FRAME,
        DropReason.NOT_FOR_ROUTER,
        DropReason.UNSUPPORTED_ETHERTYPE,
        DropReason.SOURCE_ADDRESS_INVALID,
        DropReason.DESTINATION_ADDRESS_INVALID,
        DropReason.NO_PORT_ADDRESS,
        DropReason.NO_FLOOD_TARGET,
        DropReason.UNDERLAY_SPOOF,
    )
)
"""What stays so until somebody changes the network, which is noticed."""

IN_ERROR = frozenset(
    (
        DropReason.LOOP_LIMIT,
        DropReason.HAIRPIN,
        DropReason.NO_ROUTE,
        DropReason.BLACKHOLE_ROUTE,
        DropReason.LOCAL_NOT_HANDLED,
        DropReason.PORT_UNPLUGGED,
        DropReason.NO_LOCATION,
        DropReason.NO_TUNNEL,
        DropReason.MISSING_DEVICE,
        DropReason.MISSING_CHAIN,
        DropReason.CHAIN_LIMIT,
        DropReason.MTU_EXCEEDED,
    )
)


def test_lifetimes_follow_the_reason() -> None:
    lifetimes: dict[DropReason | None, set[float]] = {}
    for scenario in SCENARIOS:
        world = scenario.make()
        view, soft_state = world.view(), world.soft_state()
        for step in scenario.steps:
            packet = parse_frame(step.frame)
            result = simulate(view, soft_state, packet, world.port_id(step.port), NOW)
            if isinstance(result, Await):
                continue
            soft_state.apply(result.effects)
            if isinstance(result, Forward | Drop) and result.program.slow_path is None:
                program = result.program
                if program.connection is None:
                    lifetimes.setdefault(program.drop_reason, set()).add(program.lifetime_s)
    assert lifetimes[None] == {60.0}
    for reason in BY_CONFIGURATION & lifetimes.keys():
        assert lifetimes[reason] == {60.0}, reason
    for reason in IN_ERROR & lifetimes.keys():
        assert lifetimes[reason] == {5.0}, reason
    assert len(BY_CONFIGURATION & lifetimes.keys()) > 8
    assert len(IN_ERROR & lifetimes.keys()) > 8
