"""The connections of this host, as decisions use them: effects in, changed facts out.

A packet's connection effects are carried out before anything else of it, all or none. Whatever
changes about a connection is told as the tags of its keys, so that programs that depend on it,
or on its absence, are judged again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from midonet.agent.decisions.translations import Translations
from midonet.agent.flow_state.connection import Connection, ConnectionKey
from midonet.agent.flow_state.connection_table import (
    Change,
    ConnectionTable,
    Refusal,
)
from midonet.agent.flow_state.effects import (
    AdvanceConnection,
    ConfirmConnection,
    ConnectionEffect,
    KillConnection,
    LeaseAhead,
    NoteExhaustion,
    Sample,
)
from midonet.agent.flow_state.fragments import NoteFragment, RefuseDatagram
from midonet.agent.flow_state.reader import ConnectionReader
from midonet.agent.flows.tag_index import regions_overlap
from midonet.agent.flows.tags import FlowTag, RouteRegion, connection_tag
from midonet.agent.simulation.confirming import configuration_facts, group_tag
from midonet.agent.simulation.result import Consume, Drop, Forward
from midonet.agent.topology.view import TopologyView
from midonet.model.ids import PortId
from midonet.packets.protocols import IpProtocol
from midonet.packets.tcp import TcpFlag
from midonet.runtime.clock import Clock

_LOOKED_AT = 4096
"""Connections that the cursor looks at in one tick: a millisecond or two."""

_TCP = int(IpProtocol.TCP)
_GOES_ON = int(TcpFlag.ACK)
_CONNECTION_EFFECTS = (
    ConfirmConnection,
    AdvanceConnection,
    KillConnection,
    NoteFragment,
    RefuseDatagram,
    NoteExhaustion,
    LeaseAhead,
)

_CUT = frozenset((Change.KILLED, Change.FORGOTTEN, Change.UNTOLD))
"""Changes after which no packet of the connection may pass."""


class Settlement(Enum):
    """What became of the connection effects of a packet."""

    DONE = "done"
    AGAIN = "again"  # what was chosen is not free; another choice may be
    REFUSED = "refused"  # the connection cannot be entered


FactsChanged = Callable[[frozenset[FlowTag], bool], None]
"""Takes tags of changed facts, and whether what depends on them must not wait."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A connection to be judged again, with the packet that began it."""

    connection: Connection
    sample: Sample


class TrackedConnections:
    """The table of connections, with what its changes mean for programs."""

    def __init__(
        self,
        clock: Clock,
        facts_changed: FactsChanged,
        *,
        table: ConnectionTable | None = None,
        reader: ConnectionReader | None = None,
        fetch: Callable[[ConnectionKey], None] | None = None,
    ) -> None:
        """reader: what simulation asks, the table unless something else stands before it.

        fetch: asks other hosts for a connection; needed when the reader ever waits for them.
        """
        self.table = ConnectionTable() if table is None else table
        self.reader: ConnectionReader = self.table if reader is None else reader
        self.translations = Translations(clock, self.table)
        self.refused = 0
        """Packets that could not begin a connection."""
        self.fetch: Callable[[ConnectionKey], None] = fetch or (lambda _: None)
        self._clock = clock
        self._facts_changed = facts_changed
        self._changed: set[FlowTag] = set()
        self._urgent: set[FlowTag] = set()
        self._suspects: dict[ConnectionKey, Connection] = {}
        self._deferred: list[Connection] = []
        self.table.on_change(self._note)

    def settle(self, effects: Iterable[object]) -> Settlement:
        """Carry out the connection effects among those of a packet; others are left alone.

        Unless DONE a connection could not be entered, and the packet must not leave.
        """
        now_s = self._clock.now_s()
        outcome = Settlement.DONE
        for effect in effects:
            if isinstance(effect, _CONNECTION_EFFECTS) and outcome is Settlement.DONE:
                outcome = self._carry_out(effect, now_s)
        self._publish()
        return outcome

    def _carry_out(self, effect: ConnectionEffect, now_s: float) -> Settlement:
        match effect:
            case ConfirmConnection():
                return self._confirm(effect, now_s)
            case AdvanceConnection():
                self.table.advance(effect.key, effect.direction, effect.tcp_flags, now_s)
            case KillConnection():
                self.table.kill(effect.connection)
            case NoteFragment():
                self.translations.fragments.note(effect, now_s)
            case RefuseDatagram():
                self.translations.fragments.refuse(effect.datagram, now_s)
            case LeaseAhead(wanted):
                self.translations.lease(wanted)
            case NoteExhaustion():
                self.translations.note_exhausted(effect)
            case _:
                assert_never(effect)
        return Settlement.DONE

    def _confirm(self, effect: ConfirmConnection, now_s: float) -> Settlement:
        """Reserve what a connection is translated to, and enter it: both or none."""
        holder = self.translations.reserve(effect.allocations)
        if holder is None:
            return Settlement.AGAIN
        entered = self.table.confirm(
            effect.connection, now_s, sample=effect.sample, replaces=effect.replaces
        )
        if isinstance(entered, Refusal):
            self.translations.give_back(holder)
            if entered is Refusal.TAKEN and effect.allocations:
                # Its answers would be taken for another's: another end point will do.
                self.translations.avoid(effect.allocations)
                return Settlement.AGAIN
            self.refused += 1
            return Settlement.REFUSED
        if effect.allocations:
            self.translations.keep(holder, entered)
        return Settlement.DONE

    def use(self, used_ns: Mapping[ConnectionKey, int]) -> None:
        """Take note that packets with these keys went by unseen, by programs, and when.

        Programs let no segment by that begins or ends anything, so what passed was data.
        """
        now_s, now_ns = self._clock.now_s(), self._clock.boot_ns()
        for key, last_ns in used_ns.items():
            known = self.table.find(key, now_s)
            if known is not None:
                flags = _GOES_ON if key.tuple.protocol == _TCP else 0
                seen_s = now_s - max(0, now_ns - last_ns) / 1e9
                self.table.advance(key, known.direction_of(key), flags, now_s, seen_s=seen_s)
        self._publish()

    def publish(self) -> None:
        """Tell what has changed in the table from outside: what other hosts told."""
        self._publish()

    def expire(self) -> None:
        """Let go of connections that were idle for too long, some of them at a time."""
        self.table.expire(self._clock.now_s(), _LOOKED_AT)
        self.translations.expire()
        self._publish()

    def forget_port(self, port_id: PortId) -> None:
        """A port is gone, and with it the connections that begin or end there."""
        self.table.forget_port(port_id)
        self._publish()

    # Judging again.

    def view_changed(self, tags: Iterable[FlowTag], regions: Iterable[RouteRegion]) -> None:
        """Have the connections judged again that depend on changed configuration."""
        for connection in self.table.dependents(tags):
            self._suspects[connection.forward] = connection
        for region in regions:
            for connection in self.table.dependents((group_tag(region.owner_id),)):
                if self._depends_on(connection, region):
                    self._suspects[connection.forward] = connection

    def _depends_on(self, connection: Connection, changed: RouteRegion) -> bool:
        sample = self.table.sample(connection)
        return sample is not None and any(
            isinstance(fact, RouteRegion) and regions_overlap(changed, fact)
            for fact in sample.facts
        )

    def next_suspect(self) -> Suspect | None:
        """Return the next connection to be judged again; None when there is none."""
        while self._suspects:
            key = next(iter(self._suspects))
            connection = self._suspects.pop(key)
            sample = self.table.sample(connection)
            if sample is not None:
                return Suspect(connection, sample)
        return None

    def judged(
        self, suspect: Suspect, result: Forward | Drop | Consume, view: TopologyView
    ) -> None:
        """Do what a judgement says: the connection is over, or depends on other facts now.

        One whose way is closed for the moment goes on to depend on what it did before.
        """
        kills = [effect for effect in result.effects if isinstance(effect, KillConnection)]
        if kills or isinstance(result, Consume):
            self.settle(kills)
            return
        program = result.program
        facts: frozenset[Hashable] = configuration_facts(view, program.tags, program.regions)
        if isinstance(result, Drop):
            facts |= suspect.sample.facts
        self.table.set_facts(suspect.connection, facts)

    def defer(self, suspect: Suspect) -> None:
        """A connection cannot be judged yet: something on its way is not known."""
        self._deferred.append(suspect.connection)

    def retry_deferred(self) -> None:
        """Have those judged again that could not be."""
        self._suspects.update((connection.forward, connection) for connection in self._deferred)
        self._deferred.clear()

    def begin(self, view: TopologyView) -> None:
        """Look at what is known from before a restart: it is judged by the topology of now, and
        what began at a port that is not bound here any more is over."""
        connections = list(self.table)
        for port_id in {one.initiator for one in connections if self.table.sample(one)}:
            port = view.ports.get(port_id)
            if port is None or port.host_id != view.host_id:
                self.table.forget_port(port_id)
        self._publish()
        self._suspects.update((connection.forward, connection) for connection in self.table)

    @property
    def has_suspects(self) -> bool:
        """Tell whether connections wait to be judged again."""
        return bool(self._suspects)

    # Inside.

    def _note(self, change: Change, connection: Connection) -> None:
        if change is Change.ADVANCED:
            return  # no outcome that may be installed depends on it
        tags = {connection_tag(key) for key in connection.keys}
        self._changed |= tags
        if change in _CUT:
            self._urgent |= tags

    def _publish(self) -> None:
        if not self._changed:
            return
        changed, urgent = frozenset(self._changed - self._urgent), frozenset(self._urgent)
        self._changed, self._urgent = set(), set()
        if urgent:
            self._facts_changed(urgent, True)
        if changed:
            self._facts_changed(changed, False)
