"""Connections over several hosts: the host of the answer knows them before it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from midonet.agent.datapath.protocol import STATE_KEY
from midonet.agent.flow_exchange.exchange_engine import ExchangeEngine
from midonet.agent.flow_state.state_frame import state_frame
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import TunnelOutput
from midonet.agent.soft_state.reading import Neighbour
from midonet.model.chains import Chain, Condition, FlowAction, NatTarget, Rule, RuleAction
from midonet.model.devices import Port, Router
from midonet.model.groups import PortGroup
from midonet.model.ids import BridgeId, ChainId, PortGroupId, PortId, RouterId, RuleId
from midonet.nsdb.deletion import delete
from midonet.nsdb.store import Create
from midonet.packets.addresses import parse_ip, parse_mac
from midonet.packets.build import Envelope, tcp_frame
from midonet.packets.frame import parse_frame
from midonet.packets.neighbour import arp_reply
from midonet.packets.tcp import TcpFlag, TcpHeader
from tests.multiagent.hosts import Deployment, RunningAgent, eventually, mac, udp

A, B, C = mac(0xA), mac(0xB), mac(0xC)
IP_A, IP_B = "10.0.0.1", "10.0.0.2"


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    deployment = Deployment(tmp_path)
    await deployment.open()
    yield deployment
    await deployment.store.close()


async def _only_replies(deployment: Deployment) -> ChainId:
    """Create a chain that lets return packets pass and drops the others."""
    chain = Chain(id=ChainId(uuid4()), name="replies")
    accept = Rule(
        id=RuleId(uuid4()),
        chain_id=chain.id,
        rank="a",
        action=RuleAction.ACCEPT,
        condition=Condition(match_return_flow=True),
    )
    drop = Rule(id=RuleId(uuid4()), chain_id=chain.id, rank="b", action=RuleAction.DROP)
    await deployment.store.transact([Create(chain), Create(accept), Create(drop)])
    return chain.id


class Network:
    """VM a at one host, VM b at another, on one bridge; only replies may enter a."""

    def __init__(self, h1: RunningAgent, h2: RunningAgent, a: PortId, b: PortId) -> None:
        self.h1, self.h2, self.a, self.b = h1, h2, a, b
        self._dropped = self._drops()

    def forward(self, frame: bytes) -> None:
        self.h1.datapath.receive(self.a, frame)

    def back(self, frame: bytes) -> None:
        self.h2.datapath.receive(self.b, frame)

    def dropped_at_b(self) -> int:
        return self._drops() - self._dropped

    def _drops(self) -> int:
        return self.h2.datapath.drops().get((self.b, DropReason.FILTERED), 0)


@asynccontextmanager
async def _two_hosts(deployment: Deployment) -> AsyncIterator[Network]:
    async with (
        deployment.agent("h1", "10.9.0.1") as h1,
        deployment.agent("h2", "10.9.0.2") as h2,
    ):
        yield await _network(deployment, h1, h2)


async def _network(deployment: Deployment, h1: RunningAgent, h2: RunningAgent) -> Network:
    bridge = await deployment.bridge()
    a = await deployment.bridge_port(bridge, h1.id, "tap1")
    b = await deployment.bridge_port(bridge, h2.id, "tap2")
    await deployment.change(Port, a, outbound_filter_id=await _only_replies(deployment))
    # The other way is asked about as well, so that what a begins is a connection.
    await deployment.change(Port, a, inbound_filter_id=await _forward_only(deployment))
    await deployment.settled(h1, h2)
    await _know_each_other(bridge, h1, h2, a, b)
    return Network(h1, h2, a, b)


async def _forward_only(deployment: Deployment) -> ChainId:
    chain = Chain(id=ChainId(uuid4()), name="forward")
    accept = Rule(
        id=RuleId(uuid4()),
        chain_id=chain.id,
        rank="a",
        action=RuleAction.ACCEPT,
        condition=Condition(match_forward_flow=True),
    )
    await deployment.store.transact([Create(chain), Create(accept)])
    return chain.id


async def _know_each_other(
    bridge: BridgeId, h1: RunningAgent, h2: RunningAgent, a: PortId, b: PortId
) -> None:
    """Let the bridge learn where both are, by frames that no filter is asked about."""
    for host, port, source in ((h1, a, A), (h2, b, B)):
        host.datapath.receive(port, bytes.fromhex("ffffffffffff") + _raw(source) + b"\x88\xb5hello")
    for host in (h1, h2):
        soft = host.agent.soft_state
        await eventually(lambda: soft.mac_port(bridge, 0, parse_mac(A)) == a)  # noqa: B023
        await eventually(lambda: soft.mac_port(bridge, 0, parse_mac(B)) == b)  # noqa: B023
    await eventually(lambda: not h1.agent.decisions.programs.table.pending)
    h1.take(a)
    h2.take(b)


def _raw(address: str) -> bytes:
    return parse_mac(address).to_bytes(6, "big")


def _tcp(source: str, destination: str, flags: TcpFlag, ports: tuple[int, int]) -> bytes:
    macs = (A, B) if source == IP_A else (B, A)
    envelope = Envelope(
        parse_mac(macs[0]), parse_mac(macs[1]), parse_ip(source), parse_ip(destination)
    )
    return tcp_frame(envelope, TcpHeader(*ports, 1, 1, flags, 1000))


async def test_a_reply_at_another_host_is_known(deployment: Deployment) -> None:
    async with _two_hosts(deployment) as network:
        h1, h2 = network.h1, network.h2
        there, back = udp(A, B, IP_A, IP_B), udp(B, A, IP_B, IP_A, 2000, 1000)

        network.back(back)
        await eventually(lambda: network.dropped_at_b() == 1)
        network.forward(there)
        await eventually(lambda: h2.take(network.b) == [there])
        network.back(back)
        await eventually(lambda: h1.take(network.a) == [back])
        assert network.dropped_at_b() == 1


async def test_state_is_there_before_the_packet(deployment: Deployment) -> None:
    async with _two_hosts(deployment) as network:
        h1, h2 = network.h1, network.h2
        answered = 0

        def answer_at_once(port_id: PortId, frame: bytes) -> None:
            nonlocal answered
            if port_id == network.b and b"payload" in frame:
                sport = int.from_bytes(frame[34:36], "big")
                network.back(udp(B, A, IP_B, IP_A, 2000, sport))
                answered += 1

        unsubscribe = h2.datapath.subscribe(answer_at_once)
        for sport in range(3000, 3050):
            network.forward(udp(A, B, IP_A, IP_B, sport))
        await eventually(lambda: len(h1.at(network.a)) == 50)
        unsubscribe()
        assert answered == 50
        assert network.dropped_at_b() == 0


async def test_a_lost_state_frame_is_told_again(deployment: Deployment) -> None:
    async with _two_hosts(deployment) as network:
        h1, h2 = network.h1, network.h2
        lost: list[bytes] = []
        h2.datapath.receive_state(lost.append)
        network.forward(udp(A, B, IP_A, IP_B))
        await eventually(lambda: lost)
        h2.datapath.receive_state(h2.agent.exchange.received)
        table = h2.agent.decisions.connections.table
        await eventually(lambda: len(table) == 1)
        network.back(udp(B, A, IP_B, IP_A, 2000, 1000))
        await eventually(lambda: h1.at(network.a))


async def test_what_was_lost_for_good_is_asked_for(deployment: Deployment) -> None:
    async with _two_hosts(deployment) as network:
        h1, h2 = network.h1, network.h2
        h2.datapath.receive_state(lambda _: None)
        network.forward(_tcp(IP_A, IP_B, TcpFlag.SYN, (1000, 80)))
        engine = h1.agent.exchange.engine
        await eventually(lambda: engine.counters.unacknowledged)
        h2.datapath.receive_state(h2.agent.exchange.received)
        network.back(_tcp(IP_B, IP_A, TcpFlag.SYN | TcpFlag.ACK, (80, 1000)))
        await eventually(lambda: h1.at(network.a))
        assert network.dropped_at_b() == 0


async def test_what_nobody_knows_is_judged_as_new(deployment: Deployment) -> None:
    async with _two_hosts(deployment) as network:
        h1 = network.h1
        network.back(_tcp(IP_B, IP_A, TcpFlag.ACK, (80, 1000)))
        await eventually(lambda: network.dropped_at_b() == 1)
        assert h1.at(network.a) == []


async def test_a_policy_cut_ends_both_directions(deployment: Deployment) -> None:
    async with _two_hosts(deployment) as network:
        h1, h2 = network.h1, network.h2
        network.forward(udp(A, B, IP_A, IP_B))
        await eventually(lambda: h2.take(network.b))
        network.back(udp(B, A, IP_B, IP_A, 2000, 1000))
        await eventually(lambda: h1.take(network.a))
        tables = [host.agent.decisions.connections.table for host in (h1, h2)]
        assert [len(table) for table in tables] == [1, 1]

        # Not a packet is sent any more: the rule alone must end it, at both hosts.
        chain = await deployment.deny_all()
        await deployment.change(Port, network.a, inbound_filter_id=chain)
        await eventually(lambda: [len(table) for table in tables] == [0, 0])
        network.back(udp(B, A, IP_B, IP_A, 2000, 1000))
        await eventually(lambda: network.dropped_at_b() == 1)
        assert h1.at(network.a) == []


async def test_both_ends_open_one_tuple(deployment: Deployment) -> None:
    async with _two_hosts(deployment) as network:
        h1, h2 = network.h1, network.h2
        chain = await _forward_only(deployment)
        await deployment.change(Port, network.b, inbound_filter_id=chain)
        await deployment.change(Port, network.a, outbound_filter_id=None)
        for host in (h1, h2):
            ports = lambda: host.agent.decisions.view.ports  # noqa: B023, E731
            await eventually(lambda: ports()[network.b].inbound_filter_id == chain)  # noqa: B023
            await eventually(lambda: ports()[network.a].outbound_filter_id is None)  # noqa: B023
        there, back = udp(A, B, IP_A, IP_B), udp(B, A, IP_B, IP_A, 2000, 1000)
        network.forward(there)
        network.back(back)
        await eventually(lambda: h2.at(network.b) and h1.at(network.a))
        network.forward(there)
        network.back(back)
        await eventually(lambda: len(h2.at(network.b)) == 2 and len(h1.at(network.a)) == 2)
        for host in (h1, h2):
            table = host.agent.decisions.connections.table
            await eventually(lambda: [one.is_answered for one in table] == [True])  # noqa: B023


async def test_forged_state_lets_nothing_in(deployment: Deployment) -> None:
    async with _two_hosts(deployment) as network:
        h1, h2 = network.h1, network.h2
        network.forward(udp(A, B, IP_A, IP_B))
        await eventually(lambda: len(h2.agent.decisions.connections.table) == 1)
        (known,) = tuple(h2.agent.decisions.connections.table)

        # A peer whose frames are accepted, but that does not know the deployment's secret.
        forger = ExchangeEngine(h1.id, 99, b"guessed!")
        tunnel = h1.agent.decisions.view.tunnels[h2.id]
        output = TunnelOutput(tunnel.kind, tunnel.local, tunnel.remote, STATE_KEY)
        for message in forger.kill(known, [h2.id], 0.0):
            h1.datapath.emit(state_frame(message.data, message.ends), (output,))
        h1.datapath.emit(bytes(20), (output,))
        counters = h2.agent.exchange.engine.counters
        await eventually(lambda: counters.forged == 2)
        assert tuple(h2.agent.decisions.connections.table) == (known,)


async def test_a_port_that_is_deleted_ends_its_connections_elsewhere(
    deployment: Deployment,
) -> None:
    async with _two_hosts(deployment) as network:
        h2 = network.h2
        network.forward(udp(A, B, IP_A, IP_B))
        table = h2.agent.decisions.connections.table
        await eventually(lambda: len(table) == 1)
        await delete(deployment.store, Port, network.a)
        await eventually(lambda: len(table) == 0)


async def test_a_reply_by_another_uplink_of_a_stateful_group_is_known(
    deployment: Deployment,
) -> None:
    async with (
        deployment.agent("h1", "10.9.0.1") as h1,
        deployment.agent("h2", "10.9.0.2") as h2,
        deployment.agent("h3", "10.9.0.3") as h3,
    ):
        router, inside, uplinks, _ = await _uplinks(deployment, h1, h2, h3, grouped=2)
        await _resolve([h1, h2, h3], router, inside, uplinks[0])

        # Nothing that is told arrives; the answer is asked for, for it would be dropped.
        h3.datapath.receive_state(lambda _: None)
        h1.datapath.receive(inside, udp(A, C, "10.0.1.5", "10.0.2.5"))
        await eventually(lambda: h2.at(uplinks[0]))
        engine = h1.agent.exchange.engine
        await eventually(lambda: engine.counters.unacknowledged)
        h3.datapath.receive_state(h3.agent.exchange.received)
        reply = udp(B, mac(0x103), "10.0.2.5", "10.0.1.5", 2000, 1000)
        h3.datapath.receive(uplinks[1], reply)
        await eventually(lambda: h1.at(inside))
        stray = udp(B, mac(0x103), "10.0.2.5", "10.0.1.5", 2001, 1000)
        h3.datapath.receive(uplinks[1], stray)
        await eventually(lambda: h3.datapath.drops().get((uplinks[1], DropReason.FILTERED), 0) == 1)
        assert len(h1.at(inside)) == 1


async def test_a_new_member_of_a_group_is_told_what_is_known(deployment: Deployment) -> None:
    async with (
        deployment.agent("h1", "10.9.0.1") as h1,
        deployment.agent("h2", "10.9.0.2") as h2,
        deployment.agent("h3", "10.9.0.3") as h3,
    ):
        router, inside, uplinks, group_id = await _uplinks(deployment, h1, h2, h3, grouped=1)
        await _resolve([h1, h2, h3], router, inside, uplinks[0])
        h1.datapath.receive(inside, udp(A, C, "10.0.1.5", "10.0.2.5"))
        await eventually(lambda: h2.at(uplinks[0]))
        table = h3.agent.decisions.connections.table
        assert len(table) == 0
        await deployment.change(Port, uplinks[1], port_group_ids=(group_id,))
        await eventually(lambda: len(table) == 1)


async def test_an_answer_to_a_translated_address_is_asked_for(deployment: Deployment) -> None:
    async with (
        deployment.agent("h1", "10.9.0.1") as h1,
        deployment.agent("h2", "10.9.0.2") as h2,
        deployment.agent("h3", "10.9.0.3") as h3,
    ):
        router, inside, uplinks, _ = await _uplinks(deployment, h1, h2, h3, grouped=0)
        await deployment.change(Port, inside, outbound_filter_id=None, inbound_filter_id=None)
        await _translate(deployment, router, "10.0.2.1")
        for host in (h1, h2):
            await eventually(lambda: _has_filters(host, router))  # noqa: B023
        await _resolve([h1, h2, h3], router, inside, uplinks[0])

        # Nothing that is told arrives where the answer will.
        h2.datapath.receive_state(lambda _: None)
        h1.datapath.receive(inside, udp(A, C, "10.0.1.5", "10.0.2.5"))
        await eventually(lambda: h2.at(uplinks[0]))
        left = parse_frame(h2.take(uplinks[0])[0]).key
        assert left.ip_src == parse_ip("10.0.2.1").value
        engine = h1.agent.exchange.engine
        await eventually(lambda: engine.counters.unacknowledged)
        h2.datapath.receive_state(h2.agent.exchange.received)
        answer = udp(B, mac(0x102), "10.0.2.5", "10.0.2.1", 2000, left.l4_src)
        h2.datapath.receive(uplinks[0], answer)
        await eventually(lambda: h1.at(inside))
        back = parse_frame(h1.take(inside)[0]).key
        assert (back.ip_dst, back.l4_dst) == (parse_ip("10.0.1.5").value, 1000)


async def _translate(deployment: Deployment, router: RouterId, address: str) -> None:
    """Have a router translate the source of all that leaves to one of its addresses."""
    out, back = (Chain(id=ChainId(uuid4()), name=name) for name in ("out", "back"))
    translate = Rule(
        id=RuleId(uuid4()),
        chain_id=out.id,
        rank="a",
        action=RuleAction.SNAT,
        nat_targets=(NatTarget(address, address, 20_000, 30_000),),
        flow_action=FlowAction.ACCEPT,
    )
    undo = Rule(
        id=RuleId(uuid4()),
        chain_id=back.id,
        rank="a",
        action=RuleAction.REV_SNAT,
        flow_action=FlowAction.ACCEPT,
        condition=Condition(ip_dst=f"{address}/32"),
    )
    await deployment.store.transact([Create(one) for one in (out, back, translate, undo)])
    await deployment.change(Router, router, inbound_filter_id=back.id, outbound_filter_id=out.id)


def _has_filters(host: RunningAgent, router_id: RouterId) -> bool:
    view = host.agent.decisions.view
    router = view.routers.get(router_id)
    return (
        router is not None
        and {
            router.inbound_filter_id,
            router.outbound_filter_id,
        }
        <= view.chains.keys()
    )


async def _uplinks(
    deployment: Deployment, h1: RunningAgent, h2: RunningAgent, h3: RunningAgent, *, grouped: int
) -> tuple[RouterId, PortId, list[PortId], PortGroupId]:
    """Make a router with a port inside, at h1, where only replies leave, and uplinks at h2 and h3,
    the first `grouped` of them in a stateful group."""
    group = PortGroup(id=PortGroupId(uuid4()), name="uplinks", stateful=True)
    await deployment.store.transact([Create(group)])
    router = await deployment.router()
    inside = await deployment.router_port(router, C, "10.0.1.1/24", h1.id, "tap1")
    uplinks = [
        await deployment.router_port(router, mac(0x100 + n), f"10.0.{n}.1/24", host.id, "tap2")
        for n, host in ((2, h2), (3, h3))
    ]
    members = uplinks[:grouped]
    for uplink in members:
        await deployment.change(Port, uplink, port_group_ids=(group.id,))
    chain = await _only_replies(deployment)
    await deployment.change(Port, inside, inbound_filter_id=await _forward_only(deployment))
    await deployment.change(Port, inside, outbound_filter_id=chain)
    await deployment.settled(h1, h2, h3)
    for host in (h1, h2, h3):
        await eventually(lambda: _is_seen(host, inside, chain, members, group.id))  # noqa: B023
    return router, inside, uplinks, group.id


def _is_seen(
    host: RunningAgent, inside: PortId, chain: ChainId, members: list[PortId], group_id: PortGroupId
) -> bool:
    ports = host.agent.decisions.view.ports
    return ports[inside].outbound_filter_id == chain and all(
        ports[member].stateful_group_id == group_id for member in members
    )


async def _resolve(
    hosts: list[RunningAgent], router: RouterId, inside: PortId, uplink: PortId
) -> None:
    """Let the router learn the MACs behind its ports, at the first two hosts."""
    for host, port, source, address, gateway, port_mac in (
        (hosts[0], inside, A, "10.0.1.5", "10.0.1.1", C),
        (hosts[1], uplink, B, "10.0.2.5", "10.0.2.1", mac(0x102)),
    ):
        answer = arp_reply(
            parse_mac(source),
            parse_ip(address).value,
            parse_mac(port_mac),
            parse_ip(gateway).value,
        )
        host.datapath.receive(port, answer)
        for each in hosts:
            soft = each.agent.soft_state
            await eventually(
                lambda: isinstance(soft.neighbour(router, parse_ip(address)), Neighbour)  # noqa: B023
            )
