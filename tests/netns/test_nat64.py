"""NAT64 with real stacks: a machine asks by IPv6, one at another host answers by IPv4."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import pytest

from midonet.demo.lab import VirtualMachine
from midonet.model.hosts import TunnelKind
from midonet.model.schema_devices import RouterResource
from tests.netns.entering import socket_inside
from tests.netns.labs import Network, answers, lab

pytestmark = pytest.mark.timeout(300)

SHOWN = "2001:db8:64::a00:20e"
"""10.0.2.14, as the router shows it."""


@pytest.fixture(scope="module")
def machines(
    prefix: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[VirtualMachine, VirtualMachine]]:
    with lab(f"{prefix}n", tmp_path_factory.mktemp("nat64"), hosts=2) as made:
        network = Network(made)
        network.use_zone(TunnelKind.VXLAN)
        tenant = network.make_tenant("red")
        client = network.plug("six", made.hosts[0], tenant.segments[1], 11)
        server = network.plug("four", made.hosts[1], tenant.segments[2], 14)
        network.wait_active()
        router = network.api.get(RouterResource, str(tenant.router.id))
        network.api.update(
            msgspec.structs.replace(
                router, nat64_prefix="2001:db8:64::/96", nat64_address_from="10.0.2.1"
            )
        )
        answers(client, SHOWN)
        try:
            yield client, server
        finally:
            network.close()


@contextmanager
def _serving(server: VirtualMachine, kind: socket.SocketKind) -> Iterator[list[str]]:
    """Answer one question with itself; yield who asked."""
    askers: list[str] = []
    listener = socket_inside(server.namespace, socket.AF_INET, kind)
    listener.settimeout(60)
    listener.bind(("10.0.2.14", 8064))

    def serve() -> None:
        if kind is socket.SOCK_DGRAM:
            data, who = listener.recvfrom(65535)
            listener.sendto(data, who)
        else:
            connection, who = listener.accept()
            with connection:
                while data := connection.recv(65535):
                    connection.sendall(data)
        askers.append(who[0])

    if kind is socket.SOCK_STREAM:
        listener.listen()
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield askers
    finally:
        thread.join()
        listener.close()


def test_ipv6_machine_exchanges_datagrams_with_an_ipv4_machine(
    machines: tuple[VirtualMachine, VirtualMachine],
) -> None:
    client, server = machines
    with (
        _serving(server, socket.SOCK_DGRAM) as askers,
        socket_inside(client.namespace, socket.AF_INET6, socket.SOCK_DGRAM) as asking,
    ):
        asking.settimeout(60)
        asking.sendto(b"question", (SHOWN, 8064))
        assert asking.recv(100) == b"question"
    assert askers == ["10.0.2.1"]


def test_ipv6_machine_streams_to_an_ipv4_machine_and_back(
    machines: tuple[VirtualMachine, VirtualMachine],
) -> None:
    client, server = machines
    sent = bytes(range(256)) * 200
    received = b""
    with (
        _serving(server, socket.SOCK_STREAM) as askers,
        socket_inside(client.namespace, socket.AF_INET6, socket.SOCK_STREAM) as asking,
    ):
        asking.settimeout(60)
        asking.connect((SHOWN, 8064))
        asking.sendall(sent)
        asking.shutdown(socket.SHUT_WR)
        while data := asking.recv(65535):
            received += data
    assert received == sent
    assert askers == ["10.0.2.1"]


def test_closed_port_of_an_ipv4_machine_is_reported(
    machines: tuple[VirtualMachine, VirtualMachine],
) -> None:
    client, _ = machines
    with socket_inside(client.namespace, socket.AF_INET6, socket.SOCK_DGRAM) as asking:
        asking.settimeout(60)
        asking.connect((SHOWN, 9))
        asking.send(b"question")
        with pytest.raises(ConnectionRefusedError):
            asking.recv(100)
