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
def started(tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the command and wait until it tells the service manager that it is ready."""
    notify_path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(notify_path))
        manager.settimeout(30)
        environment = os.environ | {"NOTIFY_SOCKET": str(notify_path)}
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
