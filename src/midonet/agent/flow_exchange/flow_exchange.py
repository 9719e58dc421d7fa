"""Connections between this host and others: tells what changes here, takes in what is told.

Runs in the agent's one loop. What the table says has changed is told at once, in front of the
packet that changed it, on the same path. Whom it concerns follows from the zones of the
connection: the host of a port, the hosts of the members of a stateful group.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable
from typing import assert_never

from midonet.agent.datapath.protocol import STATE_KEY, Datapath
from midonet.agent.flow_exchange.exchange_engine import ExchangeEngine, Outgoing
from midonet.agent.flow_exchange.whom import Whom
from midonet.agent.flow_state.connection import Connection, ConnectionKey
from midonet.agent.flow_state.connection_table import (
    Change,
    ConnectionTable,
    Refusal,
)
from midonet.agent.flow_state.state_frame import message_in, state_frame
from midonet.agent.flow_state.state_message import Ask, Kill, Nothing, Proof, Signed, Tell
from midonet.agent.flow_state.timeouts import idle_lifetime_s
from midonet.agent.flows.program import TunnelOutput
from midonet.agent.flows.tags import FlowTag, TagKind
from midonet.agent.topology.view import TopologyView
from midonet.errors import DecodeError
from midonet.model.ids import HostId, PortId
from midonet.runtime.clock import Clock

_ENDED = frozenset((Change.KILLED, Change.EVICTED, Change.REPLACED, Change.FORGOTTEN))
"""Changes after which a connection is over here, and so everywhere."""

_PLACES = frozenset((TagKind.LOCATION, TagKind.DEVICE))
"""Kinds of facts that say where a port is, and in which group."""

REFRESH_PERIOD_S = 1.0
REFRESH_SLICE = 4096
"""Connections looked at in one period: the whole of a full table in half a minute."""


class FlowExchange:
    """Exchanges connections with other hosts through the overlay."""

    def __init__(
        self,
        engine: ExchangeEngine,
        table: ConnectionTable,
        datapath: Datapath,
        clock: Clock,
        *,
        view: Callable[[], TopologyView],
        on_news: Callable[[], None],
    ) -> None:
        """Begin to listen to the table and to the datapath.

        on_news: the table has been told something, or waiting for an answer is over.
        """
        self.engine = engine
        self.refused = 0
        """Connections told by others that have no place here."""
        self._table = table
        self._datapath = datapath
        self._clock = clock
        self._view = view
        self._on_news = on_news
        self._told_s: dict[ConnectionKey, float] = {}
        self._known = Whom(view())
        self._cursor = 0
        self._wake = asyncio.Event()
        table.on_change(self._changed)
        table.ask_first(self.should_wait)
        datapath.receive_state(self.received)

    def _whom(self) -> Whom:
        view = self._view()
        if not self._known.is_of(view):
            self._known = Whom(view)
        return self._known

    # Asking, for packets that wait.

    def should_wait(self, key: ConnectionKey, now_s: float) -> bool:
        """Tell whether other hosts may know a key, and have not said yet that they do not."""
        return bool(self._view().tunnels) and self.engine.should_wait(key, now_s)

    def fetch(self, key: ConnectionKey) -> None:
        """Ask the hosts that may know a key; nothing happens when they were asked just now."""
        hosts = self._whom().may_know(key)
        self._send(self.engine.ask(key, hosts, self._clock.now_s()))

    # Telling.

    def _changed(self, change: Change, connection: Connection) -> None:
        hosts = self._whom().is_concerned(connection)
        now_s = self._clock.now_s()
        if change in (Change.CONFIRMED, Change.ADVANCED):
            self._tell(connection, hosts, now_s)
            return
        if change is not Change.TOLD:
            self._told_s.pop(connection.forward, None)
        if change in _ENDED:
            self._send(self.engine.kill(connection, hosts, now_s))

    def _tell(self, connection: Connection, hosts: list[HostId], now_s: float) -> None:
        if hosts:
            self._told_s[connection.forward] = now_s
            remaining_s = self._table.remaining_s(connection, now_s)
            self._send(self.engine.tell(connection, remaining_s, hosts, now_s))

    def refresh(self) -> None:
        """Tell again of connections that are in use here, before half of their life is over."""
        now_s = self._clock.now_s()
        connections = self._table.slice(self._cursor, REFRESH_SLICE)
        self._cursor = self._cursor + REFRESH_SLICE if len(connections) == REFRESH_SLICE else 0
        for connection in connections:
            age_s = now_s - self._told_s.setdefault(connection.forward, now_s)
            is_in_use = self._table.idle_s(connection, now_s) < age_s
            if is_in_use and age_s >= idle_lifetime_s(connection) / 2 - REFRESH_PERIOD_S:
                self._tell(connection, self._whom().is_concerned(connection), now_s)

    def view_changed(self, tags: Iterable[FlowTag]) -> None:
        """Where ports have come to other hosts or groups, their hosts are told of what is known."""
        ports = self._view().ports
        for tag in tags:
            if tag.kind in _PLACES:
                port = ports.get(PortId(tag.owner))
                group_id = port.stateful_group_id if port is not None else None
                for connection in self._table.at_scope(group_id or tag.owner):
                    self._told_s[connection.forward] = -math.inf

    async def run(self) -> None:
        """Send again what is not acknowledged and what is in use, until cancelled."""
        next_refresh_s = self._clock.now_s()
        while True:
            now_s = self._clock.now_s()
            if self.engine.is_due(now_s):
                self._send(self.engine.due(now_s))
                self._on_news()
            if now_s >= next_refresh_s:
                self.refresh()
                next_refresh_s = now_s + REFRESH_PERIOD_S
            timer_s = self.engine.next_timer()
            until_s = next_refresh_s if timer_s is None else min(timer_s, next_refresh_s)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, until_s - now_s)):
                    await self._wake.wait()

    def _send(self, messages: Iterable[Outgoing]) -> None:
        view = self._view()
        for message in messages:
            tunnel = view.tunnels.get(message.host_id)
            if tunnel is None:
                continue  # it asks, or is told again, when there is a way
            output = TunnelOutput(tunnel.kind, tunnel.local, tunnel.remote, STATE_KEY)
            self._datapath.emit(state_frame(message.data, message.ends), (output,))
            self._wake.set()

    # Receiving.

    def received(self, frame: bytes) -> None:
        """Take in a state frame of another host."""
        try:
            data = message_in(frame)
        except DecodeError:
            self.engine.counters.forged += 1
            return
        signed = self.engine.receive(data)
        if signed is not None:
            self._take_in(signed)

    def _take_in(self, signed: Signed) -> None:
        message, now_s = signed.message, self._clock.now_s()
        match message:
            case Tell(connection, remaining_s):
                self._told(signed, connection, remaining_s, now_s)
            case Kill(key):
                self._table.killed_by_peer(key)
                self._told_s.pop(key, None)
                self._send([self.engine.prove(signed, key.tuple)])
                self._on_news()
            case Ask(key):
                known = self._table.find(key, now_s)
                left_s = 0.0 if known is None else self._table.remaining_s(known, now_s)
                found = None if known is None else (known, left_s)
                self._send([self.engine.answer(signed.sender, key, found)])
            case Nothing() | Proof():
                self._on_news()
            case _:
                assert_never(message)

    def _told(self, signed: Signed, connection: Connection, remaining_s: int, now_s: float) -> None:
        """Enter what another host tells. Only what concerns this host has a place here."""
        if not self._whom().is_local(connection):
            self.refused += 1
            return
        outcome = self._table.told(connection, remaining_s, now_s)
        if isinstance(outcome, Refusal):
            self.refused += 1
        else:
            self._told_s.setdefault(outcome.forward, now_s)
            self._send([self.engine.prove(signed, connection.forward.tuple)])
        self._on_news()
