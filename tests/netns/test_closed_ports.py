"""What a workload sends never reaches its host's own stack: not while its port is detached, not
while no agent runs, not after the last one.

The host here forwards, has a route to the underlay and answers, so that whatever gets in is heard.
An interface that is nobody's port shows each time that it is, and that all frames were handled.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Final
from uuid import UUID

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from midonet.agent.datapath.ebpf import AttachMode
from midonet.agent.datapath.ebpf.enclosure import NAME as BRIDGE
from midonet.agent.datapath.ebpf.rtnetlink import Link, RouteNetlink
from midonet.agent.datapath.protocol import OverlayConfig, PortAttachment
from midonet.agent.flows.mask import EMPTY_MASK
from midonet.agent.flows.program import FlowProgram, InstalledProgram, LocalOutput
from midonet.errors import DatapathError
from midonet.model.ids import PortId
from midonet.packets.flowkey import FlowKey
from tests.contract.datapath_harness import eventually
from tests.contract.ebpf_harness import EbpfHarness, Tap, ebpf_harness
from tests.netns.entering import entered, packet_socket, socket_inside
from tests.netns.taps import Tap as VirtualMachine

PORT, OTHER = PortId(UUID(int=0xA1)), PortId(UUID(int=0xA2))
UNDERLAY, HOST, UNDERLAY6, HOST6 = "192.0.2.2", "192.0.2.1", "2001:db8::2", "2001:db8::1"
UDP_PORT: Final = 7777
GROUPS: Final = (
    "ff:ff:ff:ff:ff:ff",
    "01:00:5e:00:00:01",
    "33:33:00:00:00:01",
    *(f"01:80:c2:00:00:{number:02x}" for number in range(16)),
)


class Host:
    """A host that forwards, with ears on its sockets and its underlay."""

    def __init__(self, harness: EbpfHarness, stack: ExitStack) -> None:
        self.harness = harness
        host = harness.host
        host.sysctl("net.ipv4.ip_forward", 1)
        host.sysctl("net.ipv6.conf.all.forwarding", 1)
        for name in ("all", "default", "u0"):
            host.sysctl(f"net.ipv4.conf.{name}.rp_filter", 0)
        self._ears = [stack.enter_context(closing(packet_socket(harness.outside, "u1")))]
        for family, address in ((socket.AF_INET, HOST), (socket.AF_INET6, HOST6)):
            made = stack.enter_context(closing(socket_inside(host, family, socket.SOCK_DGRAM)))
            made.bind((address, UDP_PORT))
            self._ears.append(made)
        for ear in self._ears:
            ear.setblocking(False)
        self._heard: list[bytes] = []

    def heard(self) -> list[bytes]:
        """Return all that has come to a socket of the host or has left for the underlay."""
        for ear in self._ears:
            while True:
                try:
                    self._heard.append(ear.recv(2048))
                except BlockingIOError:
                    break
        return self._heard

    def link(self, name: str) -> Link:
        netlink = RouteNetlink()
        try:
            found = netlink.link(name)
        finally:
            netlink.close()
        assert found is not None
        return found

    def is_enclosed(self, name: str) -> bool:
        return self.link(name).master == self.link(BRIDGE).ifindex


class Workload:
    """What sends at an interface of the host: a container's veth end, or a machine's tap."""

    def __init__(self, host: Host, kind: str, name: str, stack: ExitStack) -> None:
        self.host, self.kind, self.name = host, kind, name
        self._stack = stack
        self._rounds = 0
        self._send: Callable[[bytes], None]
        self.plug()

    def plug(self) -> None:
        """Make the interface."""
        harness = self.host.harness
        if self.kind == "tap":
            machine = self._stack.enter_context(VirtualMachine(harness.host, self.name))
            self._send = machine.send
        else:
            far = f"far-{self.name}"
            harness.host.ip(
                f"link add {self.name} type veth peer name {far} netns {harness.outside.name}",
                f"link set {self.name} up",
            )
            harness.outside.ip(f"link set {far} up")
            with entered(harness.outside):
                tap = Tap(far)
            self._stack.callback(tap.close)
            self._send = tap.send
        harness.host.sysctl(f"net.ipv4.conf.{self.name}.rp_filter", 0)

    def unplug(self) -> None:
        """Remove the interface."""
        self.host.harness.host.ip(f"link delete {self.name}")

    def send(self, frame: bytes) -> None:
        with suppress(OSError):  # the interface is down: nothing gets in
            self._send(frame)

    def send_everything(self) -> bytes:
        """Send what a host would take or forward; return the mark that all of it bears."""
        self._rounds += 1
        mark = f"from {self.name}, round {self._rounds}".encode()
        with closing(packet_socket(self.host.harness.host, self.name, eth_type=0)) as made:
            own = made.getsockname()[4].hex(":")
        for mac in (own, *GROUPS):
            for packet in (
                IP(src="10.0.0.1", dst=UNDERLAY) / UDP(dport=UDP_PORT),
                IP(src="10.0.0.1", dst=HOST) / UDP(dport=UDP_PORT),
                IPv6(src="fd00::1", dst=UNDERLAY6) / UDP(dport=UDP_PORT),
                IPv6(src="fd00::1", dst=HOST6) / UDP(dport=UDP_PORT),
                Dot1Q(vlan=0) / IP(src="10.0.0.1", dst=HOST) / UDP(dport=UDP_PORT),
            ):
                self.send(bytes(Ether(src="02:00:00:00:00:0a", dst=mac) / packet / Raw(mark)))
        return mark


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Frames that one CPU sends are handled in that order."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.fixture(params=[AttachMode.TCX, AttachMode.CLSACT])
async def host(request: pytest.FixtureRequest, one_cpu: None) -> AsyncIterator[Host]:
    async with ebpf_harness(attach_mode=request.param) as harness:
        with ExitStack() as stack:
            yield Host(harness, stack)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


@pytest.fixture(params=["veth", "tap"])
def workload(request: pytest.FixtureRequest, host: Host, stack: ExitStack) -> Workload:
    return Workload(host, request.param, "work0", stack)


@pytest.fixture
def control(host: Host, workload: Workload, stack: ExitStack) -> Workload:
    """An interface that is no port."""
    return Workload(host, workload.kind, "free0", stack)


async def nothing_gets_in(workload: Workload, control: Workload) -> None:
    host = workload.host
    mark, end = workload.send_everything(), control.send_everything()
    await eventually(lambda: sum(end in each for each in host.heard()) >= 2 * 5)
    assert [each for each in host.heard() if mark in each] == []


async def test_a_port_is_closed_whatever_becomes_of_it(
    host: Host, workload: Workload, control: Workload
) -> None:
    datapath = host.harness.datapath
    assert datapath.enclose([workload.name]) == {}
    await nothing_gets_in(workload, control)  # bound, and not attached yet
    datapath.attach(PortAttachment(PORT, workload.name))
    await nothing_gets_in(workload, control)
    await datapath.close()
    await nothing_gets_in(workload, control)  # no agent
    await datapath.open()
    datapath.detach(PORT)
    await nothing_gets_in(workload, control)
    assert host.is_enclosed(workload.name)
    await datapath.close()
    await nothing_gets_in(workload, control)  # detached, and no agent
    await datapath.open()
    datapath.attach(PortAttachment(PORT, workload.name))
    datapath.attach(PortAttachment(OTHER, host.harness.add_interface(OTHER)))
    datapath.detach(PORT)
    await nothing_gets_in(workload, control)


async def test_a_port_is_closed_after_the_agent_was_uninstalled(
    host: Host, workload: Workload, control: Workload
) -> None:
    host.harness.datapath.attach(PortAttachment(PORT, workload.name))
    await host.harness.datapath.uninstall()
    await nothing_gets_in(workload, control)
    found = host.link(workload.name)
    assert (found.master, found.is_up) == (0, False)
    assert host.link(control.name).is_up
    assert BRIDGE not in {name for _, name in socket.if_nameindex()}


async def test_an_interface_that_comes_back_is_closed_again(
    host: Host, workload: Workload, control: Workload
) -> None:
    datapath = host.harness.datapath
    datapath.attach(PortAttachment(PORT, workload.name))
    workload.unplug()
    await eventually(lambda: PORT not in datapath.attached())
    workload.plug()
    assert datapath.enclose([workload.name, "absent0"]) == {}
    await nothing_gets_in(workload, control)
    datapath.attach(PortAttachment(PORT, workload.name))
    await nothing_gets_in(workload, control)


async def test_the_enclosure_is_kept(host: Host, workload: Workload, control: Workload) -> None:
    """Somebody brings the bridge up, takes it away, or takes an attached port out of it."""
    namespace, datapath = host.harness.host, host.harness.datapath
    datapath.attach(PortAttachment(PORT, workload.name))
    namespace.ip(f"link set {BRIDGE} up")
    await eventually(lambda: not host.link(BRIDGE).is_up)
    namespace.ip(f"link set {workload.name} nomaster")
    await eventually(lambda: host.is_enclosed(workload.name))
    namespace.ip(f"link delete {BRIDGE}")
    await eventually(
        lambda: (
            BRIDGE in {name for _, name in socket.if_nameindex()}
            and host.is_enclosed(workload.name)
        )
    )
    datapath.detach(PORT)
    await nothing_gets_in(workload, control)


async def test_a_taken_out_interface_is_the_hosts_again(host: Host, workload: Workload) -> None:
    datapath = host.harness.datapath
    datapath.attach(PortAttachment(PORT, workload.name))
    datapath.detach(PORT)
    host.harness.host.ip(f"link set {workload.name} nomaster")
    mark = workload.send_everything()
    await eventually(lambda: any(mark in each for each in host.heard()))


async def test_an_interface_with_another_master_is_refused(host: Host, workload: Workload) -> None:
    datapath = host.harness.datapath
    host.harness.host.ip("link add br-own type bridge", f"link set {workload.name} master br-own")
    with pytest.raises(DatapathError, match=f"{workload.name} is a slave of br-own") as caught:
        datapath.attach(PortAttachment(PORT, workload.name))
    assert caught.value.errno == errno.EBUSY
    assert datapath.enclose([workload.name])[workload.name].errno == errno.EBUSY
    assert PORT not in datapath.attached()
    host.harness.host.ip(f"link set {workload.name} nomaster")
    datapath.attach(PortAttachment(PORT, workload.name))


@pytest.mark.parametrize("name", ["br-own", "lo"])
async def test_what_cannot_be_enclosed_is_refused(host: Host, name: str) -> None:
    host.harness.host.ip("link add br-own type bridge")
    with pytest.raises(DatapathError, match=name):
        host.harness.datapath.attach(PortAttachment(PORT, name))
    assert host.harness.datapath.attached() == {}


async def test_an_underlay_interface_is_no_ports(host: Host) -> None:
    datapath = host.harness.datapath
    datapath.configure_overlay(OverlayConfig(interface_names=frozenset({"u0"})))
    with pytest.raises(DatapathError, match="leads to other hosts") as caught:
        datapath.attach(PortAttachment(PORT, "u0"))
    assert caught.value.errno == errno.EBUSY
    assert "u0" in datapath.enclose(["u0"])
    assert host.link("u0").master == 0


async def test_a_container_may_have_a_bridge_of_its_own(host: Host, stack: ExitStack) -> None:
    """Frames for machines behind a bridge in the container arrive, and theirs come out."""
    harness = host.harness
    harness.add_port(OTHER)
    workload = Workload(host, "veth", "work0", stack)
    harness.outside.ip(
        "link add br-in type bridge",
        "link set br-in up",
        f"link set far-{workload.name} master br-in",
        "link add nested0 type veth peer name nested1",
        "link set nested0 master br-in up",
        "link set nested1 up",
    )
    with entered(harness.outside):
        nested = Tap("nested1")
    stack.callback(nested.close)
    harness.datapath.attach(PortAttachment(PORT, workload.name))
    for number, (ingress, egress) in enumerate(((PORT, OTHER), (OTHER, PORT)), 1):
        program = FlowProgram(ingress, FlowKey(0, 0), EMPTY_MASK, (LocalOutput(egress),))
        harness.datapath.install([InstalledProgram(number, 1, EMPTY_MASK, FlowKey(0, 0), program)])
    out = bytes(Ether(src="02:00:00:00:00:51", dst="02:00:00:00:00:52", type=0x88B5) / Raw(b"out"))
    back = bytes(Ether(src="02:00:00:00:00:52", dst="02:00:00:00:00:51", type=0x88B5) / Raw(b"in"))

    def has_passed() -> bool:
        nested.send(out)
        harness.send(OTHER, back)
        return out in harness.delivered(OTHER) and back in nested.read()

    await eventually(has_passed)


async def test_the_next_process_closes_what_an_earlier_version_left_open(
    host: Host, stack: ExitStack
) -> None:
    datapath, workload = host.harness.datapath, Workload(host, "veth", "work0", stack)
    datapath.attach(PortAttachment(PORT, workload.name))
    await datapath.close()
    host.harness.host.ip(f"link delete {BRIDGE}")
    await datapath.open()
    assert host.is_enclosed(workload.name)
    assert not host.link(BRIDGE).is_up
