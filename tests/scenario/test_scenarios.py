"""Every named network, simulated as built by hand and as read back from a store."""

from __future__ import annotations

import pytest

from midonet.agent.flows.drop_reason import DropReason
from tests.scenario import (
    advertising,
    answering,
    bridging,
    crossing,
    dhcp,
    filtering,
    forwarding,
    grouping,
    long_chains,
    marking,
    masquerading,
    mirroring,
    neighbours,
    redirecting,
    refusing,
    resolution,
    routing,
    scopes,
    securing,
    stations,
    translating,
    vlans,
)
from tests.scenario.balanced_networks import KINDS
from tests.scenario.balancing import Talk
from tests.scenario.balancing_paths import BEHAVIOURS
from tests.scenario.live_host import live_host
from tests.scenario.running import BuiltLane, Network, Scenario, run
from tests.scenario.stored import stored

SCENARIOS: list[Scenario] = [
    *bridging.SCENARIOS,
    *routing.SCENARIOS,
    *resolution.SCENARIOS,
    *filtering.SCENARIOS,
    *grouping.SCENARIOS,
    *long_chains.SCENARIOS,
    *scopes.SCENARIOS,
    *securing.SCENARIOS,
    *stations.SCENARIOS,
    *answering.SCENARIOS,
    *neighbours.SCENARIOS,
    *refusing.SCENARIOS,
    *vlans.SCENARIOS,
    *translating.SCENARIOS,
    *mirroring.SCENARIOS,
    *marking.SCENARIOS,
    *redirecting.SCENARIOS,
    *dhcp.SCENARIOS,
    *masquerading.SCENARIOS,
    *forwarding.SCENARIOS,
    *crossing.SCENARIOS,
    *advertising.SCENARIOS,
]


def named(scenarios: list[Scenario]) -> list[object]:
    return [pytest.param(scenario, id=scenario.name) for scenario in scenarios]


@pytest.mark.parametrize("scenario", named(SCENARIOS))
async def test_scenario_as_built(scenario: Scenario) -> None:
    world = scenario.make()
    await run(scenario, BuiltLane(world), world)


@pytest.mark.parametrize("scenario", named([one for one in SCENARIOS if not one.only_simulated]))
async def test_scenario_as_stored(scenario: Scenario) -> None:
    world = scenario.make()
    async with stored(world) as lane:
        await run(scenario, lane, world)


DATAPATH_ONLY = {
    DropReason.OFFLOAD_MISMATCH: "offload metadata are the datapath's",
    DropReason.UNKNOWN_TUNNEL_KEY: "overlay packets are delivered without simulation",
    DropReason.UNKNOWN_PEER: "overlay packets are delivered without simulation",
    DropReason.OVERLAY_MALFORMED: "overlay packets are delivered without simulation",
    DropReason.OVERLAY_STRAY: "overlay packets are delivered without simulation",
    DropReason.UPCALL_RATE: "a budget of the datapath",
    DropReason.UPCALL_RING_FULL: "a queue between the datapath and the agent",
    DropReason.AWAIT_TIMEOUT: "the agent waits, simulation never does",
    DropReason.AWAIT_QUEUE_FULL: "the agent waits, simulation never does",
    DropReason.INTERFACE_GONE: "interfaces are the datapath's",
    DropReason.INTERNAL: "a fault of the agent",
    DropReason.ENCAP_FAILED: "headers are written by the datapath",
    DropReason.PORT_NOT_ATTACHED: "interfaces are the datapath's",
    DropReason.REWRITE_FAILED: "headers are written by the datapath",
    DropReason.UPCALL_TOO_OLD: "packets wait in the agent, not in simulation",
    DropReason.COPY_RATE: "budgets are the datapath's",
    DropReason.NOT_UNDERSTOOD: "flags and fields are read by the datapath",
    DropReason.UNSETTLED: "the agent simulates again, simulation never does",
    DropReason.PACKET_CUT: "simulation sees headers only",
    DropReason.NOT_REINJECTED: "packets go back into the datapath",
    DropReason.OUTPUT_GONE: "outputs are the datapath's",
    DropReason.INJECTION_FAILED: "packets go back into the datapath",
    DropReason.GENERATED_LIMIT: "the agent sends what devices generate",
    DropReason.CONNECTION_LIMIT: "connections are entered by the agent",
    DropReason.REFUSAL_RATE: "a budget of the agent",
}
"""Reasons that simulation never gives, and why."""


async def test_every_reason_to_drop_is_observed() -> None:
    """What simulation really gave, not what the scenarios expect of it."""
    observed: set[DropReason | None] = set()
    for scenario in SCENARIOS:
        world = scenario.make()
        network = Network(BuiltLane(world), world, world.soft_state())
        observed |= {(await network.judge(step)).reason for step in scenario.steps}
    for behaviour in BEHAVIOURS:
        if behaviour.kind == KINDS[0]:
            async with live_host(behaviour.make()) as host:
                await behaviour.happens(Talk(host, behaviour.kind))
                observed |= host.reasons
    assert set(DropReason) - observed == set(DATAPATH_ONLY)


def test_scenarios_are_named_apart() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(names) == len(set(names))
