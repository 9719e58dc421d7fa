"""Has this process what the kernel datapath needs?"""

from __future__ import annotations

import os
from pathlib import Path

from midonet.errors import UserError

_NEEDED = {12: "CAP_NET_ADMIN", 21: "CAP_SYS_ADMIN"}
"""Capabilities by number (capabilities(7), linux/capability.h): links and filters; BPF programs
and their file system."""


def missing_capabilities() -> list[str]:
    """Return the capabilities that the kernel datapath needs and this process has not."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = next(
        (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:")), 0
    )
    return [name for number, name in _NEEDED.items() if not effective >> number & 1]


def require_privilege() -> None:
    """Raise UserError, with what to do about it, when the kernel datapath cannot be used."""
    missing = missing_capabilities()
    if not missing:
        return
    if os.geteuid() != 0:
        raise UserError(
            "the eBPF datapath needs root: try again with sudo, or use --datapath memory"
        )
    raise UserError(
        f"the eBPF datapath needs {' and '.join(missing)}, which this process lacks although it"
        " is root (a container?); give it these, or use --datapath memory"
    )
