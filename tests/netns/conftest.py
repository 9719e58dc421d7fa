"""Namespaces for the tests of this lane, named by worker and taken down whatever happens."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path

import pytest

from midonet.demo.namespaces import Namespace, existing
from tests.netns import labs
from tests.netns.overlay_pair import Pair, open_pair

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of the lane; skip it, saying why, where it cannot run."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.privileged)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root for network namespaces"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of the logs of running labs with a test that failed."""
    report = yield
    if report.failed:
        for made in labs.running:
            children = [made.cluster, *(host.agent for host in made.hosts)]
            text = "\n".join(f"{child.name}: {child.log_tail(15)}" for child in children)
            report.sections.append((f"lab {made.options.prefix}", text.replace(" | ", "\n  ")))
    return report


@pytest.fixture(scope="session")
def prefix() -> str:
    """Return a namespace prefix that no other worker or run uses."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw")
    return f"mnt{os.getpid() % 100000}{worker}"


@pytest.fixture
def namespace(prefix: str) -> Iterator[Callable[[str], Namespace]]:
    """Return a maker of namespaces that are removed after the test."""

    def make(name: str) -> Namespace:
        made = Namespace(f"{prefix}-{name}")
        made.create()
        return made

    yield make
    for name in existing(f"{prefix}-"):
        Namespace(name).delete()


@pytest.fixture
async def pair(namespace: Callable[[str], Namespace]) -> AsyncIterator[Pair]:
    """Return two hosts with datapaths, removed after the test."""
    async with open_pair(namespace) as opened:
        yield opened
