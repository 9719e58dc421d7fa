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
_TCP = (("tcp", "tcp6"), "0A")
_UDP = (("udp", "udp6"), "07")
"""Tables of /proc/net, and the state of a socket that waits for strangers: TCP_LISTEN, TCP_CLOSE
(include/net/tcp_states.h of the kernel)."""


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
    return _holders(port, *_TCP)


def udp_port_in_use(port: int) -> str:
    """Return what to say when a UDP port is taken: the port, and who has it as `listeners` does.

    A tunnel device of the kernel has no process.
    """
    holders = _holders(port, *_UDP)
    return f"UDP port {port} is in use by {', '.join(holders) or 'the kernel or another user'}"


def _holders(port: int, tables: tuple[str, ...], state: str) -> list[str]:
    sockets = set(_sockets(port, tables, state))
    return sorted(_owners(sockets)) if sockets else []


def _sockets(port: int, tables: tuple[str, ...], wanted: str) -> Iterator[str]:
    """Yield `socket:[INODE]` of those that wait at a port (proc(5), /proc/net/tcp)."""
    for table in tables:
        with suppress(OSError):
            text = Path("/proc/self/net", table).read_text(encoding="ascii")
            for line in text.splitlines()[1:]:
                columns = line.split()
                local, state, inode = columns[1], columns[3], columns[9]
                if state == wanted and int(local.rpartition(":")[2], 16) == port:
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
