"""A database that is taken away under the daemons: they say so, and end; a new start goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.multiagent.processes import DEADLINE_S, Processes, wait_for


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    started.close()


def remove(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.rename(path)


@pytest.mark.parametrize(("take_away", "said"), [(remove, "removed"), (replace, "replaced")])
def test_daemons_end_when_their_database_is_taken_away(
    processes: Processes, take_away: Callable[[Path], None], said: str
) -> None:
    processes.start_cluster()
    processes.start_agent("alpha")
    wait_for(lambda: processes.state("alpha")["store"] == "connected", "alpha is connected")
    take_away(processes.directory / "nsdb.db")

    statuses: list[int] = []

    def is_refused() -> bool:
        try:
            statuses.append(processes.api.get("/bridges").status_code)
        except httpx.HTTPError:
            return True
        return False

    wait_for(is_refused, "the control node ends")
    assert set(statuses) == {503}
    for name in ("cluster", "alpha"):
        assert processes.running.pop(name).wait(DEADLINE_S) == 1
        log = (processes.directory / f"{name}.log").read_text()
        assert f"nsdb.db was {said}" in log
        assert "Traceback" not in log

    # What is there now is opened by the next start: a new database, of which the host must not
    # believe that no port is bound to it.
    for suffix in ("", "-wal", "-shm"):
        (processes.directory / f"nsdb.db{suffix}").unlink(missing_ok=True)
    processes.start_cluster()
    status, _ = processes.command(*processes.agent_arguments("alpha"))
    assert status == 2
    (processes.directory / "alpha" / "hash_seed").unlink()
    processes.start_agent("alpha")
    wait_for(lambda: processes.state("alpha")["store"] == "connected", "alpha is connected again")
    assert processes.stop("alpha") == 0
    assert processes.stop("cluster") == 0
