"""The connections a host knows: one record each, found by all of its keys or by none.

Nothing here reads a clock: every method takes `now_s`. What has expired counts as free at look-up,
and a cursor removes it in its own time. Nothing is overwritten by a packet: a key that is taken
refuses the newcomer. Whoever removes says which record it saw (`Connection.serial`).

A port has a quota of the connections that began there. Over it (and when the table is full) the
oldest half-open one of the same port makes room, one of which only one side was seen; there is no
other way in which a packet ends somebody's connection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from midonet.agent.flow_state.connection import Connection, ConnectionKey, Direction, TcpState
from midonet.agent.flow_state.effects import Sample
from midonet.agent.flow_state.fact_index import FactIndex
from midonet.agent.flow_state.tcp_table import advance, merged
from midonet.agent.flow_state.timeouts import DEFAULT_TIMEOUTS, Timeouts, idle_lifetime_s
from midonet.model.ids import ObjectId, PortId
from midonet.packets.protocols import IpProtocol

_TCP = int(IpProtocol.TCP)

CAPACITY = 131_072
"""Connections a host keeps by default: some 200 MB when all are in use."""

_SHARE_OF_A_PORT = 4
"""A port may have this fraction of them by default: a gateway's uplink begins many."""


class Refusal(Enum):
    """Why a connection is not entered."""

    PORT_QUOTA = "port_quota"  # the port has its share, all of it answered
    FULL = "full"  # the table is full, and the port has nothing half-open
    TAKEN = "taken"  # one of the keys belongs to another connection


class Change(Enum):
    """What became of a connection."""

    CONFIRMED = "confirmed"  # it is new, or has more return keys
    ADVANCED = "advanced"  # its TCP state is another, or its first answer was seen
    KILLED = "killed"  # policy forbids it, or it led nowhere
    EVICTED = "evicted"  # it made room for another of its port
    EXPIRED = "expired"  # it was idle for too long
    REPLACED = "replaced"  # it was over, and another one began under its keys
    FORGOTTEN = "forgotten"  # a port where it began or ended is gone
    TOLD = "told"  # another host told of it: it is new here, or found by more keys
    UNTOLD = "untold"  # another host has killed it, or knows better
    RESTORED = "restored"  # it was known before a restart


OnChange = Callable[[Change, Connection], None]
"""Told of each change, when the table has made it already. It may read the table, not change it."""


@dataclass(slots=True, eq=False)
class _Record:
    """One connection with what only its table needs.

    place: index in the list that the cursor goes through. sample: None when another host told of
    it, which judges it.
    """

    connection: Connection
    used_s: float
    place: int
    sample: Sample | None


class ConnectionTable:
    """Connections by key, by port and by the facts they depend on. A `ConnectionReader`."""

    def __init__(
        self,
        *,
        capacity: int = CAPACITY,
        port_quota: int | None = None,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        first_serial: int = 1,
        on_change: OnChange | None = None,
    ) -> None:
        """Make an empty table.

        capacity, port_quota: largest number of connections, and of those that began at one port.
        first_serial: connections of earlier lives of this host had smaller ones.
        """
        self._capacity = capacity
        self._quota = port_quota or max(1, capacity // _SHARE_OF_A_PORT)
        self._timeouts = timeouts
        self._next_serial = first_serial
        self._listeners: list[OnChange] = [on_change] if on_change else []
        self._records: dict[ConnectionKey, _Record] = {}
        self._order: list[_Record] = []
        self._by_scope: dict[ObjectId, set[_Record]] = {}
        self._begun: Counter[PortId] = Counter()
        self._half_open: dict[PortId, dict[_Record, None]] = {}
        self._index: FactIndex[_Record] = FactIndex()
        self._should_wait: Callable[[ConnectionKey, float], bool] = lambda _key, _now_s: False
        self._cursor = 0

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Connection]:
        return (record.connection for record in self._order)

    def on_change(self, listener: OnChange) -> None:
        """Tell a further listener of each change."""
        self._listeners.append(listener)

    # Reading.

    def by_forward(self, key: ConnectionKey) -> Connection | None:
        """Return the connection that began with a key, expired or not; None when there is none."""
        record = self._records.get(key)
        if record is None or record.connection.forward != key:
            return None
        return record.connection

    def find(self, key: ConnectionKey, now_s: float) -> Connection | None:
        """Return the connection that has a key; one that has expired is not there."""
        record = self._records.get(key)
        if record is None or self._is_over(record, now_s):
            return None
        return record.connection

    def should_wait(self, key: ConnectionKey, now_s: float) -> bool:
        """Tell whether another host may know a key that is not here, and can still be asked."""
        return self._should_wait(key, now_s)

    def ask_first(self, should_wait: Callable[[ConnectionKey, float], bool]) -> None:
        """Let `should_wait` say so from now on; before, there is nobody to ask."""
        self._should_wait = should_wait

    def sample(self, connection: Connection) -> Sample | None:
        """Return what to judge a connection by, None when it is gone or judged elsewhere."""
        record = self._record(connection)
        return None if record is None else record.sample

    def idle_s(self, connection: Connection, now_s: float) -> float:
        """Return the time (s) since the last packet of a connection; 0 when it is gone."""
        record = self._record(connection)
        return 0.0 if record is None else max(0.0, now_s - record.used_s)

    def remaining_s(self, connection: Connection, now_s: float) -> float:
        """Return the time (s) that is left to a connection without further packets."""
        left_s = idle_lifetime_s(connection, self._timeouts) - self.idle_s(connection, now_s)
        return max(0.0, left_s)

    def slice(self, start: int, count: int) -> tuple[Connection, ...]:
        """Return some connections in the order of the table, which removals change."""
        return tuple(record.connection for record in self._order[start : start + count])

    def at_scope(self, scope: ObjectId) -> tuple[Connection, ...]:
        """Return the connections that have a key in a zone of a port or a port group."""
        return tuple(record.connection for record in self._by_scope.get(scope, ()))

    def count_of(self, port_id: PortId) -> int:
        """Return how many connections began at a port."""
        return self._begun[port_id]

    def dependents(self, facts: Iterable[Hashable]) -> list[Connection]:
        """Return the connections whose confirming walk met any of these facts."""
        return [record.connection for record in self._index.dependents(facts)]

    # Changing.

    def confirm(
        self,
        connection: Connection,
        now_s: float,
        *,
        sample: Sample | None = None,
        replaces: Connection | None = None,
    ) -> Connection | Refusal:
        """Enter a connection under all its keys, or say why under none.

        replaces: gives way to it, if it is still what it was. When that is the same connection
        with fewer keys it keeps its serial number, its state and its time.
        Returns the connection with its serial number.
        """
        old = self._record(replaces) if replaces is not None else None
        if old is not None and old.connection.serial == connection.serial:
            return self._extend(old, connection, now_s, sample)
        if not self._are_free(connection.keys, old, now_s):
            return Refusal.TAKEN
        if old is None or old.connection.initiator != connection.initiator:
            refusal = self._make_room(connection.initiator)
            if refusal is not None:
                return refusal
        if replaces is not None and (old := self._record(replaces)) is not None:
            self._remove(old, Change.REPLACED)
        entered = replace(connection, serial=self._next_serial)
        self._next_serial += 1
        self._add(entered, now_s, sample)
        self._tell(Change.CONFIRMED, entered)
        return entered

    def told(
        self, connection: Connection, remaining_s: float, now_s: float
    ) -> Connection | Refusal:
        """Take in a connection that another host tells of, or that was stored.

        remaining_s: how long it lives on without packets. The same connection (forward key and
        bindings) is brought up to date: each host sees what enters there. When both ends have
        opened one tuple without translation the two prove each other: the one that is here stays,
        answered. A translated one takes the place of an unanswered one without translation.
        Otherwise the one that is here stays, and the other is TAKEN. It counts for its port, but
        evicts nothing there.
        """
        record = self._records.get(connection.forward)
        if record is not None and not self._is_over(record, now_s):
            if _are_one(record.connection, connection):
                return self._merge(record, connection, remaining_s, now_s)
            if _are_crossed(record.connection, connection):
                self._set(record, replace(record.connection, is_answered=True))
                self._tell(Change.TOLD, record.connection)
                return record.connection
        if connection.bindings:
            for key in connection.keys:
                found = self._records.get(key)
                if found is not None and _gives_way(found.connection):
                    self._remove(found, Change.UNTOLD)
        if not self._are_free(connection.keys, None, now_s):
            return Refusal.TAKEN
        if len(self._order) >= self._capacity:
            return Refusal.FULL
        entered = replace(connection, serial=self._next_serial)
        self._next_serial += 1
        idle_s = idle_lifetime_s(entered, self._timeouts) - remaining_s
        self._add(entered, now_s - max(0.0, idle_s), None)
        self._tell(Change.TOLD, entered)
        return entered

    def _merge(
        self, record: _Record, told: Connection, remaining_s: float, now_s: float
    ) -> Connection:
        known = record.connection
        returns = tuple(dict.fromkeys((*known.returns, *told.returns)))
        if not self._are_free(returns, record, now_s):
            returns = known.returns
        now = replace(
            known,
            returns=returns,
            tcp=merged(known.tcp, told.tcp),
            is_answered=known.is_answered or told.is_answered,
        )
        self._set(record, now)
        idle_s = idle_lifetime_s(now, self._timeouts) - remaining_s
        record.used_s = max(record.used_s, now_s - max(0.0, idle_s))
        if len(returns) > len(known.returns):
            self._tell(Change.TOLD, now)
        return now

    def set_facts(self, connection: Connection, facts: frozenset[Hashable]) -> None:
        """Let a connection that is judged here depend on other facts from now on."""
        record = self._record(connection)
        if record is not None and record.sample is not None:
            self._index.discard(record)
            record.sample = self._indexed(record, replace(record.sample, facts=facts))

    def advance(
        self,
        key: ConnectionKey,
        direction: Direction,
        tcp_flags: int,
        now_s: float,
        *,
        seen_s: float | None = None,
    ) -> Connection | None:
        """Take note of a packet; return the connection it belongs to, None when that is gone.

        tcp_flags: its eight flag bits, 0 of other protocols. seen_s: when it went by, if not now.
        """
        record = self._records.get(key)
        if record is None or self._is_over(record, now_s):
            return None
        record.used_s = max(record.used_s, now_s if seen_s is None else seen_s)
        known = record.connection
        state = known.tcp
        if known.forward.tuple.protocol == _TCP:
            state = advance(state, direction, tcp_flags)
        is_answered = known.is_answered or direction is Direction.RETURN
        if state is not known.tcp or is_answered is not known.is_answered:
            self._set(record, replace(known, tcp=state, is_answered=is_answered))
            self._tell(Change.ADVANCED, record.connection)
        return record.connection

    def kill(self, connection: Connection) -> bool:
        """Remove a connection because it must not go on. False when it is another by now."""
        record = self._record(connection)
        if record is not None:
            self._remove(record, Change.KILLED)
        return record is not None

    def restore(
        self, connection: Connection, now_s: float, *, sample: Sample | None = None
    ) -> Connection | Refusal:
        """Enter a connection from before a restart. Its time begins anew, and it counts for its
        port, but evicts nothing there."""
        if not self._are_free(connection.keys, None, now_s):
            return Refusal.TAKEN
        if len(self._order) >= self._capacity:
            return Refusal.FULL
        entered = replace(connection, serial=self._next_serial)
        self._next_serial += 1
        self._add(entered, now_s, sample)
        self._tell(Change.RESTORED, entered)
        return entered

    def killed_by_peer(self, forward: ConnectionKey) -> bool:
        """Remove a connection because another host has killed it. False when it is not here."""
        record = self._records.get(forward)
        if record is None or record.connection.forward != forward:
            return False
        self._remove(record, Change.UNTOLD)
        return True

    def forget_port(self, port_id: PortId) -> tuple[Connection, ...]:
        """Remove the connections of a zone that is gone: that begin or end at a port.

        Those of its stateful group go on: their packets may take the other ports.
        """
        gone = sorted(
            self._by_scope.get(port_id, ()), key=lambda record: record.place, reverse=True
        )
        for record in gone:
            self._remove(record, Change.FORGOTTEN)
        return tuple(record.connection for record in gone)

    def expire(self, now_s: float, budget: int) -> tuple[Connection, ...]:
        """Look at the next `budget` connections in turn; remove and return what is over."""
        expired: list[Connection] = []
        for _ in range(min(budget, len(self._order))):
            if self._cursor >= len(self._order):
                self._cursor = 0
            record = self._order[self._cursor]
            if self._is_over(record, now_s):
                self._remove(record, Change.EXPIRED)  # the last one takes its place
                expired.append(record.connection)
            else:
                self._cursor += 1
        return tuple(expired)

    # Inside.

    def _record(self, connection: Connection) -> _Record | None:
        record = self._records.get(connection.forward)
        if record is None or not record.connection.is_same(connection):
            return None
        return record

    def _is_over(self, record: _Record, now_s: float) -> bool:
        return now_s - record.used_s >= idle_lifetime_s(record.connection, self._timeouts)

    def _are_free(self, keys: Iterable[ConnectionKey], spare: _Record | None, now_s: float) -> bool:
        """Tell whether no other connection than `spare` has these keys; what is over gives way."""
        for key in keys:
            found = self._records.get(key)
            if found is None or found is spare:
                continue
            if not self._is_over(found, now_s):
                return False
            self._remove(found, Change.EXPIRED)
        return True

    def _make_room(self, port_id: PortId) -> Refusal | None:
        is_over_quota = self.count_of(port_id) >= self._quota
        if not is_over_quota and len(self._order) < self._capacity:
            return None
        oldest = next(iter(self._half_open.get(port_id, ())), None)
        if oldest is None:
            return Refusal.PORT_QUOTA if is_over_quota else Refusal.FULL
        self._remove(oldest, Change.EVICTED)
        return None

    def _extend(
        self, record: _Record, connection: Connection, now_s: float, sample: Sample | None
    ) -> Connection | Refusal:
        known = record.connection
        if not self._are_free(connection.keys, record, now_s):
            return Refusal.TAKEN
        returns = tuple(dict.fromkeys((*known.returns, *connection.returns)))
        self._set(record, replace(known, returns=returns, bindings=connection.bindings))
        record.used_s = now_s
        if sample is not None:
            self._index.discard(record)
            record.sample = self._indexed(record, sample)
        self._tell(Change.CONFIRMED, record.connection)
        return record.connection

    def _add(self, connection: Connection, used_s: float, sample: Sample | None) -> None:
        record = _Record(connection, used_s, len(self._order), None)
        self._order.append(record)
        for key in connection.keys:
            self._records[key] = record
            self._by_scope.setdefault(key.zone.scope, set()).add(record)
        self._begun[connection.initiator] += 1
        if _is_half_open(connection):
            self._half_open.setdefault(connection.initiator, {})[record] = None
        if sample is not None:
            record.sample = self._indexed(record, sample)

    def _indexed(self, record: _Record, sample: Sample) -> Sample:
        """Enter a record under the facts of its sample; return the sample with shared facts."""
        return replace(sample, facts=self._index.add(record, sample.facts))

    def _set(self, record: _Record, connection: Connection) -> None:
        """Put what a record says at another time of the same connection's life in its place."""
        for key in connection.keys:
            self._records[key] = record
            self._by_scope.setdefault(key.zone.scope, set()).add(record)
        record.connection = connection
        half_open = self._half_open.get(connection.initiator, {})
        if _is_half_open(connection):
            self._half_open.setdefault(connection.initiator, half_open)[record] = None
        elif half_open.pop(record, record) is None and not half_open:
            del self._half_open[connection.initiator]

    def _remove(self, record: _Record, why: Change) -> None:
        self._take_out(record)
        self._tell(why, record.connection)

    def _take_out(self, record: _Record) -> None:
        connection = record.connection
        for key in connection.keys:
            del self._records[key]
            at_scope = self._by_scope.get(key.zone.scope)
            if at_scope is not None:
                at_scope.discard(record)
                if not at_scope:
                    del self._by_scope[key.zone.scope]
        last = self._order.pop()
        if last is not record:
            self._order[record.place] = last
            last.place = record.place
        self._begun[connection.initiator] -= 1
        if not self._begun[connection.initiator]:
            del self._begun[connection.initiator]
        half_open = self._half_open.get(connection.initiator, {})
        if half_open.pop(record, record) is None and not half_open:
            del self._half_open[connection.initiator]
        self._index.discard(record)

    def _tell(self, change: Change, connection: Connection) -> None:
        for listener in self._listeners:
            listener(change, connection)


def _is_half_open(connection: Connection) -> bool:
    """Tell whether a connection may make room: nobody has answered it, or it is closed."""
    return not connection.is_answered or connection.tcp is TcpState.CLOSED


def _are_one(known: Connection, told: Connection) -> bool:
    return known.forward == told.forward and known.bindings == told.bindings


def _are_crossed(known: Connection, told: Connection) -> bool:
    """Tell whether two connections without translation are one conversation, opened twice."""
    return (
        not known.bindings
        and not told.bindings
        and told.forward in known.returns
        and known.forward in told.returns
    )


def _gives_way(known: Connection) -> bool:
    return not known.bindings and not known.is_answered
