"""Measure one agent in a large world: `python -m bench.bench_world`. One JSON row a figure.

The world: 500 tenant routers on one provider router, 2,000 bridges with 50,000 ports and 100,000
rules, 450 hosts, and this host with 100 ports of 50 tenants, each of which has spoken to another
tenant's network. Store and agent are the product's own: a process `midonet agent` with the
memory datapath on the embedded store. What a change costs is the CPU time that the agent spends
from the commit until it is idle again, less what it spends idle; that is also how long packets
that come up may wait for it. `--scale N` divides every number by N, for a quick look.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from uuid import UUID

import httpx
import msgspec

from midonet.agent.host.settings import CONTROL_SOCKET_NAME
from midonet.agent.host.state_directory import StateDirectory
from midonet.demo.processes import free_port
from midonet.model.chains import Chain, Condition, Rule, RuleAction
from midonet.model.devices import Bridge, NextHopKind, Port, Route, Router
from midonet.model.hosts import (
    Host,
    HostState,
    Interface,
    PortLocation,
    TunnelKind,
    TunnelZone,
    TunnelZoneHost,
    tunnel_zone_host_id,
)
from midonet.model.ids import (
    BridgeId,
    ChainId,
    HostId,
    PortId,
    RouteId,
    RouterId,
    RuleId,
    TunnelZoneId,
)
from midonet.model.ranks import spread
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import (
    MAX_OPERATIONS,
    Create,
    Operation,
    PutState,
    Session,
    StateTables,
    Update,
)
from midonet.packets.addresses import parse_ip, parse_mac
from midonet.packets.build import Envelope, udp_frame

TENANTS, BRIDGES, PORTS, RULES, HOSTS = 500, 2_000, 50_000, 100_000, 450
LOCAL_TENANTS, LOCAL_PORTS = 50, 100
IDLE_S = 20.0
REPEATS = 8
_KEEP_ALIVE_S = 10.0


def row(name: str, value: float, unit: str) -> None:
    """Print one figure."""
    sys.stdout.write(json.dumps({"name": name, "value": round(value, 3), "unit": unit}) + "\n")
    sys.stdout.flush()


@dataclass(slots=True)
class Network:
    """One bridge of a tenant, with the router port that leads to it."""

    bridge: Bridge
    chain: Chain
    rules: list[Rule]
    gateway: Port
    subnet: str
    ports: list[Port] = field(default_factory=list)


class World:
    """Makes the objects. here: the host whose agent is measured."""

    def __init__(self, here: HostId, scale: int) -> None:
        self._random = Random(1)
        self.here = here
        self.hosts = [HostId(self._id()) for _ in range(HOSTS // scale - 1)]
        self.zone = TunnelZone(id=TunnelZoneId(self._id()), name="zone", kind=TunnelKind.VXLAN)
        self.provider = Router(id=RouterId(self._id()), name="provider")
        self.routers: list[Router] = []
        self.uplinks: list[tuple[Port, Port]] = []
        self.networks: list[Network] = []
        self.links: list[tuple[Port, Port]] = []
        self.routes: list[Route] = []
        self.locations: list[PortLocation] = []
        tenants = TENANTS // scale
        for number in range(tenants):
            self._tenant(number, BRIDGES // TENANTS)
        self._ports(PORTS // scale, LOCAL_TENANTS // scale, LOCAL_PORTS // scale)

    def _id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128))

    def _tenant(self, number: int, bridges: int) -> None:
        router = Router(id=RouterId(self._id()), name=f"tenant-{number}")
        self.routers.append(router)
        ends = PortId(self._id()), PortId(self._id())
        prefix = f"169.254.{number >> 6}.{(number & 63) * 4}"
        near = self._router_port(ends[0], router, ends[1], _next(prefix, 1) + "/30", 2 * number)
        far = self._router_port(
            ends[1], self.provider, ends[0], _next(prefix, 2) + "/30", 2 * number + 1
        )
        self.uplinks.append((near, far))
        self._route(router, "0.0.0.0/0", near, _next(prefix, 2))
        for index in range(bridges):
            self._network(router, number * bridges + index, far, _next(prefix, 1))

    def _network(self, router: Router, number: int, provider_port: Port, gateway: str) -> None:
        chain_id = ChainId(self._id())
        rules = [
            Rule(
                id=RuleId(self._id()),
                chain_id=chain_id,
                rank=rank,
                action=RuleAction.DROP,
                condition=Condition(ip_proto=6, ip_src=f"192.0.2.{index}/32"),
            )
            for index, rank in enumerate(spread(RULES // BRIDGES))
        ]
        bridge = Bridge(id=BridgeId(self._id()), name=f"bridge-{number}")
        subnet = f"10.{number >> 8}.{number & 255}."
        inner, outer = PortId(self._id()), PortId(self._id())
        port = self._router_port(outer, router, inner, f"{subnet}1/24", 10_000 + number)
        self.links.append((Port(id=inner, bridge_id=bridge.id, peer_port_id=outer), port))
        self._route(self.provider, f"{subnet}0/24", provider_port, gateway)
        chain = Chain(id=chain_id, name=bridge.name)
        self.networks.append(Network(bridge, chain, rules, port, subnet))

    def _router_port(
        self, port_id: PortId, router: Router, peer: PortId, address: str, number: int
    ) -> Port:
        port = Port(
            id=port_id,
            router_id=router.id,
            peer_port_id=peer,
            mac=f"02:00:00:{number >> 16:02x}:{number >> 8 & 255:02x}:{number & 255:02x}",
            addresses=(address,),
        )
        own = address.partition("/")[0]
        self._route(router, f"{own}/32", port, None, NextHopKind.LOCAL)
        if not address.endswith("/32"):
            network = own.rpartition(".")[0] + (".0/24" if address.endswith("/24") else "")
            if address.endswith("/24"):
                self._route(router, network, port, None)
        return port

    def _route(
        self,
        router: Router,
        destination: str,
        port: Port,
        gateway: str | None,
        kind: NextHopKind = NextHopKind.NORMAL,
    ) -> None:
        self.routes.append(
            Route(
                id=RouteId(self._id()),
                router_id=router.id,
                kind=kind,
                destination=destination,
                next_hop_port_id=port.id,
                gateway=gateway,
            )
        )

    def _ports(self, count: int, local_tenants: int, local: int) -> None:
        here = {
            number * len(self.networks) // local_tenants: local // local_tenants
            for number in range(local_tenants)
        }
        for number in range(count):
            index = number % len(self.networks)
            network = self.networks[index]
            is_here = here.get(index, 0) > 0
            if is_here:
                here[index] -= 1
            host = self.here if is_here else self._random.choice(self.hosts)
            port = Port(
                id=PortId(self._id()),
                bridge_id=network.bridge.id,
                host_id=host,
                interface_name=f"tap{number}",
                inbound_filter_id=network.chain.id,
            )
            network.ports.append(port)
            if not is_here:
                self.locations.append(
                    PortLocation(
                        id=port.id,
                        host_id=host,
                        tunnel_key=1 << 20 | number,
                        epoch=1,
                        active=True,
                    )
                )

    def local(self) -> list[tuple[Network, Port]]:
        """Return the ports of this host."""
        return [
            (network, port)
            for network in self.networks
            for port in network.ports
            if port.host_id == self.here
        ]

    def transactions(self) -> Iterator[list[msgspec.Struct]]:
        """Yield what to create, in an order in which nothing refers to what is not there."""
        yield [self.zone, self.provider]
        yield from _batches([Host(id=one, name=f"host-{one}") for one in (self.here, *self.hosts)])
        yield from _batches([self._member(number) for number in range(len(self.hosts) + 1)])
        yield from _batches(self.routers)
        yield from _batches([network.bridge for network in self.networks])
        for network in self.networks:
            yield [network.chain, *network.rules]
        yield from _batches([port for pair in (*self.uplinks, *self.links) for port in pair])
        yield from _batches(self.routes)
        yield from _batches([port for network in self.networks for port in network.ports])
        yield from _batches(self.locations)

    def _member(self, number: int) -> TunnelZoneHost:
        host = (self.here, *self.hosts)[number]
        return TunnelZoneHost(
            id=tunnel_zone_host_id(self.zone.id, host),
            tunnel_zone_id=self.zone.id,
            host_id=host,
            address=f"127.9.{number >> 8}.{(number & 255) or 255}" if number else "127.8.0.1",
        )


def _next(prefix: str, number: int) -> str:
    head, _, last = prefix.rpartition(".")
    return f"{head}.{int(last) + number}"


def _batches(objects: Sequence[msgspec.Struct]) -> Iterator[list[msgspec.Struct]]:
    step = MAX_OPERATIONS // 2
    for start in range(0, len(objects), step):
        yield list(objects[start : start + step])


class AgentProcess:
    """A running `midonet agent`, and what it costs."""

    def __init__(self, nsdb: Path, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "midonet.commands.main",
                "agent",
                "--nsdb",
                f"sqlite://{nsdb}",
                "--host-name",
                "here",
                "--state-dir",
                str(state_dir),
                "--datapath",
                "memory",
                "--underlay-port",
                str(free_port(socket.SOCK_DGRAM)),
            ],
            stderr=(state_dir / "log").open("wb"),
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def call(self, method: str, path: str, **body: object) -> object:
        transport = httpx.HTTPTransport(uds=str(self._state_dir / CONTROL_SOCKET_NAME))
        with httpx.Client(transport=transport, timeout=120) as client:
            return client.request(method, f"http://agent{path}", json=body or None).json()

    def wait_ports(self, count: int) -> None:
        while True:
            try:
                state = self.call("GET", "/state")
            except httpx.TransportError:
                assert self._process.poll() is None, "the agent has ended"
                state = {"ports": []}
            assert isinstance(state, dict)
            if sum(port["active"] and port["attached"] for port in state["ports"]) >= count:
                return
            time.sleep(0.1)

    def cpu_s(self) -> float:
        """Return the CPU time of all threads, in s."""
        tasks = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    def resident_mib(self) -> float:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def settled_cpu_s(self) -> float:
        """Wait until it has nothing to do; return its CPU time."""
        before = self.cpu_s()
        quiet = 0
        while quiet < 3:
            time.sleep(0.1)
            now = self.cpu_s()
            quiet = quiet + 1 if now - before < 0.003 else 0
            before = now
        return before


async def fill(store: SqliteStore, world: World) -> list[Session]:
    """Write the world; return the sessions of the other hosts."""
    for objects in world.transactions():
        await store.transact([Create(one) for one in objects])
    sessions = []
    for host in world.hosts:
        sessions.append(await store.open_session(host, timeout_s=3600))
        interfaces = tuple(
            Interface(name=f"tap{number}", mtu_bytes=1500, is_up=True, has_link=True)
            for number in range(PORTS // HOSTS)
        )
        state = HostState(id=host, interfaces=interfaces, epoch=1, overlay_mtu_bytes=1450)
        text = msgspec.json.encode(state).decode()
        await store.transact([PutState(StateTables.host_state(), str(host), text, host, 1)])
    return sessions


def cross(agent: AgentProcess, world: World) -> None:
    """Let each local port send to another tenant's network, through the provider router."""
    local = world.local()
    for number, (network, port) in enumerate(local):
        target, _ = local[(number + len(local) // 2) % len(local)]
        frame = udp_frame(
            Envelope(
                parse_mac(f"02:aa:00:00:00:{number:02x}"),
                parse_mac(network.gateway.mac or ""),
                parse_ip(f"{network.subnet}5"),
                parse_ip(f"{target.subnet}6"),
            ),
            1000,
            2000,
        )
        agent.call("POST", "/inject", portId=str(port.id), frame=frame.hex(), waitSeconds=0.01)


Change = Callable[[int], Awaitable[list[Operation]]]


def changes(store: SqliteStore, world: World) -> dict[str, Change]:
    """Return the kinds of change; each gives the operations of its n-th instance."""
    local, elsewhere = world.local(), world.networks[1]
    random = Random(2)

    async def update(value: msgspec.Struct, **fields: object) -> list[Operation]:
        found = await store.get(type(value), value.id)  # type: ignore[attr-defined]
        assert found is not None
        return [Update(msgspec.structs.replace(found.value, **fields))]

    def host_state(number: int) -> list[Operation]:
        host = world.hosts[number]
        state = HostState(id=host, epoch=1, overlay_mtu_bytes=1400 + number)
        text = msgspec.json.encode(state).decode()
        return [PutState(StateTables.host_state(), str(host), text, host, 1)]

    here, port = local[0]
    remote = {location.id: location for location in world.locations}
    neighbour = next(one for one in here.ports if one.id in remote)
    own_route = next(one for one in world.routes if one.router_id == here.gateway.router_id)
    provider_routes = [one for one in world.routes if one.router_id == world.provider.id]

    def new_port(network: Network) -> list[Operation]:
        port_id = PortId(UUID(int=random.getrandbits(128)))
        made = Port(id=port_id, bridge_id=network.bridge.id, host_id=world.hosts[0],
                    interface_name=f"new{port_id.hex[:8]}")  # fmt: skip
        place = PortLocation(id=port_id, host_id=world.hosts[0], tunnel_key=1, epoch=1, active=True)
        return [Create(made), Create(place)]

    async def given(operations: list[Operation]) -> list[Operation]:
        return operations

    def member(number: int) -> Awaitable[list[Operation]]:
        zone_host = world._member(number + 2)
        return update(zone_host, address=f"127.10.0.{number + 1}")

    return {
        "local_port": lambda n: update(port, admin_state_up=n % 2 > 0),
        "remote_port_moved": lambda n: update(remote[neighbour.id], tunnel_key=5000 + n),
        "port_added_near": lambda _: given(new_port(here)),
        "port_added_far": lambda _: given(new_port(elsewhere)),
        "rule_near": lambda n: update(here.rules[n], action=RuleAction.ACCEPT),
        "rule_far": lambda n: update(elsewhere.rules[n], action=RuleAction.ACCEPT),
        "bridge_far": lambda n: update(elsewhere.bridge, name=f"renamed-{n}"),
        "tenant_route": lambda n: update(own_route, weight=n + 1),
        "provider_route": lambda n: update(provider_routes[n * 7], weight=n + 1),
        "host_state": lambda n: given(host_state(n)),
        "tunnel_address": member,
    }


async def measure_changes(store: SqliteStore, agent: AgentProcess, world: World) -> None:
    idle_share = 0.0
    begun_s, before = time.monotonic(), agent.settled_cpu_s()
    await asyncio.sleep(3)
    idle_share = (agent.cpu_s() - before) / (time.monotonic() - begun_s)
    for kind, change in changes(store, world).items():
        costs = []
        for number in range(REPEATS):
            operations = await change(number)
            before, begun_s = agent.settled_cpu_s(), time.monotonic()
            await store.transact(operations)
            after = agent.settled_cpu_s()
            costs.append(after - before - idle_share * (time.monotonic() - begun_s))
        row(f"world_change_{kind}", statistics.median(costs) * 1000, "ms")
        row(f"world_change_{kind}_worst", max(costs) * 1000, "ms")


async def measure_idle(agent: AgentProcess, sessions: Sequence[Session]) -> None:
    """Idle alone, and while all other hosts keep their sessions alive."""
    for name, kept in (("world_idle_cpu", ()), ("world_idle_cpu_sessions", sessions)):
        agent.settled_cpu_s()
        before, begun_s = agent.cpu_s(), time.monotonic()
        pause_s = _KEEP_ALIVE_S / len(kept) if kept else IDLE_S
        number = 0
        while time.monotonic() < begun_s + IDLE_S:
            if kept:
                await kept[number % len(kept)].keep_alive()
                number += 1
            await asyncio.sleep(max(0.0, begun_s + number * pause_s - time.monotonic()) or pause_s)
        row(name, (agent.cpu_s() - before) / (time.monotonic() - begun_s) * 100, "%")


async def measure(scale: int) -> None:
    """Build the world and print its rows."""
    with tempfile.TemporaryDirectory() as directory:
        nsdb, state_dir = Path(directory) / "nsdb.sqlite", Path(directory) / "here"
        state = StateDirectory(state_dir)
        world = World(state.host_id(), scale)
        state.close()
        store = SqliteStore(nsdb)
        await store.open()
        begun_s = time.monotonic()
        sessions = await fill(store, world)
        row("world_fill", time.monotonic() - begun_s, "s")
        begun_s = time.monotonic()
        agent = AgentProcess(nsdb, state_dir)
        try:
            await asyncio.to_thread(agent.wait_ports, len(world.local()))
            row("world_start", time.monotonic() - begun_s, "s")
            agent.settled_cpu_s()
            row("world_resident", agent.resident_mib(), "MiB")
            await asyncio.to_thread(cross, agent, world)
            agent.settled_cpu_s()
            row("world_resident_crossed", agent.resident_mib(), "MiB")
            await measure_idle(agent, sessions)
            await measure_changes(store, agent, world)
            row("world_resident_changed", agent.resident_mib(), "MiB")
        finally:
            agent.close()
            await store.close()


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=1, help="divide the world by this")
    asyncio.run(measure(parser.parse_args().scale))


if __name__ == "__main__":
    main()
