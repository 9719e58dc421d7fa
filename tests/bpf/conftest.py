"""The bpf lane: runs the kernel programs on single frames. Needs root and the built objects."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from midonet.agent.datapath.ebpf.loader import OBJECT_PATH, LoadedObject, load_object

PROBE_PATH = Path(__file__).with_name("probe.bpf.o")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what this machine cannot run."""
    reason = None
    if os.geteuid() != 0:
        reason = "needs root to load BPF programs"
    elif not (OBJECT_PATH.exists() and PROBE_PATH.exists()):
        reason = "needs the BPF objects: make -C bpf"
    if reason is None:
        return
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def probe() -> Iterator[LoadedObject]:
    """The test entry points, loaded."""
    loaded = load_object(PROBE_PATH)
    yield loaded
    loaded.close()


@pytest.fixture
def program() -> Iterator[LoadedObject]:
    """The datapath itself with small, empty maps of its own, loaded."""
    loaded = load_object(entries={"upcalls": 1 << 16})
    yield loaded
    loaded.close()
