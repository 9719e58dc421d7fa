"""Arbitrary frames through decisions and a datapath, while facts change underneath.

One tenant of a host sends, then the other; the one that is silent hears nothing. Packets come in
at ports and from other hosts, soft state is learnt, told by others (nonsense too) and forgotten,
devices go down and up, links and filters change, ports are taken away and given back.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest

from midonet.agent.datapath.memory import InProcessUnderlay, MemoryDatapath
from midonet.agent.datapath.protocol import OverlayConfig, PortAttachment
from midonet.agent.decisions.decisions import Decisions
from midonet.agent.decisions.upcalls import PacketLoop
from midonet.agent.flows.program import InstalledProgram, Output
from midonet.agent.flows.tags import (
    FlowTag,
    RouteRegion,
    chain_tag,
    device_tag,
    flood_group_tag,
    flood_set_tag,
    location_tag,
    tunnel_tag,
)
from midonet.agent.soft_state.outbox import StateWrite
from midonet.agent.soft_state.replica import SoftStateReplica
from midonet.agent.topology.view import TopologyView, ViewDelta
from midonet.model.ids import BridgeId, HostId, PortId, RouterId
from midonet.nsdb.store import PutState, StateEntry, StateTables, Table, TableChange
from midonet.packets.addresses import IpVersion, format_mac, parse_ip
from midonet.packets.overlay import encapsulate_gre, encapsulate_vxlan
from midonet.runtime.clock import ManualClock
from tests.differential.packets import HOST_MACS, host_address
from tests.fuzz.hostile_frames import FrameSource
from tests.fuzz.hostile_worlds import TENANTS, WORLDS
from tests.fuzz.reachability import Reachability
from tests.fuzz.soaking import FACTOR, FAILURES, SEED, named
from tests.worlds import World, rule

FRAMES = 16_000
"""Frames for each kind of topology."""

BATCH = 50
"""Frames between two changes of facts."""

MAX_PROGRAMS = 400
MAX_GROWTH_BYTES = 48 << 20
"""By how much the process may grow from the first third of a soak to its end."""

QUIET_S = 1200.0
"""After so long without traffic, and without the other host, all that was learnt is gone."""

VXLAN_PORT = 6677


class WatchedDatapath(MemoryDatapath):
    """Checks each output that it is asked for against the topology of the moment."""

    reachable: Reachability
    senders: frozenset[PortId]
    """Ports of the tenant that sends: what is emitted leaves within its network."""

    def install(self, entries: Iterable[InstalledProgram]) -> None:
        entries = list(entries)
        for entry in entries:
            self.reachable.check(entry.program.ingress, entry.program.outputs)
        super().install(entries)

    def emit(self, frame: bytes, outputs: Iterable[Output], *, gso_size: int = 0) -> None:
        outputs = list(outputs)
        # Of whom the packet is, an emitted one does not tell; their ports may be apart by now.
        self.reachable.check_any(self.senders, outputs)
        super().emit(frame, outputs, gso_size=gso_size)


class Host:
    """A host of a world, with time in the test's hand, and a store that is a dictionary."""

    def __init__(self, world: World, random: Random, frames: FrameSource) -> None:
        self.world = world
        self._random = random
        self._frames = frames
        self.clock = ManualClock()
        self._underlay = InProcessUnderlay()
        view = world.view()
        self.datapath = WatchedDatapath(
            self._underlay, clock=self.clock, hash_seed=view.hash_seed, max_programs=MAX_PROGRAMS
        )
        self._written: list[StateWrite] = []
        self._sequence = 0
        self._other = HostId(world.id("h2"))
        self._told: set[tuple[str, str]] = set()
        soft_state = SoftStateReplica(view.host_id, self.clock, self._written.append)
        self.decisions = Decisions(
            view.host_id, self.datapath, self.clock, soft_state, lambda _wanted: None
        )
        self.loop = PacketLoop(self.datapath, self.decisions, self.clock, lambda: None)
        self.decisions.view = view
        self.heard: Counter[PortId] = Counter()
        self.datapath.subscribe(self._hear)
        self.ports = [port.id for port in view.ports.values() if port.host_id == view.host_id]
        for number, port_id in enumerate(self.ports):
            self._attach(number, port_id)
            self.datapath.set_delivery(view.locations[port_id].tunnel_key, (port_id,))
        self.datapath.configure_overlay(
            OverlayConfig(
                frozenset((parse_ip("192.0.2.1"),)),
                frozenset((parse_ip("192.0.2.2"),)),
                vxlan_port=VXLAN_PORT,
            )
        )

    def _attach(self, number: int, port_id: PortId) -> None:
        attachment = PortAttachment(port_id, f"tap{number}", 10_000_000, 10_000_000)
        self.datapath.attach(attachment)

    def _hear(self, port_id: PortId, _frame: bytes) -> None:
        self.heard[port_id] += 1

    def ports_of(self, tenant: str) -> list[PortId]:
        return [port_id for port_id in self.ports if self.world.name(port_id).startswith(tenant)]

    def speak_as(self, tenant: str) -> None:
        """Let time pass until nothing of the one before is under way; then this one sends."""
        for _ in range(100):
            self.pass_time(0.1)
        self.datapath.senders = frozenset(self.ports_of(tenant))
        self.heard.clear()

    async def send(self, ingress: PortId, frame: bytes) -> None:
        self.datapath.receive(ingress, frame, self._random.choice((0,) * 9 + (1, 1400)))
        await self.work()

    async def work(self) -> None:
        """Decide until nothing is left to do."""
        while self.datapath._upcalls:
            for upcall in await self.datapath.upcalls(1024):
                self.decisions.enqueue(upcall)
        while self.loop.decide_batch():
            pass

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.loop.tick()
        while self.loop.decide_batch():
            pass

    # Facts.

    def look_again(self) -> None:
        """Take over the world as it is now, telling that everything may have changed."""
        old, new = self.decisions.view, self.world.view()
        self.datapath.reachable = Reachability(new)
        self.decisions.view = new
        tags = _all_tags(old) | _all_tags(new)
        regions = frozenset(
            RouteRegion(router_id, version, 0, 0)
            for router_id in new.routers
            for version in IpVersion
        )
        urgent = tags if self._random.random() < 0.5 else frozenset()
        self.decisions.view_changed(ViewDelta(new.revision, tags, regions, urgent))

    def change_topology(self) -> None:
        random, world = self._random, self.world
        ports, devices = world.names()
        match random.randrange(4):
            case 0:
                world.set_up(random.choice(devices), random.random() < 0.5)
            case 1:
                world.set_up(random.choice(ports), random.random() < 0.7)
            case 2:
                world.unlink(random.choice(ports))
            case _:
                name = f"{random.choice(TENANTS)}-all"
                world.chain(name, rule(random.choice(("accept", "drop", "reject"))))
        self.look_again()

    def take_port_away(self) -> None:
        """Detach a port and forget it, as when its interface goes, and attach it again."""
        port_id = self._random.choice(self.ports)
        self.datapath.detach(port_id)
        self.decisions.forget_port(port_id)
        self._attach(self.ports.index(port_id), port_id)

    def exchange_state(self) -> None:
        """Have the store take what was written, and tell what other hosts wrote."""
        self.exchange_own()
        random, view = self._random, self.decisions.view
        bridge = BridgeId(random.choice(list(view.bridges) or [self.world.id("none")]))
        router = RouterId(random.choice(list(view.routers) or [self.world.id("none")]))
        address = str(host_address(random.choice(tuple(IpVersion)), random.randrange(4), 3))
        mac = format_mac(random.choice(HOST_MACS))
        port = str(random.choice(list(view.ports)))
        values = (mac, port, None, "", "nonsense", '{"mac": "' + mac + '"}', '{"mac": 7}')
        for table, key in (
            (StateTables.mac(bridge), mac),
            (StateTables.bridge_arp(bridge), address),
            (StateTables.router_arp(router), address),
        ):
            key_text = random.choice((key, key, "nonsense"))
            self._told.add((table, key_text))
            self._tell(table, key_text, random.choice(values), self._other)

    def end_other(self) -> None:
        """Have the store withdraw what the other host wrote, as when its session ends."""
        for table, key in self._told:
            self._tell(table, key, None, self._other)

    def exchange_own(self) -> None:
        """Have the store take what was written."""
        soft_state = self.decisions.soft_state
        soft_state.take_unwatched()
        written = list(self._written)
        self._written.clear()
        for write in written:
            soft_state.written(write)
            value = write.value if isinstance(write, PutState) else None
            self._tell(write.table, write.key, value, self.decisions.view.host_id)

    def _tell(self, table: str, key: str, value: str | None, owner: HostId) -> None:
        self._sequence += 1
        entry = None
        if value is not None:
            entry = StateEntry(table, key, value, owner, 0, self._sequence, False)
        change = TableChange(Table(table), ((key, entry),))
        self.decisions.facts_changed(self.decisions.soft_state.apply(change))

    def receive_outer(self, keys: list[int]) -> None:
        """Let an overlay packet of another host come in, damaged more often than not."""
        random = self._random
        frame, key = self._frames.draw(), random.choice((*keys, random.getrandbits(24)))
        remote, local = parse_ip("192.0.2.2"), parse_ip("192.0.2.1")
        if random.random() < 0.5:
            packet = encapsulate_gre(frame, key=key, local=remote, remote=local)
        else:
            packet = encapsulate_vxlan(
                frame, key=key, local=remote, remote=local, source_port=9, udp_port=VXLAN_PORT
            )
        damaged = bytearray(packet)
        for _ in range(random.randrange(3)):
            # Not in the key: another key is another tenant's, and a peer may use it.
            damaged[random.choice((*range(30), *range(44, len(damaged))))] = random.getrandbits(8)
        self._underlay.send(bytes(damaged[: random.choice((len(damaged), random.randrange(50)))]))


def _all_tags(view: TopologyView) -> frozenset[FlowTag]:
    tags = {device_tag(each) for each in (*view.ports, *view.bridges, *view.routers)}
    tags |= {flood_set_tag(bridge_id) for bridge_id in view.bridges}
    tags |= {chain_tag(chain_id) for chain_id in view.chains}
    tags |= {location_tag(port_id) for port_id in view.locations}
    tags |= {tunnel_tag(host_id) for host_id in view.tunnels}
    tags |= {flood_group_tag(*key) for key in view.flood_groups}
    return frozenset(tags)


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def failed(host: Host) -> dict[str, int]:
    """Return the counters that say that we failed."""
    return {
        f"{host.world.name(port_id) if port_id else None} {reason.name}": count
        for (port_id, reason), count in host.datapath.drops().items()
        if reason in FAILURES
    }


async def soak_one(host: Host, frames: FrameSource, random: Random, seed: int, count: int) -> None:
    """Send frames as one tenant, change facts between batches, then as the other."""
    keys = [location.tunnel_key for location in host.decisions.view.locations.values()]
    host.look_again()
    await host.datapath.open()
    for tenant, other in (TENANTS, TENANTS[::-1]):
        host.speak_as(tenant)
        senders = host.ports_of(tenant)
        for index in range(count // 2):
            ingress, frame = random.choice(senders), frames.draw()
            with named(seed, f"{tenant}, frame {index} at {host.world.name(ingress)}", frame):
                await host.send(ingress, frame)
                assert failed(host) == {}
            if index % BATCH == 0:
                host.exchange_state()
                random.choice((host.change_topology, host.take_port_away, host.look_again))()
                host.pass_time(random.choice((0.1, 0.1, 1.0, 5.0)))
                await host.work()
                assert failed(host) == {}
        assert not [host.world.name(each) for each in host.ports_of(other) if host.heard[each]]
        for _ in range(count // 10):
            host.receive_outer(keys)
        await host.work()


@pytest.mark.parametrize("kind", [kind for kind in WORLDS if kind != "random"])
async def test_decisions_go_on_whatever_comes(kind: str) -> None:
    random = Random(f"decisions {kind} {SEED}")
    frames = FrameSource(random)
    total, each = FRAMES * FACTOR, 4000
    seen: Counter[str] = Counter()
    early = 0
    for number in range(total // each):
        host = Host(WORLDS[kind](random), random, frames)
        await soak_one(host, frames, random, SEED, each)
        seen.update(reason.name for _, reason in host.datapath.drops())
        assert_bounded(host)
        if number == total // each // 3:
            early = resident_bytes()
    assert {"MALFORMED", "UNKNOWN_TUNNEL_KEY", "OVERLAY_MALFORMED"} <= seen.keys()
    assert resident_bytes() - early < MAX_GROWTH_BYTES


def assert_bounded(host: Host) -> None:
    """Assert that tables are within their bounds, and empty when everybody is silent."""
    decisions = host.decisions
    assert len(decisions.queue) == 0
    assert decisions.counters.upcalls > 0
    assert len(decisions.programs.table) <= MAX_PROGRAMS
    host.end_other()
    for _ in range(int(QUIET_S / 2)):
        host.pass_time(2.0)
        host.exchange_own()
    assert len(decisions.parking) == 0
    assert len(decisions.broker) == 0
    assert len(decisions.programs.table) == 0
    assert len(list(host.datapath.installed())) == 0
    assert len(decisions.learning) == 0
