"""Labs for whole files of tests, and what the tests ask them.

with lab(prefix, directory) as made:            hosts, agents, cluster; gone afterwards
    network = Network(made)
    red = network.tenant("red")
    vm = network.plug("vm1", made.hosts[0], red.segments[1], 11)
"""

from __future__ import annotations

import json
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from midonet.agent.flows.drop_reason import DropReason
from midonet.commands.control_client import call
from midonet.demo.checks import ping
from midonet.demo.lab import Lab, LabHost, LabOptions, VirtualMachine
from midonet.demo.processes import wait_until
from midonet.demo.steady_ping import steady_ping
from midonet.demo.topology import Segment, VirtualNetworks
from midonet.model.hosts import TunnelKind
from midonet.model.schema_hosts import TunnelZoneResource
from midonet.model.schema_ports import PortResource

DEADLINE_S = 60.0
"""Only a failure takes so long, so it costs nothing to be patient with a busy machine."""

running: list[Lab] = []
"""Labs that are up in this process: a failed test shows the ends of their logs."""


@contextmanager
def lab(
    prefix: str,
    directory: Path,
    *,
    hosts: int = 2,
    is_wired: bool = False,
    agent_arguments: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
    prepare: Callable[[Lab], None] = lambda _: None,
) -> Iterator[Lab]:
    """Build a lab and take it down, whatever happens.

    prepare: called before anything of it runs.
    """
    made = Lab(
        LabOptions(
            prefix=prefix,
            directory=directory,
            hosts=hosts,
            is_wired=is_wired,
            agent_arguments=agent_arguments,
            environment=environment or {},
        )
    )
    running.append(made)
    try:
        made.clean()
        prepare(made)
        made.build()
        yield made
    finally:
        running.remove(made)
        made.clean()


class Network(VirtualNetworks):
    """The virtual networks of a lab, with the ports of its machines."""

    def __init__(self, made: Lab) -> None:
        super().__init__(made)
        self.lab = made
        self.ports: dict[str, PortResource] = {}
        self._binding = ""

    def plug(self, name: str, host: LabHost, segment: Segment, number: int) -> VirtualMachine:
        """Make a VM and note its port under its name."""
        self._binding = name
        return super().plug(name, host, segment, number)

    def bind(self, host: LabHost, segment: Segment, interface: str) -> PortResource:
        """Bind an interface; note the port under the machine's name, else the interface's."""
        port = super().bind(host, segment, interface)
        self.ports[self._binding or interface] = port
        self._binding = ""
        return port

    def is_active(self, name: str) -> bool:
        """Tell whether the REST API calls a machine's port active."""
        return self.api.get(PortResource, str(self.ports[name].id)).active

    def wait_active(self, *names: str) -> None:
        """Wait until the ports of these machines, or of all, are active."""
        for name in names or tuple(self.ports):
            until(lambda name=name: self.is_active(name), f"port of {name} active")

    def use_zone(self, kind: TunnelKind, *, is_ipv6: bool = False) -> None:
        """Have all hosts in one tunnel zone of this kind, and in no other."""
        name = f"demo-{kind}{'-v6' if is_ipv6 else ''}"
        others = [zone for zone in self.tunnel_zones() if zone.name != name]
        if not [zone for zone in self.tunnel_zones() if zone.name == name]:
            self.make_tunnel_zone(kind, is_ipv6=is_ipv6)
        for zone in others:
            self.api.delete(zone)

    def zone(self) -> TunnelZoneResource:
        """Return the one tunnel zone there is."""
        (found,) = self.tunnel_zones()
        return found


def show(figures: str) -> None:
    """Print what was measured; pytest shows it with `-rA`."""
    sys.stdout.write(f"{figures}\n")


def until(condition: Any, what: str, timeout_s: float = DEADLINE_S) -> float:
    """Wait for a condition; return the seconds it took."""
    return wait_until(lambda: bool(condition()), what=what, timeout_s=timeout_s)


def answers(source: VirtualMachine, target: str, *, timeout_s: float = DEADLINE_S) -> float:
    """Wait until a ping is answered; return the seconds until then."""
    return until(
        lambda: ping(source, target, count=1, wait_s=0.5).received,
        f"an answer to {source.name} from {target}",
        timeout_s,
    )


# What an agent tells through its control socket.


def wait_ready(host: LabHost) -> float:
    """Wait until an agent serves its ports; return the seconds."""
    return host.wait_ready()


def agent_state(host: LabHost) -> Any:
    """Return what `midonet state` shows."""
    return call(host.state_dir, "GET", "/state")


def flows(host: LabHost) -> Any:
    """Return what `midonet flows` shows."""
    return call(host.state_dir, "GET", "/flows")


def drops(host: LabHost, reason: str, port: UUID | str | None = "any") -> int:
    """Return how many packets were dropped for a reason, at a port (None: overlay) or at all.

    Raises KeyError for a reason that does not exist: it would never be counted.
    """
    reason = DropReason[reason].name
    rows = call(host.state_dir, "GET", "/drops")
    wanted = str(port) if isinstance(port, UUID) else port
    return sum(
        int(row["packets"])
        for row in rows
        if row["reason"] == reason and (wanted == "any" or row["port"] == wanted)
    )


def wait_dropped(host: LabHost, reason: str, before: int, *, least: int = 1) -> int:
    """Wait until drops for a reason have grown; return by how much."""
    until(lambda: drops(host, reason) - before >= least, f"{least} drops {reason} on {host.name}")
    return drops(host, reason) - before


# Traffic that runs beside a test.


def require_pings(source: VirtualMachine, target: str, count: int = 5) -> None:
    """Each of some pings is answered, the first one included, however late."""
    with steady_ping(source, target, 0.05, least=0) as pinging:
        last, lost = pinging.stop(count)
    assert lost == [], f"{pinging.what}: {len(lost)} of {last} lost"


def silent(source: VirtualMachine, target: str) -> float:
    """Wait until pings are not answered any more; return the seconds until then."""
    return until(
        lambda: ping(source, target, count=3, wait_s=1).received == 0,
        f"no answer to {source.name} from {target}",
    )


def neighbour_mac(machine: VirtualMachine, address: str) -> str | None:
    """Return the link-layer address that a VM's kernel has for a neighbour."""
    shown = machine.namespace.run("ip", "neigh", "show", address, "dev", "eth0")
    found = re.search(r"lladdr (\S+)", shown)
    return found[1] if found else None


def own_mac(machine: VirtualMachine) -> str:
    """Return the link-layer address of a VM."""
    shown = machine.namespace.run("ip", "-j", "link", "show", "eth0")
    return str(json.loads(shown)[0]["address"])


def mac_bytes(mac: str) -> bytes:
    """Return a link-layer address as it is in a frame."""
    return bytes.fromhex(mac.replace(":", ""))


def receive_until(taken: socket.socket, wanted: Any, timeout_s: float = 10.0) -> bytes | None:
    """Return the first frame that `wanted` accepts, None when none comes in time."""
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        taken.settimeout(left)
        try:
            frame = taken.recv(1 << 17)
        except TimeoutError:
            return None
        if wanted(frame):
            return frame
    return None
