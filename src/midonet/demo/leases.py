"""A machine asks for its address as a small Linux image does: udhcpc of BusyBox."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from midonet.demo.lab import VirtualMachine

_SCRIPT: Final = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
for gateway in $router; do ip route add default via "$gateway"; done
"""


def has_client() -> bool:
    """Tell whether the DHCP client is installed."""
    return shutil.which("busybox") is not None


def obtain_lease(machine: VirtualMachine, directory: Path) -> None:
    """Get a lease for the machine's interface and use it. Raises CommandError when none comes.

    directory: for the script that the client runs.
    """
    script = directory / "bound.sh"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    machine.namespace.run(
        *("busybox", "udhcpc", "-f", "-q", "-n", "-t", "20", "-T", "1", "-i", "eth0"),
        *("-s", str(script)),
        timeout_s=60,
    )
