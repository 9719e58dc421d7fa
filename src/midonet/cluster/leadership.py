"""One leader among the control nodes: whoever holds a session of a well-known owner.

A leader that loses its session stops its duty before it asks for the session again, so two
nodes overlap for less than the renewal interval. Duties are idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog

from midonet.errors import ConflictError, MidoNetError
from midonet.model.ids import ObjectId
from midonet.nsdb.store import Session, Store
from midonet.runtime.clock import Clock

LEADER: ObjectId = UUID("6d69646f-6e65-5400-8000-6c6561646572")
"""Owner of the leader's session."""

_TIMEOUT_S = 30.0
_RENEWAL_S = 10.0
_LEAVE_WITHIN_S = 5.0
_log = structlog.get_logger("leadership")

Duty = Callable[[], Awaitable[None]]


async def lead(store: Store, clock: Clock, duty: Duty) -> None:
    """Wait for leadership and run `duty` while it lasts, again and again; never returns.

    A failure of the duty, or of the store while the session is to be renewed, is raised after the
    session is closed.
    """
    while True:
        try:
            session = await store.open_session(LEADER, timeout_s=_TIMEOUT_S)
        except ConflictError:
            await clock.sleep(_RENEWAL_S)
            continue
        _log.info("leadership_won")
        try:
            await _run_while_led(session, clock, duty)
        finally:
            await _leave(session)
        _log.warning("leadership_lost")


async def _run_while_led(session: Session, clock: Clock, duty: Duty) -> None:
    """Run the duty until the session is gone or the duty ends."""

    async def keep() -> None:
        while await session.keep_alive():
            await clock.sleep(_RENEWAL_S)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = (group.create_task(_awaited(duty)), group.create_task(keep()))
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _awaited(duty: Duty) -> None:
    await duty()


async def _leave(session: Session) -> None:
    """Close a session as far as the store lets us; it expires otherwise.

    Never raises: this runs while the task is being cancelled, which a failure would hide.
    """
    try:
        async with asyncio.timeout(_LEAVE_WITHIN_S):
            await session.close()
    except (MidoNetError, TimeoutError) as error:
        _log.info("leadership_left_to_expire", error=str(error))
