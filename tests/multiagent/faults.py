"""Faults at the n-th step of an agent: of what it asks its store and its datapath.

A step is one call. It can fail, be done with its answer lost, begin a partition, or be the last
thing that the agent does in its life (before or after the call takes effect).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import TypeVar

import msgspec

from midonet.agent.datapath.memory import InProcessUnderlay, MemoryDatapath
from midonet.agent.datapath.protocol import Capabilities, OverlayConfig, PortAttachment
from midonet.errors import DatapathError, UnavailableError
from midonet.model.ids import ObjectId, PortId
from midonet.nsdb.store import (
    Operation,
    Session,
    SessionInfo,
    StateEntry,
    Store,
    Versioned,
)
from midonet.runtime.clock import Clock
from tests.multiagent.unreliable_store import UnreliableStore

T = TypeVar("T", bound=msgspec.Struct)
R = TypeVar("R")


class Fault(StrEnum):
    """What happens at the step."""

    NONE = "none"
    FAILS = "fails"
    ANSWER_LOST = "answer_lost"
    PARTITION = "partition"
    KILLED_BEFORE = "killed_before"
    KILLED_AFTER = "killed_after"


_KILLS = (Fault.KILLED_BEFORE, Fault.KILLED_AFTER)


class Faults:
    """Counts the steps of all incarnations of one agent, and strikes once."""

    def __init__(self, fault: Fault, at_step: int) -> None:
        self.steps = 0
        self.killed = asyncio.Event()
        self.partitioned = asyncio.Event()
        self._fault = fault
        self._at_step = at_step

    def _strikes(self) -> bool:
        self.steps += 1
        return self.steps == self._at_step and self._fault is not Fault.NONE

    async def call(self, step: Callable[[], Awaitable[R]], refusal: Exception) -> R:
        """Do one step of the store, or what becomes of it."""
        if not self._strikes():
            return await step()
        if self._fault is Fault.PARTITION:
            self.partitioned.set()
            raise refusal
        if self._fault is Fault.FAILS:
            raise refusal
        if self._fault is not Fault.KILLED_BEFORE:
            await step()
        if self._fault in _KILLS:
            await self.die()
        raise refusal

    def call_now(self, step: Callable[[], R], refusal: Exception) -> R:
        """Do one step of the datapath. It cannot wait; a killed agent ends soon after."""
        if not self._strikes():
            return step()
        if self._fault in _KILLS:
            self.killed.set()
        if self._fault in {Fault.ANSWER_LOST, Fault.KILLED_AFTER}:
            step()
        raise refusal

    async def die(self) -> None:
        """End: do nothing any more until the test takes the agent away."""
        self.killed.set()
        await asyncio.Event().wait()


class FaultyStore(UnreliableStore):
    """A store whose calls are steps. While it is partitioned all of them fail."""

    def __init__(self, inner: Store, faults: Faults) -> None:
        super().__init__(inner)
        self.faults = faults

    async def step(self, call: Callable[[], Awaitable[R]]) -> R:
        if self.faults.partitioned.is_set():
            self.is_away = True
        self.check()
        return await self.faults.call(call, UnavailableError("the store failed"))

    async def get(self, kind: type[T], object_id: ObjectId) -> Versioned[T] | None:
        return await self.step(lambda: self.inner.get(kind, object_id))

    async def get_many(
        self, kind: type[T], object_ids: Sequence[ObjectId]
    ) -> dict[ObjectId, Versioned[T]]:
        return await self.step(lambda: self.inner.get_many(kind, object_ids))

    async def referrers(
        self, kind: type[msgspec.Struct], field: str, target_id: ObjectId
    ) -> list[ObjectId]:
        return await self.step(lambda: self.inner.referrers(kind, field, target_id))

    async def transact(self, operations: Sequence[Operation]) -> int:
        return await self.step(lambda: self.inner.transact(operations))

    async def entries(self, table: str, key: str | None = None) -> list[StateEntry]:
        return await self.step(lambda: self.inner.entries(table, key))

    async def open_session(
        self, owner: ObjectId, *, timeout_s: float = 30.0, secret: str | None = None
    ) -> Session:
        opened = await self.step(
            lambda: self.inner.open_session(owner, timeout_s=timeout_s, secret=secret)
        )
        return _Session(self, opened)


class _Session:
    def __init__(self, store: FaultyStore, inner: Session) -> None:
        self._store = store
        self._inner = inner

    @property
    def info(self) -> SessionInfo:
        return self._inner.info

    async def keep_alive(self) -> bool:
        return await self._store.step(self._inner.keep_alive)

    async def close(self) -> None:
        await self._store.step(self._inner.close)


class FaultyDatapath(MemoryDatapath):
    """A datapath that keeps what it has, as the kernel does, and whose writes are steps."""

    def __init__(self, underlay: InProcessUnderlay, clock: Clock) -> None:
        super().__init__(underlay, clock=clock)
        self.faults = Faults(Fault.NONE, 0)

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, is_persistent=True)

    @property
    def overlay(self) -> OverlayConfig:
        return self._overlay

    def attach(self, attachment: PortAttachment) -> None:
        self._step(lambda: MemoryDatapath.attach(self, attachment))

    def set_delivery(self, tunnel_key: int, port_ids: tuple[PortId, ...]) -> None:
        self._step(lambda: MemoryDatapath.set_delivery(self, tunnel_key, port_ids))

    def configure_overlay(self, config: OverlayConfig) -> None:
        self._step(lambda: MemoryDatapath.configure_overlay(self, config))

    def _step(self, call: Callable[[], None]) -> None:
        self.faults.call_now(call, DatapathError("the kernel refused", errno=12))
