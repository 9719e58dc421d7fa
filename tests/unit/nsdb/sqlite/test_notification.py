from __future__ import annotations

import os
from pathlib import Path

from midonet.nsdb.sqlite.notification import Listener, Notifier


def test_notification_that_cannot_be_written_is_no_failure_of_the_commit() -> None:
    notifier = Notifier(os.open("/dev/full", os.O_WRONLY))
    notifier.notify()
    notifier.close()


def test_listener_hears_a_notification(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    notifier = Notifier(os.open(path, os.O_WRONLY | os.O_CREAT))
    listener = Listener(path)
    notifier.notify()
    assert listener.wait(30)
    listener.stop()
    assert not listener.wait(30)
    listener.close()
    notifier.close()
