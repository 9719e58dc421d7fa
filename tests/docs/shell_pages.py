"""Running the shell blocks of a page as a reader would."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEADLINE_S = 400


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language, in order."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def run_script(script: str, environment: dict[str, str], output: Path) -> tuple[int | str, str]:
    """Run a script in a process group of its own, of which nothing is left afterwards.

    Return its exit code, or why there is none, and what it and its commands (traced) wrote to
    `output`.
    """
    with output.open("wb") as stream:
        process = subprocess.Popen(
            ["bash", "-x", "-c", f"PS4='+$SECONDS '\n{script}"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        code: int | str
        try:
            code = process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            code = f"not finished in {DEADLINE_S} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return code, output.read_text(encoding="utf-8", errors="replace")
