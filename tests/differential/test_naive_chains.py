"""Chains say of packets what the plainest reading of their rules says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.simulation.result import Await, Drop
from midonet.agent.simulation.simulate import simulate
from midonet.errors import DecodeError
from midonet.packets.frame import ParsedFrame, parse_frame
from tests.differential.naive_chains import LEFT_OUT, NaiveRule, Place, verdict
from tests.differential.networks import LOCAL_PORTS, Drawing
from tests.differential.packets import Draft, PacketSource
from tests.fuzz.soaking import FACTOR, SEED
from tests.worlds import NOW, World, rule

BLOCKS = 6 * FACTOR
CHAIN_SETS = 90
"""Sets of chains of a block."""
PACKETS = 30

_REASONS = {DropReason.FILTERED: "drop", DropReason.REJECTED: "reject"}


def draw_chains(random: Random) -> dict[str, list[NaiveRule]]:
    """Return chains that jump to each other, in circles too."""
    drawing = Drawing(random)
    names = [f"c{index}" for index in range(random.randint(1, 6))]

    def condition() -> dict[str, Any]:
        fields = drawing.condition(())
        return {name: value for name, value in fields.items() if name not in LEFT_OUT}

    chains = {}
    for name in names:
        rules = []
        for _ in range(random.randrange(7)):
            action = random.choice(("accept", "drop", "reject", "return", "jump", "jump"))
            jump = random.choice(names) if action == "jump" else None
            rules.append(NaiveRule(action, condition(), jump))
        chains[name] = rules
    return chains


def network(chains: dict[str, list[NaiveRule]], hook: str) -> World:
    """Return a bridge with the local ports; the first chain is at a hook of the first port."""
    world = World("h1")
    for name, rules in chains.items():
        world.chain(name, *(rule(one.action, jump=one.jump, **one.fields) for one in rules))
    world.bridge("b", **({"outbound": "c0"} if hook == "bridge outbound" else {}))
    for name in LOCAL_PORTS:
        inbound = "c0" if name == LOCAL_PORTS[0] and hook == "port inbound" else None
        world.port(name, on="b", host="h1", inbound=inbound)
    return world


def draw_packet(source: PacketSource) -> tuple[Draft, ParsedFrame]:
    """Return an IP packet, or a frame of a type that is not looked into."""
    while True:
        draft = source.draw()
        if draft.kind not in ("ip", "other"):
            continue
        if draft.kind == "other":
            draft = replace(draft, eth_type=0x88CC)
        try:
            return draft, parse_frame(draft.frame())
        except (DecodeError, OverflowError):
            continue


@pytest.mark.parametrize("block", range(BLOCKS))
def test_chains_say_what_their_rules_say(block: int) -> None:
    seen: Counter[str | None] = Counter()
    first = 5_000_000 * SEED + block * CHAIN_SETS
    for seed in range(first, first + CHAIN_SETS):
        random = Random(seed)
        chains = draw_chains(random)
        world = network(chains, "port inbound")
        view, soft_state = world.view(), world.soft_state()
        source = PacketSource(random)
        ingress = world.port_id(LOCAL_PORTS[0])
        for _ in range(PACKETS):
            draft, packet = draw_packet(source)
            expected = verdict(chains, "c0", draft, Place(LOCAL_PORTS[0]))
            result = simulate(view, soft_state, packet, ingress, NOW)
            assert not isinstance(result, Await)
            got = _REASONS.get(result.reason) if isinstance(result, Drop) else None
            wanted = None if expected == "accept" else expected
            assert got == wanted, f"seed {seed}: {draft}, {packet.frame.hex()}"
            seen[expected] += 1
    # Each verdict must really be met.
    assert min(seen[one] for one in ("accept", "drop", "reject", None)) > PACKETS, seen


def test_an_outbound_filter_knows_the_port_of_exit() -> None:
    seen: Counter[str | None] = Counter()
    for seed in range(60_000, 60_000 + CHAIN_SETS):
        random = Random(seed)
        chains = draw_chains(random)
        world = network(chains, "bridge outbound")
        source = PacketSource(random)
        leaving = random.choice(LOCAL_PORTS[1:])
        for _ in range(PACKETS):
            draft, packet = draw_packet(source)
            if draft.vlan or draft.eth_src & 1 << 40 or draft.eth_dst & 1 << 40:
                continue  # skips the filter, or is refused before it, or leaves by several ports
            if draft.eth_src == draft.eth_dst:
                continue
            soft_state = world.soft_state()
            soft_state.macs[_bridge(world), 0, draft.eth_dst] = world.port_id(leaving)
            place = Place(LOCAL_PORTS[0], leaving)
            expected = verdict(chains, "c0", draft, place)
            result = simulate(world.view(), soft_state, packet, world.port_id(LOCAL_PORTS[0]), NOW)
            got = _REASONS.get(result.reason) if isinstance(result, Drop) else None
            wanted = None if expected == "accept" else expected
            assert got == wanted, f"seed {seed}: {draft}, {packet.frame.hex()}"
            seen[expected] += 1
    assert min(seen[one] for one in ("accept", "drop", "reject", None)) > PACKETS, seen


def _bridge(world: World) -> Any:
    return world.id("b")
