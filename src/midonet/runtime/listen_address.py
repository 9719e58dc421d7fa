"""Addresses to listen on, and who has one that is taken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from midonet.errors import UserError

_LISTEN = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<name>[^:\[\]]*)):(?P<port>[0-9]{1,5})")
_MAX_PORT = 0xFFFF
_LISTENING = "0A"
"""State TCP_LISTEN in /proc/net/tcp (include/net/tcp_states.h of the kernel)."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """host: a name or address, empty for all addresses. port: 0 takes a free one."""

    host: str
    port: int
    is_ipv6: bool


def parse_listen(text: str) -> ListenAddress:
    """Return what `ADDRESS:PORT` or `[ADDRESS]:PORT` says. Raises UserError for anything else."""
    match = _LISTEN.fullmatch(text)
    if match is None:
        raise UserError(f"{text!r} is not ADDRESS:PORT ([ADDRESS]:PORT for IPv6)", field="listen")
    port = int(match["port"])
    if port > _MAX_PORT:
        raise UserError(f"{text!r} has a port that is not from 0 to {_MAX_PORT}", field="listen")
    return ListenAddress(match["v6"] or match["name"] or "", port, bool(match["v6"]))


def listeners(port: int) -> list[str]:
    """Return the processes of this network namespace that listen on a TCP port, as `name (pid N)`.

    Those of other users are found by root only.
    """
    sockets = set(_listening_sockets(port))
    return sorted(_owners(sockets)) if sockets else []


def _listening_sockets(port: int) -> Iterator[str]:
    """Yield `socket:[INODE]` of those that listen (proc(5), /proc/net/tcp)."""
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                columns = line.split()
                local, state, inode = columns[1], columns[3], columns[9]
                if state == _LISTENING and int(local.rpartition(":")[2], 16) == port:
                    yield f"socket:[{inode}]"


def _owners(sockets: set[str]) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(_target(found) in sockets for found in (process / "fd").iterdir()):
                name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                yield f"{name} (pid {process.name})"


def _target(link: Path) -> str:
    with suppress(OSError):
        return str(link.readlink())
    return ""
