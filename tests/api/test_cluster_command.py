"""`midonet cluster` as a process: ready, serving, stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

PROGRAM = (
    "import argparse, sys; from midonet.commands import cluster;"
    "parser = argparse.ArgumentParser(); cluster.add_parser(parser.add_subparsers());"
    "args = parser.parse_args(); sys.exit(args.run(args))"
)


@contextmanager
def started(
    tmp_path: Path, *arguments: str, lines: list[str] | None = None, **settings: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the command and wait until it tells the service manager that it is ready.

    lines: takes what it logged until then. settings: environment variables.
    """
    notify_path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(notify_path))
        manager.settimeout(30)
        environment = os.environ | settings | {"NOTIFY_SOCKET": str(notify_path)}
        command = [sys.executable, "-c", PROGRAM, "cluster", "--listen", "127.0.0.1:0"]
        with subprocess.Popen(
            [*command, *arguments], env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                assert manager.recv(1000) == b"READY=1"
                assert process.stderr is not None
                root = ""
                while "event=ready" not in root:
                    root = process.stderr.readline()
                    if lines is not None:
                        lines.append(root)
                yield process, f"http://{root.split('listen=')[1].strip()}/midonet-api"
            finally:
                if process.poll() is None:
                    process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_ends_the_command_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    database = f"sqlite:///{tmp_path}/nsdb.db"
    with started(tmp_path, "--nsdb", database) as (process, root):
        with httpx.Client() as client:
            assert client.post(f"{root}/bridges", json={"name": "kept"}).status_code == 201
        process.send_signal(number)
        assert process.wait(20) == 0
    (tmp_path / "notify").unlink()
    with started(tmp_path, "--nsdb", database) as (process, root):
        with httpx.Client() as client:
            listed = client.get(f"{root}/bridges").json()
        assert [bridge["name"] for bridge in listed] == ["kept"]


def test_memory_store_is_allowed(tmp_path: Path) -> None:
    with started(tmp_path, "--nsdb", "memory:") as (process, root):
        with httpx.Client() as client:
            assert client.get(f"{root}/").json()["version"] == "v5.0"
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize(("address", "is_open"), [("0.0.0.0", True), ("127.0.0.2", False)])
def test_api_that_others_can_reach_is_warned_of(
    tmp_path: Path, address: str, is_open: bool
) -> None:
    lines: list[str] = []
    arguments = ("--nsdb", "memory:", "--listen", f"{address}:0")
    with started(tmp_path, *arguments, lines=lines):
        pass
    warned = [line for line in lines if "event=api_open_to_the_network" in line]
    assert bool(warned) is is_open
    assert all("level=warning" in line for line in warned)


def test_hosts_and_origins_are_settings(tmp_path: Path) -> None:
    settings = {
        "MIDONET_CLUSTER_ALLOWED_HOSTS": "api.example, .cloud.example",
        "MIDONET_CLUSTER_CORS_ORIGINS": "https://gui.example",
    }
    with started(tmp_path, "--nsdb", "memory:", **settings) as (_, root), httpx.Client() as client:
        for host, status in (("api.example", 200), ("evil.example", 421), ("localhost", 200)):
            reply = client.get(f"{root}/bridges", headers={"Host": host})
            assert reply.status_code == status
        for origin, status in (("https://gui.example", 201), ("https://evil.example", 403)):
            reply = client.post(f"{root}/bridges", json={}, headers={"Origin": origin})
            assert reply.status_code == status
