"""The flow table: placement, eviction, expiry, invalidation."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from midonet.agent.flows.classification import EXACT_MASK, masked
from midonet.agent.flows.fact_filter import filter_of
from midonet.agent.flows.invalidation import InvalidationLog
from midonet.agent.flows.plans import (
    InstallOutcome,
    InstallPlan,
    MaskSlot,
    Refusal,
    RefusalReason,
)
from midonet.agent.flows.program import (
    FlowProgram,
    InstalledProgram,
    LearnedMac,
    SlowPathReason,
)
from midonet.agent.flows.table import REJUDGE_BUDGET_NS, URGENT_BUDGET_NS, FlowTable
from midonet.agent.flows.tags import RouteRegion
from midonet.errors import InternalError
from midonet.model.ids import BridgeId
from midonet.packets.addresses import IpVersion
from midonet.packets.flowkey import FlowKey
from tests.unit.agent.flows.flow_samples import (
    OTHER_PORT,
    PORT,
    SECOND,
    Change,
    Used,
    drop_program,
    l4_mask,
    program,
    tag,
)


def install(
    table: FlowTable,
    value: FlowProgram,
    *,
    revision: int = 0,
    now_ns: int = 0,
    in_place_of: int | None = None,
) -> InstallPlan:
    plan = table.plan_install(value, revision, now_ns, in_place_of=in_place_of)
    assert isinstance(plan, InstallPlan)
    return plan


def refusal(table: FlowTable, value: FlowProgram, revision: int = 0) -> RefusalReason:
    plan = table.plan_install(value, revision, 0)
    assert isinstance(plan, Refusal)
    return plan.reason


def test_an_installed_program_is_found_by_every_key_of_its_class() -> None:
    table = FlowTable(8)
    plan = install(table, program(5))
    assert plan.outcome is InstallOutcome.NEW
    assert plan.entry.program_id >= 1
    assert plan.entry.key == masked(plan.entry.program.key, plan.entry.mask)
    assert table.lookup(PORT, FlowKey(5, 99, 0x0800, l4_dst=80)) == plan.entry
    assert table.lookup(PORT, FlowKey(6, 99)) is None
    assert table.lookup(OTHER_PORT, FlowKey(5, 99)) is None
    assert table.get(plan.entry.program_id) == plan.entry
    assert list(table) == [plan.entry]


def test_a_program_of_the_same_class_takes_over_the_id() -> None:
    table = FlowTable(8)
    first = install(table, program(5, tags=frozenset({tag(1)})))
    second = install(table, drop_program(5))
    assert second.outcome is InstallOutcome.REPLACED
    assert second.entry.program_id == first.entry.program_id
    assert len(table) == 1
    assert table.invalidate(Change(1, tags=frozenset({tag(1)})), 0).rejudge == ()


def test_the_same_program_again_only_lives_longer() -> None:
    table = FlowTable(8)
    install(table, program(5, lifetime_s=10.0))
    again = install(table, program(5, lifetime_s=10.0), now_ns=5 * SECOND)
    assert again.outcome is InstallOutcome.UNCHANGED
    assert table.expire(12 * SECOND).remove == ()
    assert table.expire(15 * SECOND).remove == (again.entry,)
    assert table.next_due_ns is None


def test_two_ports_with_one_key_have_separate_programs() -> None:
    table = FlowTable(8)
    first = install(table, program(5))
    second = install(table, program(5, ingress=OTHER_PORT))
    assert first.entry.program_id != second.entry.program_id
    assert table.lookup(OTHER_PORT, FlowKey(5, 0)) == second.entry


def test_a_slow_path_program_is_refused() -> None:
    value = replace(program(), slow_path=SlowPathReason.GENERATED)
    assert refusal(FlowTable(8), value) is RefusalReason.SLOW_PATH


def test_a_program_judged_on_a_superseded_fact_is_refused() -> None:
    table = FlowTable(8, log=InvalidationLog(max_changes=1))
    region = RouteRegion(UUID(int=7), IpVersion.V4, 0x0A000000, 8)
    table.invalidate(Change(3, tags=frozenset({tag(1)}), regions=frozenset({region})), 0)
    value = program(tags=frozenset({tag(1)}))
    assert refusal(table, value, revision=2) is RefusalReason.STALE
    routed = program(regions=frozenset({region._replace(length=32)}))
    assert refusal(table, routed, revision=2) is RefusalReason.STALE
    assert len(table) == 0
    assert table.masks(PORT) == ()
    install(table, value, revision=3)
    table.invalidate(Change(4), 0)
    assert refusal(table, program(9), revision=2) is RefusalReason.HISTORY_GONE


def test_when_a_port_is_full_its_own_least_recently_used_program_goes() -> None:
    table = FlowTable(100, port_quota=2)
    neighbour = install(table, program(1, ingress=OTHER_PORT), now_ns=0)
    old = install(table, program(1), now_ns=1)
    install(table, program(2), now_ns=2)
    table.observe({old.entry.program_id: Used(5), 77: Used(5)})
    plan = install(table, program(3), now_ns=6)
    assert [entry.program.key.eth_dst for entry in plan.evicted] == [2]
    assert plan.free_masks == ()
    assert table.lookup(OTHER_PORT, FlowKey(1, 0)) == neighbour.entry


def test_a_full_table_takes_from_the_port_that_holds_most() -> None:
    table = FlowTable(3)
    quiet = install(table, program(1, ingress=OTHER_PORT), now_ns=0)
    install(table, program(1), now_ns=1)
    install(table, program(2), now_ns=2)
    plan = install(table, program(2, ingress=OTHER_PORT), now_ns=3)
    assert [(e.program.ingress, e.program.key.eth_dst) for e in plan.evicted] == [(PORT, 1)]
    assert table.get(quiet.entry.program_id) == quiet.entry
    assert plan.entry.program_id == plan.evicted[0].program_id
    assert len(table) == 3


def test_eviction_frees_masks_that_nothing_uses_any_more() -> None:
    table = FlowTable(1)
    first = install(table, program(mask=l4_mask(1)))
    plan = install(table, program(mask=l4_mask(2)))
    assert plan.evicted == (first.entry,)
    assert plan.free_masks == (MaskSlot(PORT, first.entry.mask_id),)
    assert plan.entry.mask_id != first.entry.mask_id


def test_freed_ids_come_back_only_when_the_fresh_ones_are_used() -> None:
    table = FlowTable(3)
    first = install(table, program(1)).entry.program_id
    table.plan_remove([first, 99])
    others = [install(table, program(i)).entry.program_id for i in (2, 3, 4)]
    assert others == [2, 3, first]


def test_a_full_mask_list_narrows_the_class_and_stays_sound() -> None:
    table = FlowTable(100, masks_per_port=2)
    install(table, program(mask=l4_mask(0xFF), key=FlowKey(0, 0, l4_dst=0x0101)))
    plan = install(table, program(mask=l4_mask(0x100), key=FlowKey(1, 2, l4_dst=0x0102)))
    assert plan.entry.mask == EXACT_MASK
    assert table.lookup(PORT, FlowKey(1, 2, l4_dst=0x0102)) == plan.entry
    assert table.lookup(PORT, FlowKey(1, 3, l4_dst=0x0102)) is None


def test_a_changed_tag_asks_for_judgement_most_recently_used_first() -> None:
    table = FlowTable(8)
    ids = [
        install(table, program(i, tags=frozenset({tag(1)})), now_ns=i).entry.program_id
        for i in (1, 2, 3)
    ]
    other = install(table, program(4, tags=frozenset({tag(2)})))
    table.observe({ids[0]: Used(50)})
    plan = table.invalidate(Change(1, tags=frozenset({tag(1)})), 100)
    assert [entry.program_id for entry in plan.rejudge] == [ids[0], ids[2], ids[1]]
    assert plan.removal.remove == ()
    assert plan.deadline_ns == 100 + REJUDGE_BUDGET_NS
    assert table.pending == plan.rejudge
    assert len(table) == 4
    assert {entry.program_id for entry in table.expire(plan.deadline_ns).remove} == set(ids)
    assert list(table) == [other.entry]


def test_programs_with_an_urgent_tag_are_judged_first_and_soon() -> None:
    table = FlowTable(8)
    urgent = install(table, program(1, mask=l4_mask(1), tags=frozenset({tag(1), tag(2)})))
    slow = install(table, program(2, tags=frozenset({tag(2)})))
    table.observe({slow.entry.program_id: Used(9)})
    change = Change(1, tags=frozenset({tag(2)}), urgent=frozenset({tag(1)}))
    plan = table.invalidate(change, 0)
    assert (plan.rejudge, plan.urgent) == ((urgent.entry, slow.entry), 1)
    removal = table.expire(URGENT_BUDGET_NS)
    assert removal.remove == (urgent.entry,)
    assert removal.free_masks == (MaskSlot(PORT, urgent.entry.mask_id),)


def test_a_second_change_does_not_extend_the_time_to_be_judged() -> None:
    table = FlowTable(8)
    install(table, program(tags=frozenset({tag(1)})))
    table.invalidate(Change(1, tags=frozenset({tag(1)})), 0)
    plan = table.invalidate(Change(2, tags=frozenset({tag(1)})), REJUDGE_BUDGET_NS - 1)
    assert len(plan.rejudge) == 1
    assert len(table.expire(REJUDGE_BUDGET_NS).remove) == 1


def test_a_program_judged_again_in_its_class_keeps_its_id_and_lives_on() -> None:
    table = FlowTable(8)
    first = install(table, program(5, tags=frozenset({tag(1)})))
    table.invalidate(Change(1, tags=frozenset({tag(1)})), 0)
    again = install(
        table,
        program(5, egress=OTHER_PORT, tags=frozenset({tag(1)})),
        revision=1,
        in_place_of=first.entry.program_id,
    )
    assert again.outcome is InstallOutcome.REPLACED
    assert again.entry.program_id == first.entry.program_id
    assert again.superseded == ()
    assert table.pending == ()
    assert table.expire(REJUDGE_BUDGET_NS).remove == ()


def test_a_program_judged_again_into_another_class_supersedes_the_old_one() -> None:
    table = FlowTable(8)
    first = install(table, program(5, tags=frozenset({tag(1)})))
    table.invalidate(Change(1, tags=frozenset({tag(1)})), 0)
    wider = program(key=first.entry.program.key, mask=l4_mask(0))
    plan = install(table, wider, revision=1, in_place_of=first.entry.program_id)
    assert plan.superseded == (first.entry,)
    assert plan.free_masks == (MaskSlot(PORT, first.entry.mask_id),)
    assert list(table) == [plan.entry]


def test_in_a_full_table_the_program_being_judged_is_evicted_last() -> None:
    table = FlowTable(2)
    judged = install(table, program(1), now_ns=0).entry
    victim = install(table, program(2), now_ns=1).entry
    plan = install(table, program(mask=l4_mask(0)), now_ns=2, in_place_of=judged.program_id)
    assert plan.evicted == (victim,)
    assert plan.superseded == (judged,)
    lone = FlowTable(1)
    judged = install(lone, program(1)).entry
    plan = install(lone, program(mask=l4_mask(0)), in_place_of=judged.program_id)
    assert plan.evicted == (judged,)
    assert plan.superseded == ()
    assert list(lone) == [plan.entry]


def test_programs_expire_in_the_order_of_their_lifetimes() -> None:
    table = FlowTable(8)
    short = install(table, program(1, lifetime_s=5.0)).entry
    long = install(table, program(2, lifetime_s=300.0)).entry
    assert table.next_due_ns == 5 * SECOND
    assert table.expire(5 * SECOND - 1).remove == ()
    assert table.expire(5 * SECOND).remove == (short,)
    assert table.expire(400 * SECOND).remove == (long,)
    assert table.expire(400 * SECOND).remove == ()


def test_expiry_can_be_done_in_portions() -> None:
    table = FlowTable(8)
    entries = [install(table, program(i, lifetime_s=float(i))).entry for i in (1, 2, 3)]
    assert table.expire(60 * SECOND, limit=2).remove == (entries[0], entries[1])
    assert table.next_due_ns == 3 * SECOND
    assert table.expire(60 * SECOND, limit=2).remove == (entries[2],)
    assert table.next_due_ns is None


def test_forgetting_a_port_forgets_its_programs_and_masks() -> None:
    table = FlowTable(8)
    gone = install(table, program(1, tags=frozenset({tag(1)}))).entry
    kept = install(table, program(1, ingress=OTHER_PORT)).entry
    assert table.forget_port(PORT) == (gone,)
    assert table.forget_port(PORT) == ()
    assert table.masks(PORT) == ()
    assert list(table) == [kept]
    assert table.invalidate(Change(1, tags=frozenset({tag(1)})), 0).rejudge == ()


def test_learned_macs_stay_alive_while_their_programs_are_used() -> None:
    table = FlowTable(8)
    bridge = BridgeId(UUID(int=5))
    first, second = (LearnedMac(bridge, 0, mac, PORT) for mac in (1, 2))
    used = install(table, program(1, learned=(first,))).entry
    install(table, program(2, learned=(second,)))
    assert table.learned_in_use(0) == {first, second}
    table.observe({used.program_id: Used(10 * SECOND)})
    assert table.learned_in_use(5 * SECOND) == {first}
    # A time from before belongs to a former program of the same id.
    table.observe({used.program_id: Used(SECOND)})
    assert table.learned_in_use(5 * SECOND) == {first}
    assert table.learned_in_use(11 * SECOND) == frozenset()


def test_many_refreshes_do_not_grow_the_table_without_bound() -> None:
    table = FlowTable(8)
    for now in range(1000):
        install(table, program(1), now_ns=now)
    assert len(table) == 1
    assert table.expire(999 + 60 * SECOND).remove != ()
    assert table.next_due_ns is None


def test_adopted_programs_are_judged_again_or_go_at_the_deadline() -> None:
    source = FlowTable(8)
    kept = [install(source, program(i)).entry for i in (1, 2, 3)]
    source.plan_remove([kept[1].program_id])
    wrong_id = replace(kept[0], program_id=9)
    same_class = replace(kept[0], program_id=5)
    wrong_key = InstalledProgram(6, 1, kept[0].mask, FlowKey(1, 1), kept[0].program)
    table = FlowTable(8)
    plan = table.adopt([kept[0], wrong_id, same_class, wrong_key, kept[2]], deadline_ns=SECOND)
    assert plan.removal.remove == (wrong_id, same_class, wrong_key)
    assert set(plan.rejudge) == {kept[0], kept[2]}
    again = install(table, program(1), in_place_of=kept[0].program_id)
    assert again.entry.program_id == kept[0].program_id
    assert {install(table, program(i)).entry.program_id for i in range(10, 16)} == {
        2,
        4,
        5,
        6,
        7,
        8,
    }
    assert table.expire(SECOND).remove == (kept[2],)
    with pytest.raises(InternalError):
        table.adopt([], 0)


def read_back(entry: InstalledProgram) -> InstalledProgram:
    """Return what a datapath knows of a program after a restart of the agent."""
    blind = replace(entry.program, tags=frozenset(), regions=frozenset())
    return replace(entry, program=blind, facts=filter_of(entry.program))


def test_an_urgent_change_reaches_adopted_programs() -> None:
    """Nobody has judged them again yet, and perhaps nobody can: the store may be away."""
    source = FlowTable(8)
    made = [install(source, program(i, tags=frozenset({tag(i)}))).entry for i in (1, 2, 3)]
    table = FlowTable(8)
    table.adopt(map(read_back, made), deadline_ns=SECOND)
    plan = table.invalidate(Change(1, urgent=frozenset({tag(2)})), 0)
    assert [entry.program_id for entry in plan.rejudge[: plan.urgent]] == [made[1].program_id]
    assert len(table.expire(URGENT_BUDGET_NS).remove) == 1
    install(table, program(3, tags=frozenset({tag(7)})), revision=1)
    assert table.invalidate(Change(2, urgent=frozenset({tag(3)})), 0).rejudge == ()


def test_adopted_programs_in_use_are_judged_first() -> None:
    source = FlowTable(8)
    made = [install(source, program(i)).entry for i in (1, 2, 3)]
    used = {made[1].program_id: Used(20), made[2].program_id: Used(30)}
    plan = FlowTable(8).adopt(map(read_back, made), SECOND, used)
    assert [entry.program_id for entry in plan.rejudge] == [
        made[index].program_id for index in (2, 1, 0)
    ]
