"""Sessions over the tables of a store: leases in boot time that any process may end.

A session that is past its deadline refuses writes, but lives until somebody ends it: its owner,
back in time, extends it and has lost nothing. After an interruption of the store itself every
session gets a grace, because no owner could extend its own.
"""

from __future__ import annotations

import math
import secrets

from midonet.errors import ConflictError, UserError
from midonet.model.ids import ObjectId
from midonet.nsdb.store import PutState, SessionInfo, StateTables
from midonet.nsdb.transaction import BootTime, SessionRecord, Tables, Transaction

MIN_TIMEOUT_S = 0.05
"""Shortest session timeout that is accepted."""

MAX_TIMEOUT_S = 86_400.0
"""Longest session timeout that is accepted."""


LONGEST_GRACE_S = 10.0
"""Most time that a session gets after an interruption of the store; a third of its timeout, when
that is shorter: within it, every owner that lives has tried to extend it."""


def dead_at_s(record: SessionRecord, now: BootTime, writable_since_s: float) -> float:
    """Return when a session is to be ended, in s of boot time.

    writable_since_s: boot time (s) since when the store has taken writes without a break.
    """
    if record.deadline.boot_id != now.boot_id:
        return now.seconds
    grace_s = min(record.timeout_s / 3, LONGEST_GRACE_S)
    return max(record.deadline.seconds, writable_since_s + grace_s)


def open_session(
    transaction: Transaction, tables: Tables, now: BootTime, wanted: SessionInfo
) -> SessionInfo:
    """Open or resume the session of `wanted.owner`; an empty secret asks for a new session.

    Raises ConflictError when a live session has another secret, UserError for a bad timeout.
    """
    if not MIN_TIMEOUT_S <= wanted.timeout_s <= MAX_TIMEOUT_S:
        raise UserError(
            f"A session timeout is from {MIN_TIMEOUT_S} to {MAX_TIMEOUT_S:g} s.", field="timeout_s"
        )
    owner = wanted.owner
    present = tables.session(owner)
    secret = secrets.token_hex(16)
    if present is not None and present.is_live(now):
        if present.secret != wanted.secret:
            raise ConflictError(f"{owner} has a live session elsewhere.")
        secret = present.secret
    elif present is not None:
        transaction.end_session(owner)
    deadline = BootTime(now.boot_id, now.seconds + wanted.timeout_s)
    transaction.put_session(SessionRecord(owner, secret, wanted.timeout_s, deadline))
    table = StateTables.sessions()
    if tables.state_entry(table, str(owner), owner) is None:
        transaction.write_state(PutState(table, str(owner), "", owner))
    return SessionInfo(owner, secret, wanted.timeout_s)


def keep_alive(transaction: Transaction, tables: Tables, now: BootTime, info: SessionInfo) -> bool:
    """Extend a session; False when it has ended. That of an earlier boot is ended at once."""
    present = tables.session(info.owner)
    if present is None or present.secret != info.secret:
        return False
    if present.deadline.boot_id != now.boot_id:
        transaction.end_session(info.owner)
        return False
    deadline = BootTime(now.boot_id, now.seconds + present.timeout_s)
    transaction.put_session(
        SessionRecord(present.owner, present.secret, present.timeout_s, deadline)
    )
    return True


def close_session(transaction: Transaction, tables: Tables, info: SessionInfo) -> None:
    """End a session, unless it has ended or been replaced already."""
    present = tables.session(info.owner)
    if present is not None and present.secret == info.secret:
        transaction.end_session(info.owner)


def reap(
    transaction: Transaction, tables: Tables, now: BootTime, writable_since_s: float = -math.inf
) -> None:
    """End every session that is dead. writable_since_s: see `dead_at_s`."""
    for record in tables.sessions():
        if dead_at_s(record, now, writable_since_s) <= now.seconds:
            transaction.end_session(record.owner)


def live_owners(tables: Tables, now: BootTime) -> frozenset[ObjectId]:
    """Return the owners of live sessions."""
    return frozenset(record.owner for record in tables.sessions() if record.is_live(now))
