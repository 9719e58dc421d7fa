"""Several agents in one process, over one store and one underlay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from uuid import UUID, uuid4

import msgspec

from midonet.agent.daemon import Agent
from midonet.agent.datapath.memory import InProcessUnderlay, MemoryDatapath
from midonet.agent.host.host_keeper import host_record
from midonet.agent.host.state_directory import StateDirectory
from midonet.model.chains import Chain, Condition, Rule, RuleAction
from midonet.model.devices import Bridge, NextHopKind, Port, Route, Router
from midonet.model.hosts import TunnelKind, TunnelZone, TunnelZoneHost, tunnel_zone_host_id
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
from midonet.nsdb.memory import MemoryBackend, MemoryStore
from midonet.nsdb.store import Create, Store, Update
from midonet.packets.addresses import format_mac, parse_ip, parse_mac
from midonet.packets.build import Envelope, udp_frame
from midonet.runtime.clock import Clock, SystemClock
from midonet.runtime.supervisor import Supervisor

DEADLINE_S = 60.0


async def eventually(condition: Callable[[], object], deadline_s: float = DEADLINE_S) -> None:
    """Wait until a condition holds; fail when it does not in time."""
    async with asyncio.timeout(deadline_s):
        while not condition():  # noqa: ASYNC110 - the condition may be any state of an agent
            await asyncio.sleep(0.005)


@dataclass
class RunningAgent:
    """An agent with what left by its ports."""

    agent: Agent
    datapath: MemoryDatapath
    left: dict[PortId, list[bytes]] = field(default_factory=dict)

    @property
    def id(self) -> HostId:
        return self.agent.host.id

    def deliver(self, port_id: PortId, frame: bytes) -> None:
        self.left.setdefault(port_id, []).append(frame)

    def at(self, port_id: PortId) -> list[bytes]:
        return self.left.get(port_id, [])

    def has_route(self, router_id: RouterId, destination: str) -> bool:
        router = self.agent.decisions.view.routers.get(router_id)
        address = parse_ip(destination)
        return router is not None and bool(
            router.fib.lookup(address.version, 0, address.value).routes
        )

    def take(self, port_id: PortId) -> list[bytes]:
        return self.left.pop(port_id, [])


class Deployment:
    """A store, an underlay, and the agents started on them."""

    def __init__(self, directory: Path, store: Store | None = None) -> None:
        self.backend = MemoryBackend()
        self.underlay = InProcessUnderlay()
        self.directory = directory
        self.zone_id = TunnelZoneId(uuid4())
        self.store: Store = store or MemoryStore(self.backend)

    async def open(self) -> None:
        await self.store.open()
        await self.store.transact(
            [Create(TunnelZone(id=self.zone_id, name="z", kind=TunnelKind.VXLAN))]
        )

    @asynccontextmanager
    async def agent(
        self,
        name: str,
        address: str | None = None,
        *,
        store: Store | None = None,
        datapath: MemoryDatapath | None = None,
        session_timeout_s: float = 30.0,
        clock: Clock | None = None,
    ) -> AsyncIterator[RunningAgent]:
        """Run an agent. address: its underlay address, entered into the tunnel zone."""
        store = store or MemoryStore(self.backend)
        await store.open()
        directory = StateDirectory(self.directory / name)
        host = host_record(directory.host_id(), name)
        datapath = datapath or MemoryDatapath(self.underlay)
        running = RunningAgent(
            Agent(
                host,
                store,
                datapath,
                directory,
                clock or SystemClock(),
                hash_seed=0,
                session_timeout_s=session_timeout_s,
            ),
            datapath,
        )
        unsubscribe = datapath.subscribe(running.deliver)
        try:
            async with Supervisor() as supervisor:
                await running.agent.start(supervisor)
                await eventually(running.agent.keeper.registered.is_set)
                if address is not None:
                    await self.join(host.id, address)
                yield running
                assert not supervisor.failures
        finally:
            unsubscribe()
            await running.agent.stop()
            await store.close()
            directory.close()

    async def join(self, host_id: HostId, address: str) -> None:
        member_id = tunnel_zone_host_id(self.zone_id, host_id)
        if await self.store.get(TunnelZoneHost, member_id) is None:
            member = TunnelZoneHost(
                id=member_id, tunnel_zone_id=self.zone_id, host_id=host_id, address=address
            )
            await self.store.transact([Create(member)])

    # Topology.

    async def bridge(self) -> BridgeId:
        bridge = Bridge(id=BridgeId(uuid4()))
        await self.store.transact([Create(bridge)])
        return bridge.id

    async def router(self) -> RouterId:
        router = Router(id=RouterId(uuid4()))
        await self.store.transact([Create(router)])
        return router.id

    async def bridge_port(
        self, bridge_id: BridgeId, host_id: HostId | None = None, name: str | None = None
    ) -> PortId:
        port = Port(id=PortId(uuid4()), bridge_id=bridge_id, host_id=host_id, interface_name=name)
        await self.store.transact([Create(port)])
        return port.id

    async def router_port(
        self,
        router_id: RouterId,
        mac: str,
        address: str,
        host_id: HostId | None = None,
        name: str | None = None,
    ) -> PortId:
        """Create a router port with its LOCAL and connected routes."""
        port = Port(
            id=PortId(uuid4()),
            router_id=router_id,
            mac=mac,
            addresses=(address,),
            host_id=host_id,
            interface_name=name,
        )
        host = address.partition("/")[0]
        is_ipv6 = ":" in host
        anywhere = "::/0" if is_ipv6 else "0.0.0.0/0"
        network = str(ip_network(address, strict=False))
        local = Route(
            id=RouteId(uuid4()),
            router_id=router_id,
            kind=NextHopKind.LOCAL,
            source=anywhere,
            destination=f"{host}/{128 if is_ipv6 else 32}",
            next_hop_port_id=port.id,
        )
        connected = Route(
            id=RouteId(uuid4()),
            router_id=router_id,
            source=anywhere,
            destination=network,
            next_hop_port_id=port.id,
        )
        await self.store.transact([Create(port), Create(local), Create(connected)])
        return port.id

    async def link(self, one: PortId, other: PortId) -> None:
        first, second = await self.store.get(Port, one), await self.store.get(Port, other)
        assert first is not None
        assert second is not None
        await self.store.transact(
            [
                Update(msgspec.structs.replace(first.value, peer_port_id=other)),
                Update(msgspec.structs.replace(second.value, peer_port_id=one)),
            ]
        )

    async def route(
        self, router_id: RouterId, destination: str, port_id: PortId, gateway: str
    ) -> None:
        route = Route(
            id=RouteId(uuid4()),
            router_id=router_id,
            destination=destination,
            next_hop_port_id=port_id,
            gateway=gateway,
        )
        await self.store.transact([Create(route)])

    async def deny_all(self) -> ChainId:
        """Create a chain that drops everything."""
        chain_id, rule_id = ChainId(uuid4()), RuleId(uuid4())
        rule = Rule(id=rule_id, chain_id=chain_id, action=RuleAction.DROP)
        chain = Chain(id=chain_id, name="deny")
        await self.store.transact([Create(chain), Create(rule)])
        return chain_id

    async def answers_only(self) -> ChainId:
        """Create a chain that lets packets to 10.0.2.0/24 by, and the answers to them."""
        chain = Chain(id=ChainId(uuid4()), name="answers only")
        conditions = (
            Condition(match_return_flow=True),
            Condition(match_forward_flow=True, ip_dst="10.0.2.0/24"),
            Condition(),
        )
        rules = [
            Rule(id=RuleId(uuid4()), chain_id=chain.id, rank=rank, action=action, condition=one)
            for rank, action, one in zip(
                spread(len(conditions)),
                (RuleAction.ACCEPT, RuleAction.ACCEPT, RuleAction.DROP),
                conditions,
                strict=True,
            )
        ]
        await self.store.transact([Create(chain), *map(Create, rules)])
        return chain.id

    async def change(self, kind: type, object_id: UUID, **fields: object) -> None:
        found = await self.store.get(kind, object_id)
        assert found is not None
        await self.store.transact([Update(msgspec.structs.replace(found.value, **fields))])

    async def settled(self, *agents: RunningAgent) -> None:
        """Wait until all bound ports are active and every agent sees all of this."""
        ports = {port.value.id for port in await self.store.list_all(Port) if port.value.host_id}

        def is_settled() -> bool:
            local: set[PortId] = set()
            for running in agents:
                local |= {
                    port.port_id
                    for port in running.agent.binder.ports.values()
                    if port.is_active and port.is_attached
                }
            return local >= ports and all(
                _sees(running, ports)
                and len(running.agent.decisions.view.tunnels) + 1 >= len(agents)
                for running in agents
            )

        await eventually(is_settled)


def _sees(running: RunningAgent, ports: set[PortId]) -> bool:
    view = running.agent.decisions.view
    near = {port_id for port_id in ports if port_id in view.ports}
    return all(port_id in view.locations for port_id in near)


def udp(  # noqa: PLR0917
    smac: str, dmac: str, src: str, dst: str, sport: int = 1000, dport: int = 2000, *, ttl: int = 64
) -> bytes:
    """Return a UDP frame."""
    envelope = Envelope(parse_mac(smac), parse_mac(dmac), parse_ip(src), parse_ip(dst), ttl=ttl)
    return udp_frame(envelope, sport, dport, b"payload")


def mac(number: int) -> str:
    """Return a local MAC address in text."""
    return format_mac(0x02_00_00_00_00_00 | number)
