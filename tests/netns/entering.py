"""Run a coroutine inside a network namespace, in a thread of its own."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from midonet.demo.namespaces import Namespace

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


def run_inside(namespace: Namespace, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what `work()` returns when it runs inside `namespace`."""

    def enter() -> T:
        descriptor = os.open(f"/run/netns/{namespace.name}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(descriptor)
        return asyncio.run(work())

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter).result()
