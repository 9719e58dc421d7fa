"""Hosts on one machine: namespaces on a routed underlay, an agent in each, one cluster process.

    h1 --- 172.31.1.0/24 ---\\
    h2 --- 172.31.2.0/24 ---- fabric (a plain router, no bridge)
    h3 --- 172.31.3.0/24 ---/

Every name starts with the lab's prefix, so that leftovers of a crashed run are recognised.
"""

from __future__ import annotations

import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from midonet.agent.host.settings import CONTROL_SOCKET_NAME
from midonet.demo.namespaces import Namespace, existing, run, wire
from midonet.demo.processes import Child, end_recorded, free_port, wait_until

UNDERLAY_MTU = 1500
DEFAULT_PREFIX = "mnd"


@dataclass(frozen=True, slots=True)
class LabOptions:
    """What kind of lab.

    is_wired: two hosts joined by one wire (172.31.0.0/24) instead of a routed underlay.
    """

    prefix: str = DEFAULT_PREFIX
    directory: Path = Path("/run/midonet-demo")
    hosts: int = 3
    datapath: str = "ebpf"
    is_wired: bool = False
    agent_arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class LabHost:
    """One virtual host. `host_id` is known once its agent has registered."""

    index: int
    namespace: Namespace
    agent: Child
    state_dir: Path
    address: str
    address6: str
    host_id: str = ""

    @property
    def name(self) -> str:
        """Return the host name the agent registers under."""
        return f"h{self.index}"

    def is_ready(self) -> bool:
        """Tell whether the agent answers and has attached the ports that are bound to it."""
        path = str(self.state_dir / CONTROL_SOCKET_NAME)
        # The HTTP library does not close a socket that could not be connected.
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except OSError:
                return False
        try:
            with httpx.Client(transport=httpx.HTTPTransport(uds=path), timeout=10) as client:
                answer = client.get("http://agent/state")
        except httpx.TransportError:
            return False
        if answer.is_error:
            return False
        ports = answer.json()["ports"]
        return bool(ports) and all(port["active"] for port in ports)

    def wait_ready(self, timeout_s: float = 60) -> float:
        """Wait until the agent serves its ports; return the seconds. Raises UnavailableError."""

        def ready() -> bool:
            self.agent.require_running()
            return self.is_ready()

        return wait_until(ready, what=f"agent on {self.name} ready", timeout_s=timeout_s)


@dataclass(frozen=True, slots=True)
class VirtualMachine:
    """A namespace with one interface, plugged into a host by a veth pair."""

    name: str
    host: LabHost
    namespace: Namespace
    tap: str


class Lab:
    """Builds hosts, starts processes, plugs VMs, and takes everything down again."""

    def __init__(
        self, options: LabOptions, say: Callable[[str], None] = lambda _text: None
    ) -> None:
        self.options = options
        self._say = say
        self.fabric = Namespace(f"{options.prefix}-fabric")
        self.hosts: list[LabHost] = []
        self.machines: dict[str, VirtualMachine] = {}
        self.api_port = free_port()
        self.cluster = Child(
            "cluster",
            [
                sys.executable,
                "-m",
                "midonet.commands.main",
                "cluster",
                "--nsdb",
                self.nsdb_url,
                "--listen",
                f"127.0.0.1:{self.api_port}",
            ],
            options.directory,
            options.environment,
        )

    @property
    def nsdb_url(self) -> str:
        """Return the URL of the embedded state database that all processes share."""
        return f"sqlite:///{self.options.directory / 'nsdb.sqlite'}"

    @property
    def api_url(self) -> str:
        """Return the root of the REST API."""
        return f"http://127.0.0.1:{self.api_port}/midonet-api"

    def clean(self) -> None:
        """Remove what this or an earlier run with the same prefix left behind."""
        directory = self.options.directory
        for machine in self.machines.values():
            machine.namespace.delete()
        for host in self.hosts:
            host.agent.stop()
        self.cluster.stop()
        if directory.exists():
            for name in end_recorded(directory):
                self._say(f"ended {name}")
        for name in existing(f"{self.options.prefix}-"):
            Namespace(name).delete()
        _unmount_below(directory)
        shutil.rmtree(directory, ignore_errors=True)
        self.hosts.clear()
        self.machines.clear()

    def build(self) -> None:
        """Make the underlay and start cluster and agents; return when all hosts are alive."""
        self.options.directory.mkdir(parents=True, exist_ok=True)
        self._say("cluster: starting")
        self.cluster.start()
        self._make_underlay()
        self._wait_for_api()
        for host in self.hosts:
            self._say(f"agent on {host.name}: starting")
            host.agent.start()
        self.wait_alive()

    def _make_underlay(self) -> None:
        if self.options.is_wired:
            for index in (1, 2):
                self.hosts.append(self._make_host(index, f"172.31.0.{index}", f"fd31::{index}"))
            left, right = (host.namespace for host in self.hosts)
            wire(left, "eth0", right, "eth0")
            for host in self.hosts:
                host.namespace.ip(
                    f"address add {host.address}/24 dev eth0",
                    f"address add {host.address6}/64 dev eth0 nodad",
                )
            return
        self.fabric.create()
        self.fabric.sysctl("net.ipv4.ip_forward", 1)
        self.fabric.sysctl("net.ipv6.conf.all.forwarding", 1)
        for index in range(1, self.options.hosts + 1):
            host = self._make_host(index, f"172.31.{index}.2", f"fd31:{index}::2")
            self.hosts.append(host)
            wire(host.namespace, "eth0", self.fabric, f"h{index}")
            self.fabric.ip(
                f"address add 172.31.{index}.1/24 dev h{index}",
                f"address add fd31:{index}::1/64 dev h{index} nodad",
            )
            host.namespace.ip(
                f"address add {host.address}/24 dev eth0",
                f"address add {host.address6}/64 dev eth0 nodad",
                f"route add default via 172.31.{index}.1",
                f"route add default via fd31:{index}::1",
            )

    def _make_host(self, index: int, address: str, address6: str) -> LabHost:
        options = self.options
        namespace = Namespace(f"{options.prefix}-h{index}")
        namespace.create()
        state_dir = options.directory / f"h{index}"
        state_dir.mkdir(exist_ok=True)
        agent = Child(
            f"agent-h{index}",
            namespace.enter(
                [
                    sys.executable,
                    "-m",
                    "midonet.commands.main",
                    "agent",
                    "--nsdb",
                    self.nsdb_url,
                    "--host-name",
                    f"h{index}",
                    "--state-dir",
                    str(state_dir),
                    "--datapath",
                    options.datapath,
                    *options.agent_arguments,
                ]
            ),
            options.directory,
            options.environment,
        )
        return LabHost(index, namespace, agent, state_dir, address, address6)

    def _wait_for_api(self) -> None:
        def answers() -> bool:
            self.cluster.require_running()
            try:
                return httpx.get(self.api_url, timeout=10).status_code == 200
            except httpx.TransportError:
                return False

        wait_until(answers, what=f"REST API on {self.api_url}", timeout_s=60)

    def wait_alive(self) -> None:
        """Wait until every agent is registered and alive; note the hosts' ids."""

        def all_alive() -> bool:
            for host in self.hosts:
                host.agent.require_running()
            listed = httpx.get(
                f"{self.api_url}/hosts", headers={"Accept": "application/json"}, timeout=30
            ).json()
            alive = {host["name"]: host["id"] for host in listed if host["alive"]}
            for host in self.hosts:
                host.host_id = alive.get(host.name, "")
            return all(host.host_id for host in self.hosts)

        wait_until(all_alive, what="agents alive", timeout_s=60)

    def plug(
        self, name: str, host: LabHost, *, mac: str, addresses: list[str], gateways: list[str]
    ) -> VirtualMachine:
        """Make a VM on a host: a namespace, a veth pair, addresses, default routes."""
        namespace = Namespace(f"{self.options.prefix}-{name}")
        namespace.create()
        tap = f"tap-{name}"[:15]
        wire(namespace, "eth0", host.namespace, tap)
        namespace.ip(
            f"link set eth0 address {mac} mtu {UNDERLAY_MTU - 70}",
            *(f"address add {address} dev eth0 nodad" for address in addresses if ":" in address),
            *(f"address add {address} dev eth0" for address in addresses if ":" not in address),
            *(f"route add default via {gateway}" for gateway in gateways),
        )
        machine = VirtualMachine(name, host, namespace, tap)
        self.machines[name] = machine
        return machine

    def unplug(self, name: str) -> None:
        """Remove a VM; its veth pair goes with the namespace."""
        self.machines.pop(name).namespace.delete()


def _unmount_below(directory: Path) -> None:
    """Unmount file systems that agents mounted under a lab's directory."""
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for path in sorted(mounted, reverse=True):
        if Path(path).is_relative_to(directory) and path != str(directory):
            run(["umount", path])
