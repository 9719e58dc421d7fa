"""The table of connections, against a dictionary that does it the slow way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from midonet.agent.flow_state.connection import Connection, ConnectionKey, Direction, TcpState
from midonet.agent.flow_state.connection_table import Change, ConnectionTable, Refusal
from midonet.agent.flow_state.effects import Sample
from midonet.agent.flow_state.tcp_table import advance
from midonet.agent.flow_state.timeouts import idle_lifetime_s
from midonet.agent.flow_state.zone import Zone
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.flowkey import FlowKey
from midonet.packets.tcp import TcpFlag

PORTS = [PortId(UUID(int=number)) for number in range(1, 4)]
CAPACITY, QUOTA = 6, 3
FACTS = ("chain", "group", "device")


def tuple_of(number: int, protocol: int) -> FiveTuple:
    return FiveTuple(IpVersion.V4, protocol, number, 1, 99, 2)


def connection(
    number: int, source: int, target: int, protocol: int = 17, *, more: tuple[int, ...] = ()
) -> Connection:
    """Return a connection from one port to another, and perhaps further ones."""
    begun = tuple_of(number, protocol)
    return Connection(
        ConnectionKey(Zone(PORTS[source]), begun),
        tuple(ConnectionKey(Zone(PORTS[one]), begun.inverse()) for one in (target, *more)),
        PORTS[source],
    )


def sample(*facts: str) -> Sample:
    return Sample(frozenset(facts), FlowKey(0, 0))


@dataclass
class Known:
    """What the slow way remembers."""

    connection: Connection
    used_s: float
    facts: frozenset[str]


class Machine(RuleBasedStateMachine):
    """Packets, time and what others tell, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: list[tuple[Change, Connection]] = []
        self.table = ConnectionTable(
            capacity=CAPACITY,
            port_quota=QUOTA,
            on_change=lambda change, one: self.changes.append((change, one)),
        )
        self.known: list[Known] = []
        self.now_s = 0.0

    def is_over(self, known: Known) -> bool:
        return self.now_s - known.used_s >= idle_lifetime_s(known.connection)

    def holder(self, key: ConnectionKey) -> Known | None:
        found = [one for one in self.known if key in one.connection.keys and not self.is_over(one)]
        assert len(found) <= 1
        return found[0] if found else None

    def sync(self) -> None:
        """Take over the removals that the table told of; each must have been allowed."""
        for change, gone in self.changes:
            if change in (Change.CONFIRMED, Change.ADVANCED, Change.TOLD):
                continue
            [one] = [one for one in self.known if one.connection.is_same(gone)]
            if change is Change.EXPIRED:
                assert self.is_over(one)
            if change is Change.EVICTED:
                assert not one.connection.is_answered or one.connection.tcp is TcpState.CLOSED
            self.known.remove(one)
        self.changes.clear()

    @rule(
        number=st.integers(1, 6),
        ends=st.permutations([0, 1, 2]),
        protocol=st.sampled_from((6, 17)),
        is_flood=st.booleans(),
        facts=st.frozensets(st.sampled_from(FACTS)),
    )
    def confirm(
        self, number: int, ends: list[int], protocol: int, is_flood: bool, facts: frozenset[str]
    ) -> None:
        source, target, other = ends
        begun = connection(number, source, target, protocol, more=(other,) if is_flood else ())
        taken = any(self.holder(key) for key in begun.keys)
        at_port = sum(one.connection.initiator == begun.initiator for one in self.known)
        established_elsewhere = [
            one.connection
            for one in self.known
            if one.connection.is_answered and one.connection.initiator != begun.initiator
        ]
        outcome = self.table.confirm(begun, self.now_s, sample=sample(*facts))
        gone = [one for change, one in self.changes if change is Change.EVICTED]
        assert all(one.initiator == begun.initiator for one in gone)
        assert not any(one in established_elsewhere for one in gone)
        self.sync()
        if taken:
            assert outcome is Refusal.TAKEN
        elif isinstance(outcome, Refusal):
            assert at_port >= QUOTA or len(self.known) >= CAPACITY
        else:
            assert replace(outcome, serial=0) == begun
            self.known.append(Known(outcome, self.now_s, facts))

    @precondition(lambda self: self.known)
    @rule(data=st.data(), flags=st.integers(0, 63))
    def packet(self, data: st.DataObject, flags: int) -> None:
        one = data.draw(st.sampled_from(self.known))
        key = data.draw(st.sampled_from(one.connection.keys))
        direction = one.connection.direction_of(key)
        seen = self.table.advance(key, direction, flags, self.now_s)
        if self.is_over(one):
            assert seen is None
            return
        before = one.connection
        tcp = advance(before.tcp, direction, flags) if before.forward.tuple.protocol == 6 else 0
        answered = before.is_answered or direction is Direction.RETURN
        one.connection = replace(before, tcp=TcpState(tcp), is_answered=answered)
        one.used_s = self.now_s
        assert seen == one.connection
        assert bool(self.changes) == (one.connection != before)
        self.changes.clear()

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.known))
        stale = replace(one.connection, serial=one.connection.serial + 1000)
        assert not self.table.kill(stale)
        assert self.table.kill(one.connection)
        self.sync()

    @precondition(lambda self: self.known)
    @rule(data=st.data(), port=st.integers(0, 2))
    def extend(self, data: st.DataObject, port: int) -> None:
        one = data.draw(st.sampled_from(self.known))
        key = ConnectionKey(Zone(PORTS[port]), one.connection.forward.tuple.inverse())
        wider = replace(one.connection, returns=(*one.connection.returns, key))
        holder = self.holder(key)
        outcome = self.table.confirm(wider, self.now_s, replaces=one.connection)
        self.sync()
        if holder is not None and holder is not one:
            assert outcome is Refusal.TAKEN
            return
        assert isinstance(outcome, Connection)
        assert outcome.serial == one.connection.serial
        assert set(outcome.keys) == {*one.connection.keys, key}
        one.connection, one.used_s = outcome, self.now_s

    @rule(number=st.integers(1, 6), ends=st.permutations([0, 1, 2]), left_s=st.floats(1, 200))
    def told(self, number: int, ends: list[int], left_s: float) -> None:
        begun = connection(number, ends[0], ends[1])
        here = self.holder(begun.forward)
        outcome = self.table.told(begun, left_s, self.now_s)
        self.sync()
        if here is None and isinstance(outcome, Connection):
            lifetime_s = idle_lifetime_s(outcome)
            used_s = self.now_s - max(0.0, lifetime_s - left_s)
            self.known.append(Known(outcome, used_s, frozenset()))
        elif here is not None and isinstance(outcome, Connection):
            assert outcome.is_same(here.connection)
            here.connection = outcome
            lifetime_s = idle_lifetime_s(outcome)
            if outcome.forward == begun.forward:
                here.used_s = max(here.used_s, self.now_s - max(0.0, lifetime_s - left_s))
        elif outcome is Refusal.TAKEN:
            assert any(self.holder(key) for key in begun.keys)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def peer_kills(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.known))
        for key in one.connection.returns:
            assert not self.table.killed_by_peer(key)
        assert self.table.killed_by_peer(one.connection.forward)
        self.sync()

    @rule(index=st.integers(0, 2))
    def port_goes(self, index: int) -> None:
        gone = self.table.forget_port(PORTS[index])
        for one in gone:
            assert any(key.zone.scope == PORTS[index] for key in one.keys)
        self.sync()
        for one in self.known:
            assert all(key.zone.scope != PORTS[index] for key in one.connection.keys)

    @rule(seconds=st.sampled_from((1.0, 50.0, 130.0, 300.0, 8000.0)))
    def time(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(budget=st.integers(0, 8))
    def expire(self, budget: int) -> None:
        everybody = budget >= len(self.known)
        self.table.expire(self.now_s, budget)
        self.sync()
        if everybody:
            assert not any(self.is_over(one) for one in self.known)

    @invariant()
    def finds_what_is_known(self) -> None:
        assert len(self.table) == len(self.known) <= CAPACITY
        assert {one.serial for one in self.table} == {one.connection.serial for one in self.known}
        for one in self.known:
            wanted = None if self.is_over(one) else one.connection
            for key in one.connection.keys:
                assert self.table.find(key, self.now_s) == wanted
        for port in PORTS:
            count = sum(one.connection.initiator == port for one in self.known)
            assert self.table.count_of(port) == count

    @invariant()
    def knows_what_depends_on_facts(self) -> None:
        for fact in FACTS:
            wanted = {one.connection.serial for one in self.known if fact in one.facts}
            assert {one.serial for one in self.table.dependents([fact])} == wanted

    @invariant()
    def keeps_nothing_of_what_is_gone(self) -> None:
        keys = {key for one in self.known for key in one.connection.keys}
        assert set(self.table._records) == keys
        assert set(self.table._by_scope) == {key.zone.scope for key in keys}
        assert not self.known or sum(map(len, self.table._half_open.values())) == sum(
            not one.connection.is_answered or one.connection.tcp is TcpState.CLOSED
            for one in self.known
        )


TestTable = Machine.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_flood_of_halves_ends_nobody_elses_connection() -> None:
    table = ConnectionTable(capacity=100, port_quota=10)
    mine = [connection(number, 0, 2, 6) for number in range(5)]
    for one in mine:
        table.confirm(one, 0.0)
        table.advance(one.forward, Direction.FORWARD, TcpFlag.SYN, 0.0)
        table.advance(one.returns[0], Direction.RETURN, TcpFlag.SYN | TcpFlag.ACK, 0.0)
    for number in range(1000, 3000):
        outcome = table.confirm(connection(number, 1, 2, 6), 1.0)
        assert isinstance(outcome, Connection)
        table.confirm(connection(number, 0, 2, 6), 1.0)
    for one in mine:
        assert table.find(one.forward, 2.0) is not None
    assert table.count_of(PORTS[0]) <= 10
    assert table.count_of(PORTS[1]) <= 10


def test_a_port_whose_connections_are_all_answered_is_refused() -> None:
    table = ConnectionTable(capacity=100, port_quota=2)
    for number in (1, 2):
        one = connection(number, 0, 1)
        table.confirm(one, 0.0)
        table.advance(one.returns[0], Direction.RETURN, 0, 0.0)
    assert table.confirm(connection(3, 0, 1), 1.0) is Refusal.PORT_QUOTA


def test_a_full_table_refuses_who_has_nothing_to_give_way() -> None:
    table = ConnectionTable(capacity=2, port_quota=2)
    for number in (1, 2):
        table.confirm(connection(number, 0, 1), 0.0)
    assert table.confirm(connection(3, 1, 2), 1.0) is Refusal.FULL


def test_a_closed_connection_gives_way_to_the_next_under_its_keys() -> None:
    table = ConnectionTable()
    first = table.confirm(connection(1, 0, 1, 6), 0.0)
    assert isinstance(first, Connection)
    closed = table.advance(first.forward, Direction.FORWARD, TcpFlag.RST, 0.0)
    assert closed is not None
    second = table.confirm(connection(1, 0, 1, 6), 1.0, replaces=closed)
    assert isinstance(second, Connection)
    assert second.serial > first.serial
    assert not table.kill(first)
    assert table.find(second.forward, 1.0) == second


def test_crossed_opens_prove_each_other() -> None:
    table = ConnectionTable()
    mine = table.confirm(connection(1, 0, 1), 0.0)
    assert isinstance(mine, Connection)
    theirs = Connection(mine.returns[0], (mine.forward,), PORTS[1])
    kept = table.told(theirs, 100.0, 1.0)
    assert isinstance(kept, Connection)
    assert kept.is_same(mine)
    assert kept.is_answered


def test_a_self_inverse_tuple_is_entered_once() -> None:
    same = FiveTuple(IpVersion.V4, 17, 7, 5000, 7, 5000)
    key = ConnectionKey(Zone(PORTS[0]), same)
    assert same.inverse() == same
    table = ConnectionTable()
    assert isinstance(table.confirm(Connection(key, (), PORTS[0]), 0.0), Connection)
    assert len(table) == 1
    found = table.find(key, 1.0)
    assert found is not None
    assert table.kill(found)
    assert len(table) == 0
