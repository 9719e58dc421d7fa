"""The clock of sessions: time since this machine booted, suspended time included."""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path

from midonet.nsdb.transaction import BootTime

_BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")


def boot_time() -> BootTime:
    """Return the present moment, comparable between all processes of one machine."""
    return BootTime(_boot_id(), time.clock_gettime(time.CLOCK_BOOTTIME))


@cache
def _boot_id() -> str:
    return _BOOT_ID_PATH.read_text(encoding="ascii").strip()
