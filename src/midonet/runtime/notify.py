"""Tell the service manager about readiness and stopping (sd_notify(3)).

The protocol is a datagram of `KEY=value` lines to the unix socket named by NOTIFY_SOCKET; a
name that begins with `@` is in the abstract namespace.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


def notify(*assignments: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Send assignments such as `READY=1`; False when there is nobody to tell.

    A service manager that went away, or does not listen, is no reason to stop or to wait: failure
    to send is not an error.
    """
    name = environment.get("NOTIFY_SOCKET", "")
    if not name.startswith(("/", "@")):
        return False
    address = "\0" + name[1:] if name.startswith("@") else name
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    try:
        with socket.socket(socket.AF_UNIX, kind) as connection:
            connection.sendto("\n".join(assignments).encode(), address)
    except OSError:
        return False
    return True
