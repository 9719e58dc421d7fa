"""Packets that begin connections: what is entered before they leave, and what is refused."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from midonet.agent.datapath.memory import InProcessUnderlay, MemoryDatapath
from midonet.agent.datapath.protocol import PortAttachment
from midonet.agent.decisions.decisions import Decisions
from midonet.agent.decisions.upcalls import PacketLoop
from midonet.agent.flow_state.connection_table import ConnectionTable
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.tags import RouteRegion, chain_tag
from midonet.agent.host.connection_journal import ConnectionJournal
from midonet.agent.host.state_directory import StateDirectory
from midonet.agent.soft_state.lessons import LearnNeighbour
from midonet.agent.soft_state.replica import SoftStateReplica
from midonet.agent.topology.view import ViewDelta
from midonet.model.chains import PortRange
from midonet.model.ids import HostId, PortId, RouterId
from midonet.packets.addresses import IpVersion, parse_ip
from midonet.runtime.clock import ManualClock
from tests.scenario.frames import R1, R2, A, B, C, mac, udp
from tests.worlds import World, nat, rule

THERE, BACK = ("10.0.0.1", "10.0.0.2"), ("10.0.0.2", "10.0.0.1")


def guarded(*, denied_port: int | None = None) -> World:
    """Return a bridge of two ports; the second may only answer."""
    world = World().bridge("b").port("a", on="b", host="h1", inbound="asks")
    world.port("c", on="b", host="h1", inbound="answers")
    denied = PortRange(denied_port, denied_port) if denied_port else None
    refusal = (rule("drop", l4_src=denied),) if denied else ()
    world.chain("asks", *refusal, rule("accept", match_forward_flow=True))
    world.chain("answers", rule("accept", match_return_flow=True), rule("drop"))
    return world


class Shell:
    """Decisions on a memory datapath, over a world."""

    def __init__(self, world: World, table: ConnectionTable | None = None) -> None:
        self.world = world
        self.clock = ManualClock()
        self.datapath = MemoryDatapath(InProcessUnderlay(), clock=self.clock)
        host_id = HostId(world.id(world.local))
        soft_state = SoftStateReplica(host_id, self.clock, lambda _: None)
        self.decisions = Decisions(
            host_id,
            self.datapath,
            self.clock,
            soft_state,
            lambda _: None,
            connection_table=table,
        )
        self.loop = PacketLoop(self.datapath, self.decisions, self.clock, lambda: None)
        self._left: list[tuple[PortId, bytes]] = []
        self.datapath.subscribe(lambda port_id, frame: self._left.append((port_id, frame)))
        self.decisions.view = world.view()
        for port_id in self.decisions.view.ports:
            self.datapath.attach(PortAttachment(port_id, str(port_id)[:15]))

    async def open(self) -> Shell:
        await self.datapath.open()
        return self

    async def send(self, port: str, *frames: bytes) -> list[tuple[str, bytes]]:
        """Let frames enter, one after the other; return what leaves, by name of the port."""
        self._left.clear()
        for frame in frames:
            self.datapath.receive(self.world.port_id(port), frame)
            with suppress(TimeoutError):
                async with asyncio.timeout(0):
                    for upcall in await self.datapath.upcalls(100):
                        self.decisions.enqueue(upcall)
            self.work()
        return [(self.world.name(port_id), frame) for port_id, frame in self._left]

    def work(self) -> None:
        """Do all there is to do."""
        while self.loop.decide_batch():
            pass

    def change(self, world: World) -> None:
        """Let the topology be another."""
        last, self.world = self.decisions.view, world
        self.decisions.view = replace(world.view(), revision=last.revision + 1)
        chains = {chain_tag(chain_id) for chain_id in self.decisions.view.chains}
        self.decisions.view_changed(ViewDelta(last.revision + 1, frozenset(chains)))
        self.work()

    def drops(self, port: str, reason: DropReason) -> int:
        return self.datapath.drops().get((self.world.port_id(port), reason), 0)


def question(port: int = 5000) -> bytes:
    return udp(THERE, (A, B), ports=(port, 53))


def answer(port: int = 5000) -> bytes:
    return udp(BACK, (B, A), ports=(53, port))


async def test_answers_pass_and_nothing_else() -> None:
    shell = await Shell(guarded()).open()
    assert await shell.send("c", answer()) == []
    assert await shell.send("a", question()) == [("c", question())]
    assert await shell.send("c", answer()) == [("a", answer())]
    assert await shell.send("c", answer(5001)) == []


async def test_established_packets_do_not_come_up() -> None:
    shell = await Shell(guarded()).open()
    for port, frame in (("a", question()), ("c", answer())):
        await shell.send(port, frame)
    before = shell.decisions.counters.upcalls
    assert await shell.send("a", question(), question()) == [("c", question())] * 2
    assert await shell.send("c", answer(), answer()) == [("a", answer())] * 2
    assert shell.decisions.counters.upcalls == before


async def test_a_refused_connection_is_a_named_drop_and_nothing_leaves() -> None:
    shell = await Shell(guarded(), ConnectionTable(capacity=8, port_quota=2)).open()
    for port in (1, 2):
        await shell.send("a", question(port))
        await shell.send("c", answer(port))
    assert await shell.send("a", question(3)) == []
    assert shell.drops("a", DropReason.CONNECTION_LIMIT) == 1
    assert await shell.send("c", answer(3)) == []
    assert await shell.send("a", question(1)) == [("c", question(1))]


async def test_policy_that_is_withdrawn_cuts_both_directions() -> None:
    shell = await Shell(guarded()).open()
    for port, frame in (("a", question()), ("c", answer())):
        assert await shell.send(port, frame)
    shell.change(guarded(denied_port=5000))
    assert len(shell.decisions.connections.table) == 0
    assert await shell.send("c", answer()) == []
    assert await shell.send("a", question()) == []


async def test_policy_for_others_cuts_nothing() -> None:
    shell = await Shell(guarded()).open()
    await shell.send("a", question())
    shell.change(guarded(denied_port=1))
    assert await shell.send("c", answer()) == [("a", answer())]


async def test_a_connection_that_programs_serve_lives_on() -> None:
    shell = await Shell(guarded()).open()
    for port, frame in (("a", question()), ("c", answer())):
        await shell.send(port, frame)
    for _ in range(40):
        shell.clock.advance(10.0)
        await shell.send("a", question())
        shell.loop.tick()
        shell.work()
    assert await shell.send("c", answer()) == [("a", answer())]


async def test_an_idle_connection_is_over() -> None:
    shell = await Shell(guarded()).open()
    for port, frame in (("a", question()), ("c", answer())):
        await shell.send(port, frame)
    for _ in range(40):
        shell.clock.advance(10.0)
        shell.loop.tick()
        shell.work()
    assert len(shell.decisions.connections.table) == 0
    assert await shell.send("c", answer()) == []


async def test_a_port_that_is_gone_takes_its_connections_along() -> None:
    shell = await Shell(guarded()).open()
    await shell.send("a", question())
    shell.datapath.detach(shell.world.port_id("a"))
    shell.decisions.forget_port(shell.world.port_id("a"))
    shell.work()
    assert len(shell.decisions.connections.table) == 0


async def test_a_key_is_given_back_by_a_connection_of_a_former_owner() -> None:
    """An address moves to another port, and its new owner uses the same ports."""
    world = guarded().port("d", on="b", host="h1", inbound="asks")
    shell = await Shell(world).open()
    await shell.send("a", question())
    assert await shell.send("c", answer()) == [("a", answer())]
    # d sends in the name of a: that is where the address is from now on.
    assert await shell.send("d", question()) == [("c", question())]
    assert [one.initiator for one in shell.decisions.connections.table] == [world.port_id("d")]
    assert await shell.send("c", answer()) == [("d", answer())]


async def test_a_key_is_kept_by_a_connection_whose_answers_arrive() -> None:
    """Who forges the address of another, without being where it is, does not get its answers."""
    world = guarded().port("d", on="b", host="h1", inbound="asks")
    shell = await Shell(world).open()
    await shell.send("a", question())
    assert await shell.send("c", answer()) == [("a", answer())]
    forged = udp(THERE, (C, B), ports=(5000, 53))
    assert await shell.send("d", forged) == []
    assert shell.drops("d", DropReason.CONNECTION_LIMIT) == 1
    assert await shell.send("c", answer()) == [("a", answer())]


async def test_an_address_that_leaves_a_group_loses_what_it_has_begun() -> None:
    def granted(*members: str) -> World:
        world = World().bridge("b").port("a", on="b", host="h1", inbound="asks")
        world.port("c", on="b", host="h1", inbound="answers")
        world.address_group("clients", *members)
        world.chain(
            "asks",
            rule("accept", ip_address_group_src_id=World().id("clients"), match_forward_flow=True),
            rule("drop"),
        )
        return world.chain("answers", rule("accept", match_return_flow=True), rule("drop"))

    shell = await Shell(granted("10.0.0.1/32", "10.0.0.7/32")).open()
    await shell.send("a", question())
    group_id = shell.world.id("clients")
    for members, address, left in ((("10.0.0.1/32",), "10.0.0.7", 1), ((), "10.0.0.1", 0)):
        shell.world = granted(*members)
        view = replace(shell.world.view(), revision=shell.decisions.view.revision + 1)
        shell.decisions.view = view
        region = RouteRegion(group_id, IpVersion.V4, parse_ip(address).value, 32)
        shell.decisions.view_changed(ViewDelta(view.revision, regions=frozenset({region})))
        shell.work()
        assert len(shell.decisions.connections.table) == left
    assert await shell.send("c", answer()) == []


async def test_a_connection_depends_on_the_rules_of_now_not_on_those_it_began_under() -> None:
    def jumping(*rules: str) -> World:
        world = guarded()
        world.chain("extra", *(rule(action) for action in rules))
        return world.chain(
            "asks", rule("jump", jump="extra"), rule("accept", match_forward_flow=True)
        )

    shell = await Shell(guarded()).open()
    await shell.send("a", question())
    shell.change(jumping())
    assert len(shell.decisions.connections.table) == 1
    shell.world = jumping("drop")
    view = replace(shell.world.view(), revision=shell.decisions.view.revision + 1)
    shell.decisions.view = view
    changed = frozenset({chain_tag(shell.world.id("extra"))})
    shell.decisions.view_changed(ViewDelta(view.revision, changed))
    shell.work()
    assert len(shell.decisions.connections.table) == 0


async def test_a_restart_loses_no_connection(tmp_path: Path) -> None:
    """The agent is killed: nothing is closed, and the next one reads what was written."""
    files = StateDirectory(tmp_path)
    first = await Shell(guarded()).open()
    journal = ConnectionJournal(files, first.decisions.connections.table)
    journal.open(first.clock.now_s())
    for port, frame in (("a", question(1)), ("c", answer(1)), ("a", question(2))):
        assert await first.send(port, frame)
    journal.flush()

    second = await Shell(guarded(denied_port=2)).open()
    ConnectionJournal(files, second.decisions.connections.table).open(second.clock.now_s())
    assert len(second.decisions.connections.table) == 2
    second.decisions.connections.begin(second.decisions.view)
    second.work()
    assert await second.send("c", answer(2)) == []  # forbidden while nobody was there
    [kept] = second.decisions.connections.table
    assert kept.is_answered
    # a's place is not learnt yet by this agent, so the answer is flooded: to a alone.
    assert await second.send("c", answer(1)) == [("a", answer(1))]
    files.close()


async def test_connections_of_ports_that_left_meanwhile_are_over(tmp_path: Path) -> None:
    files = StateDirectory(tmp_path)
    first = await Shell(guarded()).open()
    journal = ConnectionJournal(files, first.decisions.connections.table)
    journal.open(first.clock.now_s())
    await first.send("a", question())
    journal.flush()
    gone = World().bridge("b").port("c", on="b", host="h1").absent("a")
    second = await Shell(gone).open()
    ConnectionJournal(files, second.decisions.connections.table).open(second.clock.now_s())
    second.decisions.connections.begin(second.decisions.view)
    assert len(second.decisions.connections.table) == 0
    files.close()


async def test_translated_sources_stay_reserved_over_a_restart(tmp_path: Path) -> None:
    """What a connection from before holds is nobody else's, until that connection is over."""

    def masqueraded() -> World:
        world = World().bridge("left").bridge("right").router("r", outbound="post")
        world.port("a", on="left", host="h1").port("c", on="right", host="h1")
        world.port("r1", on="r", mac=R1, addresses=("10.0.1.1/24",)).attach("r1", "left")
        world.port("r2", on="r", mac=R2, addresses=("10.0.2.1/24",)).attach("r2", "right")
        return world.chain("post", nat("snat", "10.0.2.77 5000-5001"))

    def asks(port: int) -> bytes:
        return udp(("10.0.1.5", "10.0.2.5"), (A, R1), ports=(port, 53))

    async def begun() -> Shell:
        shell = await Shell(masqueraded()).open()
        router_id = RouterId(shell.world.id("r"))
        lesson = LearnNeighbour(router_id, parse_ip("10.0.2.5"), mac(B))
        shell.decisions.soft_state.learn_neighbour(lesson, shell.world.port_id("c"))
        return shell

    files = StateDirectory(tmp_path)
    first = await begun()
    journal = ConnectionJournal(files, first.decisions.connections.table)
    journal.open(first.clock.now_s())
    assert len(await first.send("a", asks(1))) == 1
    reserved = set(first.decisions.connections.translations.allocations)
    journal.flush()
    second = await begun()
    ConnectionJournal(files, second.decisions.connections.table).open(second.clock.now_s())
    assert len(reserved) == 1
    assert set(second.decisions.connections.translations.allocations) == reserved
    assert len(await second.send("a", asks(2))) == 1
    assert await second.send("a", asks(3)) == []
    assert second.drops("a", DropReason.NAT_EXHAUSTED) == 1
    [old] = [one for one in second.decisions.connections.table if one.initiator and one.serial == 1]
    assert second.decisions.connections.table.kill(old)
    assert len(await second.send("a", asks(3))) == 1
    files.close()
