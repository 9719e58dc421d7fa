"""Go into a network namespace: with the current thread for a while, or with a coroutine."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from midonet.demo.namespaces import Namespace

T = TypeVar("T")

ETH_P_ALL = 3
_CLONE_NEWNET = 0x40000000


@contextmanager
def entered(namespace: Namespace) -> Iterator[None]:
    """Move this thread into a namespace for a while; sockets made meanwhile stay there."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    wanted = os.open(f"/run/netns/{namespace.name}", os.O_RDONLY)
    try:
        _enter(wanted)
        yield
    finally:
        _enter(before)
        os.close(before)
        os.close(wanted)


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def run_inside(namespace: Namespace, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what `work()` returns when it runs inside `namespace`."""

    def enter() -> T:
        with entered(namespace):
            return asyncio.run(work())

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter).result()


def packet_socket(
    namespace: Namespace, interface: str | None, *, eth_type: int = ETH_P_ALL
) -> socket.socket:
    """Return a raw socket at an interface of a namespace, or at all of them.

    eth_type: what it receives; 0 for a socket that only sends.
    """
    with entered(namespace):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(eth_type))
        if interface is not None:
            made.bind((interface, eth_type))
    made.settimeout(30)
    return made


def socket_inside(
    namespace: Namespace,
    family: socket.AddressFamily,
    kind: socket.SocketKind = socket.SOCK_STREAM,
) -> socket.socket:
    """Return an ordinary socket of a namespace, with a timeout of 30 s."""
    with entered(namespace):
        made = socket.socket(family, kind)
    made.settimeout(30)
    return made
