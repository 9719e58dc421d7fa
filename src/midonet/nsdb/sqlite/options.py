"""How a client of the embedded store behaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from midonet.nsdb.sqlite.boot_clock import boot_time
from midonet.nsdb.sqlite.schema import BUSY_TIMEOUT_S
from midonet.nsdb.transaction import BootTime

HISTORY_REVISIONS = 20_000
"""How many revisions the change log keeps; a client further behind compares everything."""


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """history: revisions kept in the log. busy_timeout_s: how long a write waits for the writers
    of other processes. now: the clock of sessions."""

    history: int = HISTORY_REVISIONS
    busy_timeout_s: float = BUSY_TIMEOUT_S
    now: Callable[[], BootTime] = boot_time
