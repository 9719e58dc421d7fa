"""Daemons and their tasks end when they are told to, whatever they depend on has failed."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path

import pytest

from midonet.agent.daemon import Agent
from midonet.agent.datapath.memory import InProcessUnderlay, MemoryDatapath
from midonet.agent.datapath.protocol import OverlayConfig, PortAttachment, ProgramStatistics, Upcall
from midonet.agent.host.host_keeper import host_record
from midonet.agent.host.state_directory import StateDirectory
from midonet.cluster.daemon import start_services
from midonet.cluster.settings import ClusterSettings
from midonet.errors import DatapathError
from midonet.model.ids import PortId
from midonet.nsdb.memory import MemoryBackend, MemoryStore
from midonet.runtime.clock import SystemClock
from midonet.runtime.supervisor import Supervisor
from tests.multiagent.hosts import eventually
from tests.multiagent.processes import DEADLINE_S, Processes, wait_for
from tests.multiagent.unreliable_store import UnreliableStore

ENDS_WITHIN_S = 30.0


class FailingDatapath(MemoryDatapath):
    """Refuses everything from the moment it is broken."""

    is_broken = False

    def check(self) -> None:
        if self.is_broken:
            raise DatapathError("the kernel refuses", errno=5)

    async def upcalls(self, limit: int = 64) -> list[Upcall]:
        self.check()
        return await super().upcalls(limit)

    def attach(self, attachment: PortAttachment) -> None:
        self.check()
        super().attach(attachment)

    def attached(self) -> Mapping[PortId, str]:
        self.check()
        return super().attached()

    def configure_overlay(self, config: OverlayConfig) -> None:
        self.check()
        super().configure_overlay(config)

    def statistics(
        self, program_ids: Collection[int] | None = None
    ) -> Mapping[int, ProgramStatistics]:
        self.check()
        return super().statistics(program_ids)

    async def close(self) -> None:
        await super().close()
        self.check()


@pytest.mark.parametrize("failing", ["store", "datapath", "both", "nothing"])
async def test_every_task_of_an_agent_ends(tmp_path: Path, failing: str) -> None:
    store = UnreliableStore(MemoryStore(MemoryBackend()))
    await store.open()
    datapath = FailingDatapath(InProcessUnderlay())
    directory = StateDirectory(tmp_path / "host")
    agent = Agent(
        host_record(directory.host_id(), "h"),
        store,
        datapath,
        directory,
        SystemClock(),
        hash_seed=0,
        session_timeout_s=0.3,
    )
    before = asyncio.all_tasks()
    async with asyncio.timeout(ENDS_WITHIN_S):
        async with Supervisor(grace_s=5.0) as supervisor:
            await agent.start(supervisor)
            await eventually(agent.keeper.registered.is_set)
            await eventually(agent.loop.may_decide.is_set)
            store.is_away = failing in ("store", "both")
            datapath.is_broken = failing in ("datapath", "both")
            if store.is_away:
                await eventually(lambda: not agent.keeper.is_live)
            if datapath.is_broken:
                await eventually(lambda: supervisor.failures["timers"])
        with suppress(DatapathError):
            await agent.stop()
    store.is_away = False
    await store.close()
    directory.close()
    await eventually(lambda: asyncio.all_tasks() == before)


async def test_every_service_of_a_control_node_ends_while_the_store_is_away() -> None:
    store = UnreliableStore(MemoryStore(MemoryBackend()))
    await store.open()
    async with asyncio.timeout(ENDS_WITHIN_S), Supervisor(grace_s=5.0) as supervisor:
        settings = ClusterSettings(nsdb="memory:", collect_interval_s=1.0)
        start_services(supervisor, store, SystemClock(), settings)
        async with asyncio.timeout(ENDS_WITHIN_S):
            while not await store.live_sessions():  # noqa: ASYNC110 - the store has no event
                await asyncio.sleep(0)
        store.is_away = True
    store.is_away = False
    await store.close()


async def test_failed_clean_up_does_not_start_a_task_again() -> None:
    runs = 0

    async def task() -> None:
        nonlocal runs
        runs += 1
        try:
            await asyncio.Event().wait()
        finally:
            raise DatapathError("cannot clean up")

    async with asyncio.timeout(ENDS_WITHIN_S), Supervisor() as supervisor:
        supervisor.start("task", task)
        await eventually(lambda: runs)
    assert runs == 1


async def test_task_that_lost_its_cancellation_is_cancelled_again() -> None:
    waits = 0

    async def task() -> None:
        nonlocal waits
        while waits < 3:
            waits += 1
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async with asyncio.timeout(ENDS_WITHIN_S), Supervisor(grace_s=0.01) as supervisor:
        supervisor.start("task", task)
        await eventually(lambda: waits)
    assert waits == 3


# As processes.

DAEMON = (sys.executable, "-m", "midonet.commands.main")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    started.close()


def store_file(processes: Processes) -> Path:
    return processes.directory / "nsdb.db"


def refuses_writes(processes: Processes) -> bool:
    media = {"Content-Type": "application/vnd.org.midonet.Bridge-v4+json"}
    body = {"name": "b", "tenantId": "t"}
    return processes.api.post("/bridges", json=body, headers=media, timeout=60).status_code == 503


def start_both(processes: Processes) -> None:
    processes.start_cluster()
    processes.start_agent("alpha")
    wait_for(lambda: processes.state("alpha")["store"] == "connected", "alpha is connected")


def test_daemons_end_while_the_store_is_locked(processes: Processes) -> None:
    start_both(processes)
    with closing(sqlite3.connect(store_file(processes), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert refuses_writes(processes)
        assert processes.stop("cluster") == 0
        assert processes.stop("alpha") == 0
        other.execute("ROLLBACK")


def test_agent_ends_when_the_directory_of_its_socket_is_gone(processes: Processes) -> None:
    processes.start_agent("alpha")
    shutil.rmtree(processes.directory / "alpha")
    assert processes.stop("alpha") == 0


@pytest.mark.privileged
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount a small file system")
@pytest.mark.parametrize("command", ["cluster", "agent"])
def test_daemon_ends_while_the_store_is_full(
    processes: Processes, tmp_path: Path, command: str
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    arguments = {
        "cluster": ("--listen", f"127.0.0.1:{processes.api_port}"),
        "agent": ("--datapath", "memory", "--state-dir", f"{disk}/alpha",
                  "--underlay-port", str(processes.underlay_port)),
    }  # fmt: skip
    script = f'mount -t tmpfs -o size=4m small {disk} && exec "$@"'
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", script, "-", *DAEMON, command,
             "--nsdb", f"sqlite://{disk}/nsdb.db", *arguments[command]],
            stderr=out, env=os.environ | {"MIDONET_AGENT_SESSION_TIMEOUT_S": "1"},
        )  # fmt: skip
    processes.running[command] = process
    wait_for(lambda: b"event=ready" in log.read_bytes(), "ready")
    inside = Path(f"/proc/{process.pid}/root{disk}")
    with (
        closing(sqlite3.connect(inside / "nsdb.db", isolation_level=None)) as reader,
        (inside / "filler").open("ab", buffering=0) as filler,
    ):
        # While somebody reads, the log of the store is not begun anew, so each write needs room.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()

        def is_noticed() -> bool:
            # What the daemon gives back, when a write of its own has failed, is filled again.
            with suppress(OSError):
                while True:
                    filler.write(b"x" * 4096)
            return command == "cluster" or b"event=store_away" in log.read_bytes()

        wait_for(is_noticed, "the agent notices")
    if command == "cluster":
        assert refuses_writes(processes)
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 0, log.read_text()


def test_agent_that_never_reached_its_store_ends(processes: Processes) -> None:
    process = processes.start(
        "alpha", "agent", "--nsdb", f"sqlite://{processes.directory}/absent/nsdb.db",
        "--datapath", "memory", "--state-dir", str(processes.directory / "alpha"),
    )  # fmt: skip
    log = processes.directory / "alpha.log"
    wait_for(lambda: b"event=store_away" in log.read_bytes(), "the agent waits for its store")
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 0
