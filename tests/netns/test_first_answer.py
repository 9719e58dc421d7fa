"""The first broadcast that asks for a port just bound: none may be lost.

A machine whose port is bound sends to one of another host. That one never heard of it, and asks
for its link-layer address: a broadcast, repeated only after a second. Here it is repeated after
half a minute, so that a second one tells that the first was lost, however slow the machine.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest

from midonet.demo.lab import VirtualMachine
from midonet.demo.topology import Segment
from midonet.model.hosts import TunnelKind
from midonet.packets.addresses import parse_ip
from tests.netns.entering import packet_socket, socket_inside
from tests.netns.labs import DEADLINE_S, Network, lab, own_mac

pytestmark = pytest.mark.timeout(300)

_FAR, _PORT = "10.0.1.13", 7
_REPEAT_MS = 30_000
_ROUNDS = 6


@dataclass(slots=True)
class Ends:
    """h1: machines to be bound. h2: `far`, which answers what is sent to its port 7."""

    network: Network
    segment: Segment
    far: VirtualMachine

    def new_machine(self, number: int) -> VirtualMachine:
        """Make a machine on h1 that knows the MAC of `far`; its interface is not bound."""
        machine = self.network.lab.plug(
            f"n{number}",
            self.network.lab.hosts[0],
            mac=f"02:00:00:00:01:{number:02x}",
            addresses=[f"10.0.1.{number}/24"],
            gateways=[],
        )
        machine.namespace.ip(
            f"neighbour replace {_FAR} lladdr {own_mac(self.far)} dev eth0 nud permanent"
        )
        return machine

    def requests_until_answer(self, number: int) -> int:
        """Bind a new machine; return how often `far` asked for it until it had its answer."""
        machine = self.new_machine(number)
        with (
            packet_socket(self.far.namespace, "eth0") as seen,
            socket_inside(machine.namespace, socket.AF_INET, socket.SOCK_DGRAM) as asking,
        ):
            seen.setblocking(False)
            asking.settimeout(0.002)
            self.network.bind(self.network.lab.hosts[0], self.segment, machine.tap)
            deadline = time.monotonic() + DEADLINE_S
            asked = 0
            while time.monotonic() < deadline:
                asking.sendto(b"x", (_FAR, _PORT))
                try:
                    asking.recv(64)
                except TimeoutError:
                    asked += _requests(seen, number)
                    continue
                return asked + _requests(seen, number)
        pytest.fail(f"no answer to {machine.name}; it was asked for {asked} times")


def _requests(seen: socket.socket, number: int) -> int:
    """Count what asks for an address among the frames that wait, and take them away."""
    wanted = parse_ip(f"10.0.1.{number}").value.to_bytes(4, "big")
    count = 0
    while True:
        try:
            frame = seen.recv(2048)
        except BlockingIOError:
            return count
        count += frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1" and frame[38:42] == wanted


@contextmanager
def _echo(machine: VirtualMachine) -> Iterator[None]:
    is_over = threading.Event()
    with socket_inside(machine.namespace, socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", _PORT))
        server.settimeout(0.1)

        def answer() -> None:
            while not is_over.is_set():
                try:
                    data, peer = server.recvfrom(64)
                except TimeoutError:
                    continue
                with suppress(OSError):  # what waits for an address fills the buffer
                    server.sendto(data, peer)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()


@pytest.fixture(scope="module")
def ends(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ends]:
    with lab(f"{prefix}fa", tmp_path_factory.mktemp("first"), is_wired=True) as made:
        network = Network(made)
        network.use_zone(TunnelKind.VXLAN)
        segment = network.make_tenant("red").segments[1]
        far = network.plug("far", made.hosts[1], segment, 13)
        far.namespace.sysctl("net.ipv4.neigh.eth0.retrans_time_ms", _REPEAT_MS)
        network.wait_active()
        with _echo(far):
            yield Ends(network, segment, far)
        network.close()


def test_first_broadcast_for_a_bound_port_arrives(ends: Ends) -> None:
    """The first machine of the bridge on its host, and those that follow."""
    asked = [ends.requests_until_answer(100 + number) for number in range(_ROUNDS)]
    assert asked == [1] * _ROUNDS
