"""A packet that hits an installed program gets exactly what simulation says of it.

No datapath is involved: the flow table tells which program a datapath finds.
"""

from __future__ import annotations

from collections import Counter

import pytest

from midonet.agent.flows.classification import covers, masked
from midonet.agent.simulation.result import Drop, Forward
from tests.differential.judging import (
    Case,
    check_hit,
    install_all,
    passes_guards,
    same_program,
    synthesised,
)

BLOCKS = 10
NETWORKS_PER_BLOCK = 50
PACKETS = 25
RELATED = 60


@pytest.mark.parametrize("block", range(BLOCKS))
def test_hit_of_an_installed_program_equals_simulation(block: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(block * NETWORKS_PER_BLOCK, (block + 1) * NETWORKS_PER_BLOCK):
        case = Case(seed, packets=PACKETS, history=seed % 3 * 20)
        install_all(case, case.first)
        for sent in (*case.first, *case.related(RELATED)):
            seen[check_hit(case, sent)] += 1
    # The comparison must not become empty without notice.
    assert min(seen["hit"], seen["miss"], seen["guard"]) > NETWORKS_PER_BLOCK, seen


def test_recorded_mask_alone_is_sound() -> None:
    """Without help from narrower installed masks: every packet of the class, one by one."""
    compared = 0
    for seed in range(10_000, 10_060):
        case = Case(seed, packets=12)
        related = case.related(60)
        for sent in case.first:
            result = case.simulate(sent)
            if not isinstance(result, Forward | Drop) or result.program.slow_path is not None:
                continue
            program = result.program
            wanted = masked(sent.packet.key, program.mask)
            for other in related:
                if other.port_id != sent.port_id:
                    continue
                if masked(other.packet.key, program.mask) != wanted:
                    continue
                if not passes_guards(program, other.packet):
                    continue
                again = case.simulate(other)
                compared += 1
                assert isinstance(again, Forward | Drop), case.explain(other)
                assert same_program(program, again.program), case.explain(other)
    assert compared > 100


def test_a_minimal_frame_of_the_same_key_leads_to_the_same_program() -> None:
    """Programs are judged again from their key alone."""
    compared = 0
    for seed in range(20_000, 20_100):
        case = Case(seed, packets=PACKETS)
        for sent in case.first:
            result = case.simulate(sent)
            if not isinstance(result, Forward | Drop) or result.program.slow_path is not None:
                continue
            small = synthesised(sent)
            if small is None:
                continue
            again = case.simulate(small)
            compared += 1
            assert isinstance(again, Forward | Drop), case.explain(sent)
            assert same_program(result.program, again.program), case.explain(sent)
    assert compared > 500


def test_placed_mask_covers_the_recorded_one() -> None:
    for seed in range(30_000, 30_030):
        case = Case(seed, packets=PACKETS)
        for plan in install_all(case, case.first):
            assert covers(plan.entry.mask, plan.entry.program.mask)
