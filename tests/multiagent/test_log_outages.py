"""Both daemons go on, and end when told, whatever becomes of their log and of who listens to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.multiagent.processes import DEADLINE_S, Processes, wait_for

DAEMON = (sys.executable, "-m", "midonet.commands.main")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    started.close()


def full_disk() -> int:
    return os.open("/dev/full", os.O_WRONLY)


def pipe_without_reader() -> int:
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def crammed_pipe() -> int:
    """A pipe whose reader is there and does not read; the reader is left to the process's end."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(writer, True)
    UNREAD.append(reader)
    return writer


UNREAD: list[int] = []


@pytest.fixture(autouse=True)
def _close_unread() -> Iterator[None]:
    yield
    while UNREAD:
        os.close(UNREAD.pop())


@pytest.mark.parametrize("log", [full_disk, pipe_without_reader, crammed_pipe])
def test_daemons_go_on_without_their_log(processes: Processes, log: Callable[[], int]) -> None:
    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        descriptor = log()
        try:
            process = subprocess.Popen(
                [*DAEMON, *arguments], stdin=subprocess.DEVNULL, stderr=descriptor
            )
        finally:
            os.close(descriptor)
        processes.running[name] = process
        return process

    start(
        "cluster", "cluster", "--nsdb", processes.nsdb, "--log-level", "debug",
        "--listen", f"127.0.0.1:{processes.api_port}",
    )  # fmt: skip
    wait_for(lambda: api_answers(processes), "the API answers")
    start(
        "alpha", "agent", "--nsdb", processes.nsdb, "--host-name", "alpha", "--datapath", "memory",
        "--state-dir", str(processes.directory / "alpha"), "--log-level", "debug",
        "--underlay-port", str(processes.underlay_port),
    )  # fmt: skip
    wait_for(lambda: is_connected(processes, "alpha"), "the agent answers")
    host_id = processes.state("alpha")["hostId"]
    processes.tunnel_zone({host_id: "127.0.9.1"})
    ports = processes.bridge_ports(1)
    processes.bind(host_id, ports[0], "tap1")
    wait_for(lambda: ports[0] in processes.active_ports("alpha"), "the port is active")
    assert processes.state("alpha")["counters"]["log_lines_lost"] > 0
    assert processes.stop("alpha") == 0
    assert processes.stop("cluster") == 0


def is_connected(processes: Processes, name: str) -> bool:
    state = processes.state(name)
    return state is not None and state["store"] == "connected"


def api_answers(processes: Processes) -> bool:
    try:
        return processes.api.get("/").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("command", ["agent", "cluster"])
def test_service_manager_that_does_not_listen_holds_nobody_up(
    processes: Processes, tmp_path: Path, command: str
) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            while True:
                try:
                    other.sendto(b"x", str(path))
                except BlockingIOError:
                    break
        arguments = {
            "agent": ("--datapath", "memory", "--state-dir", str(tmp_path / "alpha"),
                      "--underlay-port", str(processes.underlay_port)),
            "cluster": ("--listen", f"127.0.0.1:{processes.api_port}"),
        }  # fmt: skip
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [*DAEMON, command, "--nsdb", processes.nsdb, *arguments[command]],
                env=os.environ | {"NOTIFY_SOCKET": str(path)},
                stderr=log,
            )
        processes.running[command] = process
        wait_for(lambda: b"event=ready" in (tmp_path / "log").read_bytes(), "ready")
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0


@pytest.mark.parametrize(
    ("arguments", "ends"),
    [
        (("config", "show", "--nsdb", "memory:"), "No space left"),
        (("config", "show", "--nsdb", "memory:", "--json"), "No space left"),
    ],
)
def test_output_that_cannot_be_written_is_one_line(arguments: tuple[str, ...], ends: str) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*DAEMON, *arguments], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr.decode().count("\n") == 1
    assert ends in done.stderr.decode()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-", "| true"])
def test_commands_bear_streams_that_are_closed(closed: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            "bash",
            "-c",
            f'set -o pipefail; "$@" {closed}',
            "-",
            *DAEMON,
            "config",
            "show",
            "--nsdb",
            "memory:",
        ],
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr + done.stdout
    assert b"Exception" not in done.stderr + done.stdout
