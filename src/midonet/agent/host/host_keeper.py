"""This host in the network state database: its session, its record, its interfaces.

The session says that the agent lives; what is bound to it (learnt MACs, neighbours, the host's
state) goes when it ends. It is resumed with the saved secret after a restart. While the store is
away nothing ends here: the session is kept up again, or opened anew, when the store is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import msgspec
import structlog

from midonet.agent.host.state_directory import StateDirectory
from midonet.agent.soft_state.outbox import Outbox
from midonet.errors import ConflictError, DecodeError, MidoNetError, UnavailableError
from midonet.model.hosts import Host, HostState, Interface
from midonet.model.ids import HostId
from midonet.nsdb.store import Create, PutState, Session, StateTables, Store, Update
from midonet.runtime.clock import Clock
from midonet.runtime.logging import Throttle
from midonet.runtime.waiting import wait_at_most

_log = structlog.get_logger("hosting")

_RETRY_S = 1.0

PUBLISH_EVERY_S = 0.2
"""Least time between two publications of the host's state."""
_END_WITHIN_S = 5.0

_KEEP_RETRY_S = 0.2
"""Pause between attempts to extend a session that the store did not take."""


class InterfaceSource(Protocol):
    """The network interfaces of this host."""

    async def open(self) -> None:
        """Read them once and start to listen for changes."""
        ...

    async def close(self) -> None:
        """Stop listening."""
        ...

    def snapshot(self) -> Mapping[str, Interface]:
        """Return the interfaces as last seen, by name."""
        ...

    async def changes(self) -> None:
        """Wait until something changed since the last call."""
        ...


class DeclaredInterfaces:
    """Interfaces that exist because somebody names them: those of the memory datapath."""

    def __init__(self, names: Callable[[], Iterable[str]]) -> None:
        """`names` returns the interfaces that exist now; each of them is up."""
        self._names = names
        self._never = asyncio.Event()

    async def open(self) -> None:
        """Do nothing; there is nothing to read."""

    async def close(self) -> None:
        """Do nothing."""

    def snapshot(self) -> Mapping[str, Interface]:
        """Return the declared interfaces."""
        return {
            name: Interface(name=name, kind="Virtual", is_up=True, has_link=True)
            for name in sorted(self._names())
        }

    async def changes(self) -> None:
        """Wait until cancelled: a change of names comes with a change of bound ports."""
        await self._never.wait()


class HostKeeper:
    """Keeps the host's session alive and its record and state published."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        outbox: Outbox,
        state_directory: StateDirectory,
        *,
        host: Host,
        epoch: int,
        session_timeout_s: float = 30.0,
    ) -> None:
        self._store = store
        self._clock = clock
        self._host = host
        self._epoch = epoch
        self._state_directory = state_directory
        self._outbox = outbox
        self._timeout_s = session_timeout_s
        self._session: Session | None = None
        self._published: HostState | None = None
        self._to_publish: tuple[Mapping[str, Interface], int] = ({}, 0)
        self._has_news = asyncio.Event()
        self._throttle = Throttle(clock)
        self.registered = asyncio.Event()
        self.is_live = False

    async def run(self) -> None:
        """Register, then keep the session until cancelled."""
        while True:
            self._session = await self._open_session()
            await self._register()
            self.is_live = True
            self.registered.set()
            self._outbox.resume()
            self._publish_again()
            await self._keep(self._session)
            self._outbox.pause()
            _log.warning("session_lost", host_id=str(self._host.id))

    async def end(self) -> None:
        """End the session, so that peers know at once that this host is gone.

        Where the store does not let us, the session expires.
        """
        session, self._session = self._session, None
        if session is None:
            return
        try:
            async with asyncio.timeout(_END_WITHIN_S):
                await session.close()
        except (MidoNetError, TimeoutError) as error:
            _log.info("session_left_to_expire", host_id=str(self._host.id), error=str(error))

    def publish(self, interfaces: Mapping[str, Interface], *, overlay_mtu_bytes: int = 0) -> None:
        """Publish the host's state soon, when it differs from what was published before."""
        self._to_publish = (interfaces, overlay_mtu_bytes)
        self._has_news.set()

    async def run_publishing(self) -> None:
        """Publish what there is to publish, until cancelled.

        It costs with the number of interfaces, of which hundreds may change one by one, so what
        comes within PUBLISH_EVERY_S is published together.
        """
        while True:
            await self._has_news.wait()
            self._has_news.clear()
            interfaces, overlay_mtu_bytes = self._to_publish
            state = HostState(
                id=self._host.id,
                interfaces=tuple(interfaces[name] for name in sorted(interfaces)),
                epoch=self._epoch,
                overlay_mtu_bytes=overlay_mtu_bytes,
            )
            if state != self._published:
                self._published = state
                self._put_state(state)
            await self._clock.sleep(PUBLISH_EVERY_S)

    def _put_state(self, state: HostState) -> None:
        self._outbox.put(
            PutState(
                StateTables.host_state(),
                str(self._host.id),
                msgspec.json.encode(state).decode(),
                self._host.id,
                self._epoch,
            )
        )

    async def _open_session(self) -> Session:
        while True:
            try:
                session = await self._store.open_session(
                    self._host.id,
                    timeout_s=self._timeout_s,
                    secret=self._state_directory.session_secret(),
                )
            except UnavailableError as error:
                self._complain("store_away", error)
            except ConflictError as error:
                # Of another agent with this host's id, or of ours before its secret was lost;
                # the latter expires.
                self._complain("session_taken", error)
            else:
                self._state_directory.save_session_secret(session.info.secret)
                return session
            self.is_live = False
            await self._clock.sleep(_RETRY_S)

    async def _confirm(self) -> None:
        """Read back what is recorded of this host; write again what is not there any more.

        Raises UnavailableError.
        """
        try:
            await self._write_host()
        except (ConflictError, DecodeError) as error:
            self._complain("host_not_registered", error)
        if self._published is not None:
            entries = await self._store.entries(StateTables.host_state(), str(self._host.id))
            if not any(entry.owner == self._host.id for entry in entries):
                self._publish_again()

    def _publish_again(self) -> None:
        if self._published is not None:
            self._put_state(self._published)

    async def _register(self) -> None:
        while True:
            try:
                await self._write_host()
            except (UnavailableError, ConflictError, DecodeError) as error:
                self._complain("host_not_registered", error)
                await self._clock.sleep(_RETRY_S)
            else:
                return

    async def _write_host(self) -> None:
        """Create the host's record, or correct its name; operators own the other fields."""
        found = await self._store.get(Host, self._host.id)
        if found is None:
            await self._store.transact([Create(self._host)])
            _log.info("host_registered", host_id=str(self._host.id), name=self._host.name)
        elif found.value.name != self._host.name:
            renamed = msgspec.structs.replace(found.value, name=self._host.name)
            await self._store.transact([Update(renamed, found.version)])

    async def _keep(self, session: Session) -> None:
        """Extend the session until it is lost.

        While the store is away this is tried without a pause worth the name: the first write
        after an outage is to be the one that keeps what lives by the session.
        """
        while True:
            pause_s = self._timeout_s / 3
            if not self.is_live:
                pause_s = min(_KEEP_RETRY_S, pause_s)
            # A write that was refused for want of a session does not wait for the next turn.
            await wait_at_most(self._outbox.session_missed, self._clock, pause_s)
            self._outbox.session_missed.clear()
            try:
                if not await session.keep_alive():
                    self.is_live = False
                    return
                await self._confirm()
                self.is_live = True
                self._state_directory.save_again()
            except UnavailableError as error:
                self.is_live = False
                self._complain("store_away", error)

    def _complain(self, event: str, error: Exception) -> None:
        held_back = self._throttle.allow(event)
        if held_back is not None:
            _log.warning(event, error=str(error), held_back=held_back)


def host_record(host_id: HostId, name: str) -> Host:
    """Return the record of this host as it is first created."""
    return Host(id=host_id, name=name)
