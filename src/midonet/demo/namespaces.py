"""Network namespaces and the virtual wires between them, made with iproute2.

Commands run inside a namespace through `nsenter`, not `ip netns exec`: the latter also makes a
new mount namespace with a fresh /sys, which hides BPF file systems.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from midonet.errors import MidoNetError, UnavailableError

_RUN = Path("/run/netns")


class CommandError(MidoNetError):
    """A command of the system failed; the message carries what it printed."""


def run(command: Sequence[str], *, stdin: str | None = None, timeout_s: float = 30) -> str:
    """Run a command and return its standard output. Raises CommandError."""
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except FileNotFoundError as error:
        raise UnavailableError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{' '.join(command)}: no end after {timeout_s:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise CommandError(f"{' '.join(command)}: exit {done.returncode}: {said}")
    return done.stdout


def ip_batch(lines: Sequence[str], *, namespace: str | None = None) -> None:
    """Run several `ip` commands in one process, in a namespace or in the present one."""
    command = ["ip"] + (["-n", namespace] if namespace else []) + ["-batch", "-"]
    run(command, stdin="\n".join(lines) + "\n")


def existing(prefix: str) -> list[str]:
    """Return the names of namespaces that start with `prefix`."""
    if not _RUN.is_dir():
        return []
    return sorted(path.name for path in _RUN.iterdir() if path.name.startswith(prefix))


@dataclass(frozen=True, slots=True)
class Namespace:
    """One network namespace, by its iproute2 name."""

    name: str

    def create(self) -> None:
        """Make it, loopback up, IPv6 duplicate-address detection off (addresses serve at once)."""
        run(["ip", "netns", "add", self.name])
        ip_batch(["link set lo up"], namespace=self.name)
        self.sysctl("net.ipv6.conf.default.accept_dad", 0)
        self.sysctl("net.ipv6.conf.all.accept_dad", 0)
        self.sysctl("net.ipv6.conf.default.accept_ra", 0)

    def delete(self) -> None:
        """Remove it with all its links; one that is gone is fine."""
        if (_RUN / self.name).exists():
            run(["ip", "netns", "delete", self.name])

    def enter(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs `command` inside."""
        return ["nsenter", f"--net={_RUN / self.name}", *command]

    def run(self, *command: str, timeout_s: float = 30) -> str:
        """Run a command inside and return its output. Raises CommandError."""
        return run(self.enter(command), timeout_s=timeout_s)

    def ip(self, *lines: str) -> None:
        """Run `ip` commands inside, one a line."""
        ip_batch(lines, namespace=self.name)

    def sysctl(self, key: str, value: int) -> None:
        """Set a kernel parameter of this namespace (never of the root namespace)."""
        self.run("sysctl", "-q", "-w", f"{key}={value}")

    def addresses(self, interface: str) -> list[str]:
        """Return the addresses of an interface inside."""
        shown = json.loads(run(["ip", "-n", self.name, "-j", "address", "show", interface]))
        return [address["local"] for link in shown for address in link["addr_info"]]


def wire(left: Namespace, left_name: str, right: Namespace, right_name: str) -> None:
    """Join two namespaces by a veth pair, both ends up."""
    ip_batch(
        [
            f"link add {left_name} netns {left.name} type veth"
            f" peer name {right_name} netns {right.name}"
        ]
    )
    left.ip(f"link set dev {left_name} up")
    right.ip(f"link set dev {right_name} up")
