"""Agents on the eBPF datapath: two hosts in namespaces, a VM behind each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

import pytest

from midonet.demo.namespaces import Namespace, wire
from midonet.demo.steady_ping import SteadyPing, steady_ping
from tests.multiagent.processes import Processes, wait_for

NamespaceMaker = Callable[[str], Namespace]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path)
    yield started
    started.close()


class Lab:
    """Two hosts joined by a wire, each with an agent, a VM behind each, all on one bridge."""

    def __init__(self, processes: Processes, namespace: NamespaceMaker) -> None:
        self.processes = processes
        self.hosts = {name: namespace(name) for name in ("h1", "h2")}
        self.vms = {name: namespace(f"vm{name}") for name in self.hosts}
        wire(self.hosts["h1"], "wire", self.hosts["h2"], "wire")
        for number, name in enumerate(self.hosts, start=1):
            self.hosts[name].ip(f"address add 192.0.2.{number}/24 dev wire")
            wire(self.hosts[name], "tap0", self.vms[name], "eth0")
            self.vms[name].ip(f"address add 10.0.0.{number}/24 dev eth0")
        processes.start_cluster()
        for name in self.hosts:
            self.start_agent(name)
        ids = {name: processes.state(name)["hostId"] for name in self.hosts}
        processes.tunnel_zone({ids["h1"]: "192.0.2.1", ids["h2"]: "192.0.2.2"})
        for name, port in zip(self.hosts, processes.bridge_ports(2), strict=True):
            processes.bind(ids[name], port, "tap0")
        for name in self.hosts:
            wait_for(lambda name=name: processes.active_ports(name), "the port is active")
            wait_for(lambda name=name: processes.state(name)["peers"], "the peer is known")

    def start_agent(self, name: str) -> None:
        self.processes.start_agent(name, datapath="ebpf", inside=self.hosts[name].enter([]))

    def uninstall(self) -> None:
        for name, host in self.hosts.items():
            if name in self.processes.running:
                self.processes.stop(name)
            arguments = ("agent", "--uninstall", "--nsdb", self.processes.nsdb)
            state_dir = str(self.processes.directory / name)
            process = self.processes.start(
                f"un{name}", *arguments, "--state-dir", state_dir, inside=host.enter([])
            )
            assert process.wait(30) == 0

    def ping(self) -> AbstractContextManager[SteadyPing]:
        return steady_ping(Machine("vmh1", self.vms["h1"]), "10.0.0.2", 0.02)


class Machine(NamedTuple):
    """Who pings."""

    name: str
    namespace: Namespace


@pytest.fixture
def lab(processes: Processes, namespace: NamespaceMaker) -> Iterator[Lab]:
    made = Lab(processes, namespace)
    yield made
    made.uninstall()


@pytest.mark.timeout(400)
def test_ping_crosses_and_survives_agents(lab: Lab) -> None:
    with lab.ping() as pinging:
        # Restart one agent under traffic.
        assert lab.processes.stop("h1") == 0
        pinging.wait_answers(20)
        lab.start_agent("h1")
        pinging.wait_answers(20)

        # Killed, not stopped.
        for name in ("h1", "h2"):
            process = lab.processes.running.pop(name)
            process.kill()
            process.wait()
        pinging.wait_answers(20)
        for name in ("h1", "h2"):
            lab.start_agent(name)
        wait_for(lambda: lab.processes.active_ports("h1"), "the port is active again")
        _, lost = pinging.stop()
    assert lost == []
