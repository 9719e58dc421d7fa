from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from midonet.errors import UserError
from midonet.runtime.clock import ManualClock
from midonet.runtime.logging import LogFormat, Throttle, configure_logging
from midonet.runtime.notify import notify


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_service_manager_hears_readiness(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(path))
        manager.settimeout(60)
        assert notify("READY=1", "STATUS=up", environment={"NOTIFY_SOCKET": str(path)})
        assert manager.recv(100) == b"READY=1\nSTATUS=up"


def test_nobody_to_tell_is_no_error(tmp_path: Path) -> None:
    assert not notify("READY=1", environment={})
    assert not notify("READY=1", environment={"NOTIFY_SOCKET": str(tmp_path / "gone")})


def test_text_and_json_lines() -> None:
    stream = io.StringIO()
    configure_logging("info", LogFormat.TEXT, stream)
    structlog.get_logger().info("port_attached", port_id="p1")
    structlog.get_logger().debug("hidden")
    assert "level=info event=port_attached port_id=p1" in stream.getvalue()
    assert "hidden" not in stream.getvalue()

    stream = io.StringIO()
    configure_logging("debug", LogFormat.JSON, stream)
    structlog.get_logger().debug("port_attached", port_id="p1")
    assert json.loads(stream.getvalue())["port_id"] == "p1"


def test_unknown_level_is_refused() -> None:
    with pytest.raises(UserError, match="log level"):
        configure_logging("loud")


def test_throttle_counts_what_it_holds_back() -> None:
    clock = ManualClock()
    throttle = Throttle(clock, interval_s=10, capacity=2)
    assert throttle.allow("a") == 0
    assert throttle.allow("a") is None
    assert throttle.allow("a") is None
    clock.advance(10)
    assert throttle.allow("a") == 2
    assert throttle.allow("b") == 0
    assert throttle.allow("c") == 0  # forgets the oldest
    assert throttle.allow("a") == 0
