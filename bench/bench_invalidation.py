"""What other work waits for while many programs change. Run: python -m bench.bench_invalidation

The agent's decisions and their loop on a memory datapath, with 50,000 programs on one port. A
packet of another port is handed in as soon as the last one is done, and the time until it is
decided on is taken: idle, while the port's programs are judged again for an urgent change, while
they expire, and while the first port floods new classes. In CPU time of this process: nothing is
waited for, and the machine may be busy.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from bench.rows import Row, plain, quantile
from midonet.agent.datapath.memory import InProcessUnderlay, MemoryDatapath
from midonet.agent.datapath.protocol import PortAttachment, Upcall, UpcallReason
from midonet.agent.decisions.decisions import Decisions
from midonet.agent.decisions.upcalls import PacketLoop
from midonet.agent.flows.tags import device_tag
from midonet.agent.soft_state.replica import SoftStateReplica
from midonet.agent.topology.view import BridgeView, Location, PortView, TopologyView
from midonet.model.ids import BridgeId, HostId, PortId
from midonet.packets.addresses import parse_ip
from midonet.packets.build import Envelope, udp_frame
from midonet.runtime.clock import ManualClock
from midonet.runtime.garbage import GarbageCollection

PROGRAMS = 50_000
SECONDS = 4.0
ME = HostId(UUID(int=1))
BRIDGES = tuple(BridgeId(UUID(int=2 + number)) for number in range(2))
PORTS = tuple(PortId(UUID(int=10 + number)) for number in range(4))
"""Two ports of each bridge."""


def frame(number: int, destination: int) -> bytes:
    envelope = Envelope(
        0x020000000001, 0x020000000000 + destination, parse_ip("10.0.0.1"), parse_ip("10.0.0.2")
    )
    return udp_frame(envelope, 1000 + number % 50_000, 2000)


class Agent:
    """Decisions on two bridges with two ports each."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        # A port's share is an eighth.
        self.datapath = MemoryDatapath(
            InProcessUnderlay(), clock=self.clock, max_programs=8 * (PROGRAMS + 5_000)
        )
        soft_state = SoftStateReplica(ME, self.clock, lambda _: None)
        self.decisions = Decisions(ME, self.datapath, self.clock, soft_state, lambda _: None)
        self.loop = PacketLoop(self.datapath, self.decisions, self.clock, lambda: None)
        for port_id in PORTS:
            self.datapath.attach(PortAttachment(port_id, f"tap{port_id.int}"))
        self.decisions.view = TopologyView(
            1,
            ME,
            ports={
                port: PortView(port, bridge_id=BRIDGES[i // 2], host_id=ME)
                for i, port in enumerate(PORTS)
            },
            bridges={
                bridge: BridgeView(bridge, flood_port_ids=PORTS[2 * i : 2 * i + 2])
                for i, bridge in enumerate(BRIDGES)
            },
            locations={port: Location(ME, 1 + i, True) for i, port in enumerate(PORTS)},
        )
        self._sent = 0
        self._arrived = False
        self.datapath.subscribe(self._leaves)

    def _leaves(self, port_id: PortId, _: bytes) -> None:
        self._arrived |= port_id == PORTS[3]

    def enqueue(self, port_id: PortId, sent: bytes) -> None:
        self.decisions.enqueue(Upcall(port_id, sent, len(sent), UpcallReason.MISS))

    def fill(self) -> None:
        """Install a program for each of many MACs behind the first port."""
        while len(self.decisions.programs.table) < PROGRAMS:
            self.flood(256)
            while self.loop.decide_batch():
                pass

    def flood(self, count: int) -> None:
        for _ in range(count):
            self._sent += 1
            self.enqueue(PORTS[0], frame(0, 2 * self._sent))

    def waits_ms(self, seconds: float, between: Callable[[], object]) -> list[float]:
        """Return how long first packets of the other bridge wait, in turns of the loop."""
        waits = []
        end = time.process_time() + seconds
        next_tick = 0.0
        garbage = GarbageCollection(self.clock, lambda: False)
        while time.process_time() < end:
            self._sent += 1
            between()
            self._arrived = False
            started = time.process_time()
            self.enqueue(PORTS[2], frame(0, 2 * self._sent))
            while not self._arrived:
                self.loop.decide_batch()
                if time.process_time() > next_tick:
                    next_tick = time.process_time() + 0.1
                    self.clock.advance(0.1)
                    self.loop.tick()
                    garbage.step()
            waits.append((time.process_time() - started) * 1e3)
        return waits


async def measure_all() -> list[Row]:
    agent = Agent()
    await agent.datapath.open()
    agent.fill()
    rows = []

    def add(name: str, waits: list[float]) -> None:
        for part in (0.5, 0.99, 1.0):
            label = {0.5: "p50", 0.99: "p99", 1.0: "max"}[part]
            value = max(waits) if part == 1.0 else quantile(waits, part)
            rows.append(
                plain(f"first packet beside 50,000 programs, {name}: {label}", "ms", [value])
            )

    add("idle", agent.waits_ms(SECONDS, lambda: None))
    changed = replace(agent.decisions.view.bridges[BRIDGES[0]])
    agent.decisions.view = replace(
        agent.decisions.view, bridges={**agent.decisions.view.bridges, BRIDGES[0]: changed}
    )
    tags = frozenset({device_tag(BRIDGES[0])})
    agent.decisions.programs.change(frozenset(), urgent=tags)
    add("urgent change of all", agent.waits_ms(SECONDS, lambda: None))
    agent.fill()
    add("under a flood of another port", agent.waits_ms(SECONDS, lambda: agent.flood(16)))
    agent.clock.advance(61)
    add("all expire", agent.waits_ms(SECONDS, lambda: None))
    return rows


def measure() -> list[Row]:
    """Measure all rows."""
    return asyncio.run(measure_all())


if __name__ == "__main__":
    for row in measure():
        print(json.dumps({"name": row.name, "value": row.value, "unit": row.unit}))
