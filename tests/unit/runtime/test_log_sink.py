"""A log that cannot be written loses lines, tells how many, and stops nobody."""

from __future__ import annotations

import fcntl
import io
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

import pytest
import structlog

from midonet.runtime.log_sink import LogSink
from midonet.runtime.logging import LogFormat, configure_logging, lost_log_lines

LOST = "lost {}".format


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def full() -> TextIO:
    return open("/dev/full", "w", encoding="utf-8")  # noqa: PTH123 - closed by the test


def test_full_disk_loses_lines_and_counts_them() -> None:
    with full() as stream:
        configure_logging("info", LogFormat.TEXT, stream)
        for _ in range(3):
            structlog.get_logger().info("port_attached")
        assert lost_log_lines() == 3


def test_reader_that_went_away_loses_lines() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        sink = LogSink(stream, LOST)
        os.close(reader)
        sink.msg("line")
        assert sink.lost == 1


def test_no_standard_error_loses_lines() -> None:
    sink = LogSink(None, LOST)
    sink.msg("line")
    assert sink.lost == 1


def test_closed_stream_loses_lines() -> None:
    stream = io.StringIO()
    sink = LogSink(stream, LOST)
    stream.close()
    sink.msg("line")
    assert sink.lost == 1


def test_pipe_that_nobody_reads_is_not_waited_for_and_the_hole_is_told() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 8192)
    with os.fdopen(writer, "w") as stream, os.fdopen(reader, "rb", buffering=0) as read:
        sink = LogSink(stream, LOST)
        for _ in range(20):
            sink.msg("x" * 1000)
        lost = sink.lost
        assert 0 < lost < 20
        written = read.read(1 << 16)
        sink.msg("after")
        lines = (written + read.read(1 << 16)).decode().splitlines()
    assert lines[-2:] == [f"lost {lost}", "after"]
    assert sum(line == "x" * 1000 for line in lines) == 20 - lost


def test_line_that_was_cut_does_not_run_into_the_next() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 16384)
    with os.fdopen(writer, "w") as stream, os.fdopen(reader, "rb", buffering=0) as read:
        sink = LogSink(stream, LOST)
        sink.msg("y" * 40_000)
        assert sink.lost == 1
        first = read.read(1 << 16)
        sink.msg("after")
        text = (first + read.read(1 << 16)).decode()
    assert text.splitlines()[1:] == ["lost 1", "after"]


def test_journal_socket_that_is_full_is_not_waited_for() -> None:
    ours, journal = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, journal, os.fdopen(os.dup(ours.fileno()), "w") as stream:
        sink = LogSink(stream, LOST)
        while not sink.lost:
            sink.msg("z" * 50_000)
        journal.setblocking(False)
        received = bytearray()
        while True:
            try:
                received += journal.recv(1 << 20)
            except BlockingIOError:
                break
        sink.msg("after")
        received += journal.recv(1 << 20)
    assert received.decode().splitlines()[-2:] == ["lost 1", "after"]


@pytest.mark.parametrize("style", LogFormat)
def test_whatever_the_values_are_an_event_is_one_line(style: LogFormat) -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise ValueError("no")

        __repr__ = __str__

    stream = io.StringIO()
    configure_logging("info", style, stream)
    log = structlog.get_logger()
    log.info("named", name="a\nb\r\x1b[2J\x9b\u2028\udcff level=error")
    log.info("odd", value=Unprintable())
    log.info("odd", **{"key with space": 1})
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("failed")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert stream.getvalue().translate({10: None}).isprintable()


PROGRAM = """
import asyncio, gc, logging, sys, threading, warnings
from midonet.runtime.logging import LogFormat, capture_foreign_messages, configure_logging
configure_logging("info", LogFormat(sys.argv[1]))
capture_foreign_messages()
for name in ("uvicorn.error", "litestar", "asyncio", "pyroute2"):
    logging.getLogger(name).error("from %s", name)
logging.getLogger("uvicorn.error").error("bad %d arguments", "x")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("library").exception("with a trace")
warnings.warn("of a library")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
class Late:
    def __del__(self): raise RuntimeError("in __del__")
late = Late()
del late
async def forgotten():
    asyncio.get_running_loop().create_task(fail())
    await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0)
async def fail():
    raise RuntimeError("nobody asked")
asyncio.run(forgotten())
raise RuntimeError("end")
"""


@pytest.mark.parametrize("style", ["text", "json"])
def test_every_line_has_the_chosen_format_also_those_of_libraries(style: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", PROGRAM, style],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    lines = done.stderr.splitlines()
    if style == "json":
        events = [json.loads(line)["event"] for line in lines]
        said = [json.loads(line).get("message", "") for line in lines]
        assert {f"from {name}" for name in ("uvicorn.error", "litestar", "pyroute2")} <= set(said)
        assert any("nobody asked" in line for line in lines)
    else:
        assert all(line.startswith("timestamp=20") for line in lines), lines
        events = [line.split("event=")[1].split()[0] for line in lines]
    assert events.count("library_message") == 8
    assert {"thread_crashed", "exception_ignored", "crashed"} <= set(events)
    assert done.returncode == 1
