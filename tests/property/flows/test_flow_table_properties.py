"""Whatever happens to a flow table, it stays consistent and sound.

The datapath is modelled as the dictionary that the plans are applied to, so the properties
cover what a shell that follows the plans ends up with.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from midonet.agent.flows.classification import EXACT_MASK, covers, masked
from midonet.agent.flows.mask import EMPTY_MASK, FlowMask
from midonet.agent.flows.mask_list import MaskList
from midonet.agent.flows.plans import InstallPlan, MaskSlot, RemovalPlan
from midonet.agent.flows.program import FlowProgram, InstalledProgram, LocalOutput
from midonet.agent.flows.table import REJUDGE_BUDGET_NS, FlowTable
from midonet.agent.flows.tag_index import regions_overlap
from midonet.agent.flows.tags import FlowTag, RouteRegion, device_tag
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion
from midonet.packets.flowkey import FlowKey

CAPACITY = 12
QUOTA = 7
SLOTS = 4
PORTS = tuple(PortId(UUID(int=i)) for i in (1, 2, 3))
SECOND = 1_000_000_000

small = st.integers(0, 3)


def flow_key(eth_dst: int, ip_dst: int, l4_src: int, l4_dst: int) -> FlowKey:
    return FlowKey(eth_dst, 0, ip_dst=ip_dst, l4_src=l4_src, l4_dst=l4_dst)


keys = st.builds(flow_key, small, small, small, small)
whole_field = st.sampled_from([0, 0, 3])
masks = st.builds(flow_key, whole_field, whole_field, st.just(0), whole_field) | st.just(EXACT_MASK)
tags = st.frozensets(st.builds(lambda i: device_tag(UUID(int=100 + i)), small), max_size=3)
regions = st.frozensets(
    st.builds(
        lambda value, length: RouteRegion(UUID(int=7), IpVersion.V4, value << 29, length),
        st.integers(0, 7),
        st.integers(0, 3),
    ),
    max_size=2,
)
programs = st.builds(
    FlowProgram,
    ingress=st.sampled_from(PORTS),
    key=keys,
    mask=masks,
    outputs=st.builds(lambda port: (LocalOutput(port),), st.sampled_from(PORTS)),
    tags=tags,
    regions=regions,
    lifetime_s=st.sampled_from([1.0, 5.0, 60.0]),
)


@dataclass(frozen=True)
class Change:
    revision: int
    tags: frozenset[FlowTag]
    regions: frozenset[RouteRegion]
    urgent: frozenset[FlowTag]


def depends(program: FlowProgram, change: Change) -> bool:
    return bool(program.tags & (change.tags | change.urgent)) or any(
        regions_overlap(changed, region) for changed in change.regions for region in program.regions
    )


class FlowTableMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.table = FlowTable(CAPACITY, port_quota=QUOTA, masks_per_port=SLOTS)
        self.now = 0
        self.revision = 0
        self.changes: list[Change] = []
        self.installed: dict[int, InstalledProgram] = {}
        self.masks: dict[MaskSlot, FlowMask] = {}

    def apply_removal(self, plan: RemovalPlan) -> None:
        for entry in plan.remove:
            assert self.installed.pop(entry.program_id) == entry
        for slot in plan.free_masks:
            del self.masks[slot]

    @rule(program=programs, age=st.integers(0, 3), judged=st.integers(0, CAPACITY))
    def install(self, program: FlowProgram, age: int, judged: int) -> None:
        view = max(0, self.revision - age)
        is_stale = any(c.revision > view and depends(program, c) for c in self.changes)
        plan = self.table.plan_install(program, view, self.now, in_place_of=judged or None)
        assert isinstance(plan, InstallPlan) is not is_stale
        if not isinstance(plan, InstallPlan):
            return
        self.apply_removal(RemovalPlan(plan.evicted))
        self.installed[plan.entry.program_id] = plan.entry
        self.masks[MaskSlot(program.ingress, plan.entry.mask_id)] = plan.entry.mask
        self.apply_removal(RemovalPlan(plan.superseded, plan.free_masks))
        assert self.installed[plan.entry.program_id] == plan.entry

    @rule(tags=tags, regions=regions, urgent=tags)
    def invalidate(
        self,
        tags: frozenset[FlowTag],
        regions: frozenset[RouteRegion],
        urgent: frozenset[FlowTag],
    ) -> None:
        self.revision += 1
        change = Change(self.revision, tags, regions, urgent)
        self.changes.append(change)
        before = set(self.installed)
        affected = {i for i in before if depends(self.installed[i].program, change)}
        at_once = {i for i in before if self.installed[i].program.tags & urgent}
        plan = self.table.invalidate(change, self.now)
        assert plan.removal == RemovalPlan()
        first, rest = plan.rejudge[: plan.urgent], plan.rejudge[plan.urgent :]
        assert {entry.program_id for entry in first} == at_once
        assert {entry.program_id for entry in rest} == affected - at_once
        assert all(self.table.is_urgent(program_id) for program_id in at_once)

    @rule(ids=st.sets(st.integers(0, CAPACITY + 1)))
    def remove(self, ids: set[int]) -> None:
        self.apply_removal(self.table.plan_remove(ids))
        assert not ids & set(self.installed)

    @rule(port=st.sampled_from(PORTS))
    def forget_port(self, port: PortId) -> None:
        gone = {entry.program_id for entry in self.table.forget_port(port)}
        assert gone == {i for i, e in self.installed.items() if e.program.ingress == port}
        self.installed = {i: e for i, e in self.installed.items() if i not in gone}
        self.masks = {s: mask for s, mask in self.masks.items() if s.port_id != port}

    @rule(step=st.sampled_from([1, REJUDGE_BUDGET_NS, SECOND, 60 * SECOND]))
    def pass_time(self, step: int) -> None:
        self.now += step
        self.apply_removal(self.table.expire(self.now))
        due = self.table.next_due_ns
        assert due is None or due > self.now
        if step == 60 * SECOND:
            assert not self.installed

    @invariant()
    def table_and_datapath_hold_the_same(self) -> None:
        assert {entry.program_id: entry for entry in self.table} == self.installed
        assert len(self.installed) <= CAPACITY
        assert all(1 <= program_id <= CAPACITY for program_id in self.installed)

    @invariant()
    def quotas_and_mask_lists_hold(self) -> None:
        for port in PORTS:
            mine = [e for e in self.installed.values() if e.program.ingress == port]
            assert len(mine) <= QUOTA
            assert len({(e.mask_id, e.key) for e in mine}) == len(mine)
            listed = dict(self.table.masks(port))
            assert len(listed) <= SLOTS
            in_use = {e.mask_id: e.mask for e in mine}
            assert {**listed, **in_use} == listed
            assert set(listed) - {0} == set(in_use) - {0}
            held = {slot.mask_id: mask for slot, mask in self.masks.items() if slot.port_id == port}
            assert {0: EXACT_MASK, **held} == {0: EXACT_MASK, **listed}

    @invariant()
    def every_program_finds_itself_or_an_overlapping_one(self) -> None:
        for entry in self.installed.values():
            assert covers(entry.mask, entry.program.mask)
            assert entry.key == masked(entry.program.key, entry.mask)
            assert self.table.lookup(entry.program.ingress, entry.program.key) is not None

    @rule(port=st.sampled_from(PORTS), key=keys)
    def lookup_is_sound_and_complete(self, port: PortId, key: FlowKey) -> None:
        found = self.table.lookup(port, key)
        if found is not None:
            assert found.program.ingress == port
            mask = found.program.mask
            assert masked(key, mask) == masked(found.program.key, mask)
        matching = [
            e
            for e in self.installed.values()
            if e.program.ingress == port and masked(key, e.mask) == e.key
        ]
        assert (found in matching) if matching else found is None


FlowTableMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=50)
TestFlowTable = FlowTableMachine.TestCase


class MaskListMachine(RuleBasedStateMachine):
    """The list against a plain count of references."""

    def __init__(self) -> None:
        super().__init__()
        self.masks = MaskList()
        self.held: list[tuple[int, FlowMask]] = []

    @rule(mask=st.builds(lambda bits: EMPTY_MASK._replace(ip_dst=bits), st.integers(0, 255)))
    def place(self, mask: FlowMask) -> None:
        before = dict(self.masks)
        slot = self.masks.place(mask)
        given = self.masks.mask(slot)
        assert covers(given, mask)
        if given != mask:
            assert len(before) == 32
            assert mask not in before.values()
        self.held.append((slot, given))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if not self.held:
            return
        slot, mask = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        still_held = any(other == slot for other, _ in self.held)
        assert self.masks.release(slot) is (not still_held and slot != 0)
        assert still_held or slot == 0 or mask not in dict(self.masks).values()

    @invariant()
    def slots_in_use_keep_their_masks(self) -> None:
        listed = dict(self.masks)
        assert len(listed) <= 32
        assert listed[0] == EXACT_MASK
        assert all(listed[slot] == mask for slot, mask in self.held)
        assert len(set(listed.values())) == len(listed)


MaskListMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=60)
TestMaskList = MaskListMachine.TestCase
