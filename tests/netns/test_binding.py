"""Ports bound, unbound, moved, and interfaces that go away and come back, on real agents."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import pytest

from midonet.agent.host.settings import CONTROL_SOCKET_NAME
from midonet.demo.checks import ping
from midonet.demo.lab import Lab, LabHost, VirtualMachine
from midonet.demo.namespaces import wire
from midonet.demo.steady_ping import steady_ping
from midonet.demo.topology import Tenant
from midonet.model.hosts import TunnelKind
from midonet.model.schema_hosts import BindingResource, HostResource
from midonet.model.schema_ports import PortResource
from tests.netns.labs import (
    Network,
    agent_state,
    answers,
    lab,
    own_mac,
    require_pings,
    show,
    silent,
    until,
)

pytestmark = pytest.mark.timeout(400)

ONE = "10.0.1."


@dataclass(slots=True)
class Hosts:
    """h1 with vm1 and vm2, h2 with vm3, all on one bridge."""

    lab: Lab
    network: Network
    tenant: Tenant

    @property
    def first(self) -> LabHost:
        return self.lab.hosts[0]

    @property
    def second(self) -> LabHost:
        return self.lab.hosts[1]

    def vm(self, name: str) -> VirtualMachine:
        return self.lab.machines[name]

    def new_port(self) -> PortResource:
        """Make a port of the bridge that is bound nowhere."""
        bridge = self.tenant.segments[1].bridge
        return self.network.api.create(PortResource(kind="Bridge"), parent=bridge)

    def machine(self, name: str, host: LabHost, number: int) -> VirtualMachine:
        """Make a VM whose interface is not bound."""
        return self.lab.plug(
            name,
            host,
            mac=f"02:00:00:00:01:{number:02x}",
            addresses=[f"{ONE}{number}/24"],
            gateways=[],
        )

    def is_active(self, port: PortResource) -> bool:
        return self.network.api.get(PortResource, str(port.id)).active


@pytest.fixture(scope="module")
def built(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    with lab(f"{prefix}b", tmp_path_factory.mktemp("binding")) as made:
        network = Network(made)
        network.use_zone(TunnelKind.VXLAN)
        tenant = network.make_tenant("red")
        for number, host in enumerate((made.hosts[0], made.hosts[0], made.hosts[1]), 1):
            network.plug(f"vm{number}", host, tenant.segments[1], 10 + number)
        network.wait_active()
        yield Hosts(made, network, tenant)
        network.close()


@pytest.fixture
def hosts(built: Hosts) -> Iterator[Hosts]:
    """The lab; what a test adds is taken away again, and the rest still works afterwards."""
    machines = set(built.lab.machines)
    ports = {port.id for port in built.network.api.list_all(PortResource)}
    yield built
    for port in built.network.api.list_all(PortResource):
        if port.id not in ports:
            built.network.api.delete(port)
    for name in set(built.lab.machines) - machines:
        built.lab.unplug(name)
    require_pings(built.vm("vm1"), f"{ONE}12", 2)


def mm_ctl(host: LabHost, *arguments: str) -> subprocess.CompletedProcess[str]:
    socket = str(host.state_dir / CONTROL_SOCKET_NAME)
    return subprocess.run(
        [sys.executable, "-m", "midonet.cli.mm_ctl", "--socket", socket, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_mm_ctl_binds_and_unbinds(hosts: Hosts) -> None:
    port, machine = hosts.new_port(), hosts.machine("vm20", hosts.second, 20)
    assert not hosts.is_active(port)
    done = mm_ctl(hosts.second, "--bind-port", str(port.id), machine.tap)
    assert done.returncode == 0, done.stderr
    until(lambda: hosts.is_active(port), "the port active")
    found = hosts.network.api.get(PortResource, str(port.id))
    assert (found.host_id, found.interface_name) == (UUID(hosts.second.host_id), machine.tap)
    answers(hosts.vm("vm1"), f"{ONE}20")
    done = mm_ctl(hosts.second, "--unbind-port", str(port.id))
    assert done.returncode == 0, done.stderr
    until(lambda: not hosts.is_active(port), "the port not active")
    silent(hosts.vm("vm1"), f"{ONE}20")


def test_mm_ctl_says_what_is_wrong(hosts: Hosts) -> None:
    taken = hosts.network.ports["vm1"]
    port = hosts.new_port()
    for arguments, said in (
        (("--bind-port", str(UUID(int=5)), "tap-x"), "no port"),
        (("--bind-port", str(port.id), hosts.vm("vm1").tap), str(taken.id)),
        (("--bind-port", str(port.id), "name-that-is-too-long"), "not an interface name"),
    ):
        done = mm_ctl(hosts.first, *arguments)
        assert done.returncode == 3
        assert said.lower() in done.stderr.lower(), done.stderr


def test_unbinding_stops_traffic(hosts: Hosts) -> None:
    machine = hosts.machine("vm21", hosts.second, 21)
    host = hosts.network.api.get(HostResource, hosts.second.host_id)
    for source in ("vm1", "vm3"):
        port = hosts.new_port()
        binding = hosts.network.api.create(
            BindingResource(port_id=port.id, interface_name=machine.tap), parent=host
        )
        answers(hosts.vm(source), f"{ONE}21")
        hosts.network.api.delete(binding)
        took_s = silent(hosts.vm(source), f"{ONE}21")
        show(f"unbound, seen from {source}: silent after {took_s * 1000:.0f} ms")
        assert ping(machine, f"{ONE}11", count=2, wait_s=0.5).received == 0


def test_interface_that_goes_and_comes_back(hosts: Hosts) -> None:
    """Its port is inactive meanwhile, and nobody else notices."""
    machine, port = hosts.machine("vm22", hosts.first, 22), hosts.new_port()
    assert mm_ctl(hosts.first, "--bind-port", str(port.id), machine.tap).returncode == 0
    for source in ("vm1", "vm3"):
        answers(hosts.vm(source), f"{ONE}22")
    with (
        steady_ping(hosts.vm("vm1"), f"{ONE}12") as local,
        steady_ping(hosts.vm("vm1"), f"{ONE}13") as remote,
        steady_ping(hosts.vm("vm1"), f"{ONE}22"),
    ):
        hosts.first.namespace.ip(f"link delete {machine.tap}")
        until(lambda: not hosts.is_active(port), "the port not active")
        (state,) = [
            each for each in agent_state(hosts.first)["ports"] if each["id"] == str(port.id)
        ]
        assert not state["attached"]
        assert ping(hosts.vm("vm3"), f"{ONE}22", count=2, wait_s=0.5).received == 0
        wire(machine.namespace, "eth0", hosts.first.namespace, machine.tap)
        machine.namespace.ip(
            "link set eth0 address 02:00:00:00:01:16 mtu 1430", f"address add {ONE}22/24 dev eth0"
        )
        until(lambda: hosts.is_active(port), "the port active again")
        for source in ("vm1", "vm3"):
            answers(hosts.vm(source), f"{ONE}22")
        lost = local.stop()[1], remote.stop()[1]
    assert lost == ([], [])


def test_interface_that_goes_down_and_up(hosts: Hosts) -> None:
    machine, port = hosts.machine("vm23", hosts.first, 23), hosts.new_port()
    assert mm_ctl(hosts.first, "--bind-port", str(port.id), machine.tap).returncode == 0
    answers(hosts.vm("vm3"), f"{ONE}23")
    hosts.first.namespace.ip(f"link set {machine.tap} down")
    until(lambda: not hosts.is_active(port), "the port not active")
    hosts.first.namespace.ip(f"link set {machine.tap} up")
    until(lambda: hosts.is_active(port), "the port active again")
    answers(hosts.vm("vm3"), f"{ONE}23")


def test_rebinding_moves_traffic(hosts: Hosts) -> None:
    """The same machine, moved to another host with its addresses."""
    port = hosts.new_port()
    before = hosts.machine("vm24", hosts.first, 24)
    after = hosts.machine("vm24b", hosts.second, 24)
    assert mm_ctl(hosts.first, "--bind-port", str(port.id), before.tap).returncode == 0
    for source in ("vm1", "vm3"):
        answers(hosts.vm(source), f"{ONE}24")
    before.namespace.ip("link set eth0 down")
    assert mm_ctl(hosts.second, "--bind-port", str(port.id), after.tap).returncode == 0
    moved_s = answers(hosts.vm("vm1"), f"{ONE}24")
    answers(hosts.vm("vm3"), f"{ONE}24")
    show(f"moved to another host: answered after {moved_s * 1000:.0f} ms")
    found = hosts.network.api.get(PortResource, str(port.id))
    assert found.host_id == UUID(hosts.second.host_id)
    assert str(port.id) not in {each["id"] for each in agent_state(hosts.first)["ports"]}
    assert hosts.is_active(port)


def test_bound_ports_answer(hosts: Hosts) -> None:
    """From the request that binds a port to the first ping answered."""
    host = hosts.network.api.get(HostResource, hosts.first.host_id)
    target_mac, took_s = own_mac(hosts.vm("vm1")), []
    for number in range(30, 40):
        machine, port = hosts.machine(f"vm{number}", hosts.first, number), hosts.new_port()
        # Else the second that the kernel waits between two ARP requests is what is measured.
        machine.namespace.ip(f"neighbour replace {ONE}11 lladdr {target_mac} dev eth0")
        started = time.monotonic()
        hosts.network.api.create(
            BindingResource(port_id=port.id, interface_name=machine.tap), parent=host
        )
        until(
            lambda machine=machine: ping(machine, f"{ONE}11", count=1, wait_s=0.2).received,
            "first ping",
        )
        took_s.append(time.monotonic() - started)
    took_s.sort()
    show(f"bound to first ping: median {took_s[5] * 1000:.0f} ms, worst {took_s[-1] * 1000:.0f} ms")


def test_second_agent_of_a_host_is_refused(hosts: Hosts) -> None:
    """With the same state directory, and with another in the same namespace."""
    host = hosts.first
    other = hosts.lab.options.directory / "other-state"
    with steady_ping(hosts.vm("vm1"), f"{ONE}13") as remote:
        for state_dir, said in ((host.state_dir, "another agent"), (other, "another agent")):
            command = [str(state_dir) if part == str(host.state_dir) else part
                       for part in host.agent.command]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
            assert done.returncode not in (0, -9), done.stderr
            assert said in done.stderr
            assert "Traceback" not in done.stderr
        _, lost = remote.stop()
    assert lost == []
    host.agent.require_running()
    assert agent_state(host)["hostId"] == host.host_id
