"""The flow table and the memory datapath. Run: python -m bench.bench_flows

Each figure is the median of five rounds, in CPU time of this process: no round waits on
anything, and the machine may be busy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from bench.rows import Row, plain
from midonet.agent.datapath.memory import InProcessUnderlay, MemoryDatapath
from midonet.agent.datapath.protocol import PortAttachment
from midonet.agent.flows.classification import EXACT_MASK
from midonet.agent.flows.mask import EMPTY_MASK
from midonet.agent.flows.plans import InstallPlan
from midonet.agent.flows.program import FlowProgram, LocalOutput
from midonet.agent.flows.table import REJUDGE_BUDGET_NS, FlowTable
from midonet.agent.flows.tags import FlowTag, RouteRegion, device_tag
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion
from midonet.packets.flowkey import FlowKey

PROGRAMS = 10_000
TAGS_PER_PROGRAM = 12
MASKS = 8
ROUNDS = 5
INGRESS = PortId(UUID(int=1))
EGRESS = PortId(UUID(int=2))
ROUTER = UUID(int=3)
SHARED_TAG = device_tag(UUID(int=4))


@dataclass(frozen=True)
class Change:
    """Changed facts."""

    revision: int
    tags: frozenset[FlowTag] = frozenset()
    regions: frozenset[RouteRegion] = frozenset()
    urgent: frozenset[FlowTag] = frozenset()


def program(number: int) -> FlowProgram:
    """Return one of many programs with own and shared facts, under one of `MASKS` masks."""
    mask = EMPTY_MASK._replace(
        eth_dst=EXACT_MASK.eth_dst,
        eth_type=0xFFFF,
        ip_proto=0xFF,
        ip_dst=0xFFFFFFFF,
        l4_dst=0xFFFF << number % MASKS & 0xFFFF,
    )
    key = FlowKey(0x02 << 40, 0, 0x0800, ip_proto=6, ip_dst=0x0A000000 + number, l4_dst=443)
    tags = {device_tag(UUID(int=1000 + number * 4 + i)) for i in range(4)}
    tags |= {device_tag(UUID(int=100 + i)) for i in range(TAGS_PER_PROGRAM - 5)}
    region = RouteRegion(ROUTER, IpVersion.V4, 0x0A000000 + (number & ~0xFF), 24)
    return FlowProgram(
        INGRESS,
        key,
        mask,
        (LocalOutput(EGRESS),),
        tags=frozenset(tags) | {SHARED_TAG},
        regions=frozenset((region,)),
    )


def installed(table_: FlowTable, programs: list[FlowProgram]) -> list[InstallPlan]:
    """Install programs; each must find its place."""
    plans = [table_.plan_install(one, 0, 0) for one in programs]
    return [plan for plan in plans if isinstance(plan, InstallPlan)]


def cpu_seconds(action: Callable[[], object]) -> float:
    """Return the CPU time that an action takes."""
    start = time.process_time()
    action()
    return time.process_time() - start


def measure_round(programs: list[FlowProgram]) -> dict[tuple[str, str], float]:
    """Return the figures of one round by (name, unit)."""
    flow_table = FlowTable(2 * PROGRAMS)
    seconds = cpu_seconds(lambda: installed(flow_table, programs))
    figures = {("flow table: install", "programs/s"): PROGRAMS / seconds}
    seconds = cpu_seconds(lambda: [flow_table.lookup(INGRESS, one.key) for one in programs])
    figures["flow table: lookup among 8 masks", "lookups/s"] = PROGRAMS / seconds
    one_region = RouteRegion(ROUTER, IpVersion.V4, 0x0A000500, 25)
    change = Change(1, regions=frozenset((one_region,)))
    seconds = cpu_seconds(lambda: flow_table.invalidate(change, 0))
    figures["flow table: invalidate one region (256 of 10,000)", "ms"] = seconds * 1e3
    shared = Change(2, tags=frozenset((SHARED_TAG,)))
    seconds = cpu_seconds(lambda: flow_table.invalidate(shared, 0))
    figures["flow table: invalidate 10,000 to judge again", "ms"] = seconds * 1e3
    seconds = cpu_seconds(lambda: flow_table.expire(REJUDGE_BUDGET_NS))
    figures["flow table: remove 10,000 at the deadline", "ms"] = seconds * 1e3
    full = FlowTable(PROGRAMS // 2)
    seconds = cpu_seconds(lambda: installed(full, programs))
    figures["flow table: install with eviction in half of them", "programs/s"] = PROGRAMS / seconds
    return figures | measure_memory_datapath()


def measure_memory_datapath() -> dict[tuple[str, str], float]:
    """Return how many frames a second the memory datapath forwards."""
    datapath = MemoryDatapath(InProcessUnderlay(), hash_seed=1)
    for number, port_id in enumerate((INGRESS, EGRESS)):
        datapath.attach(PortAttachment(port_id, f"tap{number}"))
    plan = FlowTable(8).plan_install(program(0), 0, 0)
    if isinstance(plan, InstallPlan):
        datapath.install([plan.entry])
    header = "020000000000020000000001080045000028000040004006000001010101" + "0a000000"
    frame = bytes.fromhex(header) + bytes.fromhex("006401bb") + bytes(16)
    frames = 5000

    def forward() -> None:
        for _ in range(frames):
            datapath.receive(INGRESS, frame)

    seconds = cpu_seconds(forward)
    if datapath.statistics()[1].packets != frames:
        raise SystemExit("the memory datapath did not forward every frame")
    return {("memory datapath: forward", "frames/s"): frames / seconds}


def measure() -> list[Row]:
    """Measure all rows."""
    programs = [program(number) for number in range(PROGRAMS)]
    rounds = [measure_round(programs) for _ in range(ROUNDS)]
    return [
        plain(name, unit, [figures[name, unit] for figures in rounds]) for name, unit in rounds[0]
    ]


if __name__ == "__main__":
    for row in measure():
        print(json.dumps({"name": row.name, "value": row.value, "unit": row.unit}))
