"""Lives: conversations of packets over a network, with time and changes between them.

    Life(
        "answers pass",
        lambda: guarded(V4),
        (talk.first(), talk.reply(), After(121.0), talk.reply(passes=False)),
    )

A step is a packet with its verdict (`running.Step`), time that goes by, a network that becomes
another one, a port that goes, or the number of connections that are known then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, assert_never

from midonet.agent.decisions.synthesis import synthesise_frame
from midonet.agent.flow_state.connection_table import CAPACITY, ConnectionTable
from midonet.agent.flow_state.effects import KillConnection
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.simulation.result import Await
from midonet.packets.frame import parse_frame
from midonet.packets.tcp import TcpFlag
from tests.scenario.flow_states import FlowStates
from tests.scenario.frames import A, B, Family, icmp, tcp, udp
from tests.scenario.running import Lane, Network, Step, Verdict, at, describe, settled
from tests.worlds import World

SYN, ACK, FIN, RST = TcpFlag.SYN, TcpFlag.ACK, TcpFlag.FIN, TcpFlag.RST

TICK_S = 5.0
"""How far time goes at once: timers run in between."""


@dataclass(frozen=True)
class After:
    """Time goes by. Nothing comes in."""

    seconds: float


@dataclass(frozen=True)
class Becomes:
    """The network is another one from now on; what was learnt stays."""

    make: Callable[[], World]


@dataclass(frozen=True)
class Gone:
    """A port is taken away from this host."""

    port: str


@dataclass(frozen=True)
class Known:
    """So many connections are known now."""

    count: int


Event = Step | After | Becomes | Gone | Known


@dataclass(frozen=True)
class Life:
    """A network and what happens in it. capacity, quota: of the table of connections."""

    name: str
    make: Callable[[], World]
    events: tuple[Event, ...]
    capacity: int = CAPACITY
    quota: int | None = None
    only_simulated: str = ""

    def table(self) -> ConnectionTable:
        """Return an empty table of the size that the life is lived with."""
        return ConnectionTable(capacity=self.capacity, port_quota=self.quota)


@dataclass(frozen=True)
class Talk:
    """One conversation, by default of a host at port `a` with one at port `c` of a bridge.

    family, protocol: 17, 6 or 1 (ICMP or ICMPv6 echo). hosts: numbers on network 1. ports: of
    the one who asks and of the one who answers; of an echo the first is its identifier.
    there, back: ports of the network where packets leave.
    """

    family: Family
    protocol: int = 17
    hosts: tuple[int, int] = (2, 3)
    macs: tuple[str, str] = (A, B)
    ports: tuple[int, int] = (4000, 53)
    there: tuple[str, str] = ("a", "c")
    vlan: int | None = None
    refused: DropReason = DropReason.FILTERED

    def frame(self, flags: TcpFlag = ACK, *, reply: bool = False) -> bytes:
        """Return a packet of the conversation; flags: of TCP."""
        route = (self.family.host(1, self.hosts[0]), self.family.host(1, self.hosts[1]))
        macs, ports = self.macs, self.ports
        if reply:
            route, macs, ports = route[::-1], macs[::-1], ports[::-1]
        link: dict[str, Any] = {} if self.vlan is None else {"vlan": self.vlan}
        if self.protocol == 17:
            return udp(route, macs, ports=ports, **link)
        if self.protocol == 6:
            return tcp(route, macs, ports=ports, flags=flags, **link)
        kinds = (129, 128) if ":" in route[0] else (0, 8)
        rest = self.ports[0]
        payload = b"payload!"
        return icmp(route, macs, kinds[not reply], rest=rest << 16 | 1, payload=payload, **link)

    def first(self, flags: TcpFlag = SYN, *, passes: bool = True) -> Step:
        """Return the packet that begins the conversation: SYN of TCP."""
        return self.says(flags, passes=passes)

    def says(self, flags: TcpFlag = ACK, *, passes: bool = True, into: str = "") -> Step:
        """Return a packet of the one who asked. into: the port where it leaves."""
        enters, leaves = self.there
        return self._step(enters, into or leaves, self.frame(flags), passes)

    def reply(self, flags: TcpFlag = ACK, *, passes: bool = True, at_port: str = "") -> Step:
        """Return a packet of the one who was asked. at_port: where it enters instead."""
        leaves, enters = self.there
        return self._step(at_port or enters, leaves, self.frame(flags, reply=True), passes)

    def accepted(self) -> tuple[Step, Step, Step]:
        """Return the three packets that open a TCP connection."""
        return self.first(), self.reply(SYN | ACK), self.says()

    def _step(self, enters: str, leaves: str, frame: bytes, passes: bool) -> Step:
        if passes:
            return Step(enters, frame, Verdict("forward", (at(leaves, frame),)))
        return Step(enters, frame, Verdict("drop", (), self.refused))


class Simulated:
    """A life lived by simulation alone: a view from some lane, a table, and no datapath."""

    def __init__(self, life: Life, lane: Lane, world: World) -> None:
        self._life = life
        self._network = Network(lane, world, world.soft_state(), FlowStates(life.table()))

    async def live(self, event: Step | After | Gone | Known, index: int) -> None:
        """Let one thing happen; it must come out as the life says."""
        where, table = f"{self._life.name}, event {index}", self._network.connections
        match event:
            case Step():
                got = await self._network.judge(event)
                assert got == event.verdict, f"{where}: {describe(event.frame)}"
            case After(seconds):
                flows = self._network.flows
                flows.pass_time(seconds)
                table.expire(flows.now_s, len(table))
            case Gone(port):
                table.forget_port(self._network.world.port_id(port))
            case Known(count):
                assert len(table) == count, f"{where}: {list(table)}"
            case _:
                assert_never(event)

    async def become(self, lane: Lane, world: World) -> None:
        """Go on in another network. Every connection is judged again, as the shell does those
        that the change concerns."""
        self._network = replace(self._network, lane=lane, world=world)
        network, table = self._network, self._network.connections
        for connection in list(table):
            sample = table.sample(connection)
            if sample is None:
                continue
            packet = parse_frame(synthesise_frame(sample.key, icmp_id=sample.icmp_id))
            result = await settled(
                lane,
                lambda view, packet=packet, port=connection.initiator: network.flows.judge(  # type: ignore[misc]
                    view, network.soft_state, packet, port, must_ask=True
                ),
            )
            if not isinstance(result, Await):
                for effect in result.effects:
                    if isinstance(effect, KillConnection):
                        table.kill(effect.connection)
