"""Connections with real traffic, over two and three hosts, through the kernel.

A security group as everybody has it: what a machine begins may be answered, and nothing else may
come in.
"""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec
import pytest

from midonet.demo.checks import ping
from midonet.demo.lab import VirtualMachine
from midonet.demo.namespaces import Namespace, wire
from midonet.demo.topology import Tenant
from midonet.model.hosts import TunnelKind
from midonet.model.schema_chains import ChainResource
from midonet.model.schema_devices import RouteResource, RouterResource
from midonet.model.schema_groups import PortGroupPortResource, PortGroupResource
from midonet.model.schema_hosts import BindingResource, HostResource
from midonet.model.schema_ports import PortResource
from midonet.model.schema_rules import PortRangeResource, RuleResource
from tests.netns.entering import entered, socket_inside
from tests.netns.labs import Network, agent_state, answers, drops, lab, require_pings, until
from tests.netns.streams import steady_stream

_Address = tuple[Any, ...]
_IP_PKTINFO = 8
"""include/uapi/linux/in.h; struct in_pktinfo is index, local address, destination address."""

pytestmark = pytest.mark.timeout(400)

VERSIONS = pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
FAMILIES = (socket.AF_INET, socket.AF_INET6)
DISCOVERY = PortRangeResource(start=133, end=137)
INSIDE, OUTSIDE = ("10.0.1.11", "fd00:0:1::11"), ("10.0.1.13", "fd00:0:1::13")


@dataclass(slots=True)
class Stateful:
    """vm (h1) behind a security group; other (h2) on the same bridge."""

    network: Network
    tenant: Tenant
    group_out: ChainResource
    group_in: ChainResource

    def vm(self, name: str) -> VirtualMachine:
        return self.network.lab.machines[name]

    def connections(self, host: int) -> int:
        return int(agent_state(self.network.lab.hosts[host])["counters"]["connections"])


@pytest.fixture(scope="module")
def stateful(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stateful]:
    with lab(f"{prefix}s", tmp_path_factory.mktemp("stateful"), hosts=3) as made:
        network = Network(made)
        network.use_zone(TunnelKind.VXLAN)
        tenant = network.make_tenant("red")
        first, second, _ = made.hosts
        network.plug("vm", first, tenant.segments[1], 11)
        network.plug("other", second, tenant.segments[1], 13)
        network.wait_active()
        answers(made.machines["other"], INSIDE[0])
        answers(made.machines["other"], INSIDE[1])
        api = network.api
        # To the machine only answers, and what finds it; from it everything.
        to_vm = api.create(ChainResource(name="to-vm", project_id="red"))
        from_vm = api.create(ChainResource(name="from-vm", project_id="red"))
        for rule in reversed(
            (
                RuleResource(kind="accept", match_return_flow=True),
                RuleResource(kind="accept", eth_type=0x0806),
                RuleResource(kind="accept", ip_proto=58, eth_type=0x86DD, l4_src=DISCOVERY),
                RuleResource(kind="drop"),
            )
        ):
            api.create(rule, parent=to_vm)
        api.create(RuleResource(kind="accept", match_forward_flow=True), parent=from_vm)
        port = api.get(PortResource, str(network.ports["vm"].id))
        api.update(
            msgspec.structs.replace(port, outbound_filter_id=to_vm.id, inbound_filter_id=from_vm.id)
        )
        built = Stateful(network, tenant, to_vm, from_vm)
        until(
            lambda: not ping(built.vm("other"), INSIDE[0], count=1, wait_s=1).received,
            "nothing may begin a conversation with vm",
        )
        try:
            yield built
        finally:
            network.close()


@contextmanager
def _echo_server(namespace: Namespace, version: int, port: int) -> Iterator[set[str]]:
    """Send each datagram back to where it came from; yield the interfaces by which they came."""
    server = socket_inside(namespace, FAMILIES[version], socket.SOCK_DGRAM)
    if version:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    else:
        server.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    server.bind(("::" if version else "0.0.0.0", port))
    server.settimeout(0.2)
    with entered(namespace):
        names = dict(socket.if_nameindex())
    is_over = threading.Event()
    interfaces: set[str] = set()

    def serve() -> None:
        while not is_over.is_set():
            try:
                data, ancillary, _, source = server.recvmsg(65535, 256)
            except TimeoutError:
                continue
            ((_, _, info),) = ancillary
            index = info[16:20] if version else info[:4]
            interfaces.add(names[int.from_bytes(index, sys.byteorder)])
            # From the address that was asked, or a client with its own in mind refuses it.
            answer = info[:16] + bytes(4) if version else bytes(4) + info[8:12] + bytes(4)
            server.sendmsg([data], [(ancillary[0][0], ancillary[0][1], answer)], 0, source)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield interfaces
    finally:
        is_over.set()
        thread.join()
        server.close()


def _asks(client: socket.socket, target: tuple[str, int], wait_s: float = 1.0) -> bool:
    """Send one datagram; tell whether it comes back."""
    client.settimeout(wait_s)
    client.sendto(b"question", target)
    try:
        return client.recv(100) == b"question"
    except TimeoutError:
        return False


@VERSIONS
def test_what_a_machine_begins_is_answered(stateful: Stateful, version: int) -> None:
    require_pings(stateful.vm("vm"), OUTSIDE[version])
    assert ping(stateful.vm("other"), INSIDE[version], count=2, wait_s=1).received == 0


@VERSIONS
def test_the_first_answer_to_each_datagram_comes(stateful: Stateful, version: int) -> None:
    """Each question is a connection of its own, and none of the answers is asked for again."""
    with _echo_server(stateful.vm("other").namespace, version, 7100):
        for _ in range(20):
            with socket_inside(
                stateful.vm("vm").namespace, FAMILIES[version], socket.SOCK_DGRAM
            ) as client:
                assert _asks(client, (OUTSIDE[version], 7100), wait_s=30)


@VERSIONS
def test_tcp_streams_one_way_only(stateful: Stateful, version: int) -> None:
    vm, other = stateful.vm("vm"), stateful.vm("other")
    with steady_stream(vm, other, OUTSIDE[version], 7200 + version) as stream:
        until(lambda: stream.received > 500_000 or stream.error, "half a megabyte")
    assert stream.error is None
    assert stream.is_intact

    with socket_inside(vm.namespace, FAMILIES[version]) as server:
        server.bind((INSIDE[version], 7300))
        server.listen()
        with socket_inside(other.namespace, FAMILIES[version]) as client:
            client.settimeout(2)
            with pytest.raises(TimeoutError):
                client.connect((INSIDE[version], 7300))


def test_a_running_connection_takes_no_decisions(stateful: Stateful) -> None:
    """Data of a connection is forwarded by programs: the agents see it begin and end."""
    vm, other = stateful.vm("vm"), stateful.vm("other")
    hosts = stateful.network.lab.hosts[:2]
    with steady_stream(vm, other, OUTSIDE[0], 7400) as stream:
        until(lambda: stream.received > 200_000 or stream.error, "the stream runs")
        before = [agent_state(host)["counters"]["slow_path"] for host in hosts]
        sent = stream.sent
        until(lambda: stream.received > sent + 800_000 or stream.error, "a hundred blocks more")
        after = [agent_state(host)["counters"]["slow_path"] for host in hosts]
    assert stream.error is None
    # Each of the hundred blocks is several packets, with acknowledgements the other way.
    assert sum(after) - sum(before) < 20


@VERSIONS
def test_a_rule_removed_cuts_a_running_stream_both_ways(stateful: Stateful, version: int) -> None:
    api = stateful.network.api
    vm, other = stateful.vm("vm"), stateful.vm("other")
    server = socket_inside(other.namespace, FAMILIES[version], socket.SOCK_DGRAM)
    server.bind((OUTSIDE[version], 7500))
    with server, socket_inside(vm.namespace, FAMILIES[version], socket.SOCK_DGRAM) as client:
        target = OUTSIDE[version], 7500
        source = _begin(client, server, target)
        deny = api.create(RuleResource(kind="drop", position=1), parent=stateful.group_in)
        try:
            # Only the server sends: the cut must not need a packet of the way that is forbidden.
            until(lambda: not _pushes(server, client, source), "the way back is cut")
            assert not _pushes(server, client, source)
        finally:
            api.delete(deny)
        assert _begin(client, server, target) == source


def _begin(client: socket.socket, server: socket.socket, target: tuple[str, int]) -> _Address:
    """Have the client begin a conversation, once rules that were changed are obeyed; return where
    the server sees it."""
    server.settimeout(0.5)
    seen: list[_Address] = []

    def is_running() -> bool:
        client.sendto(b"hello", target)
        try:
            seen.append(server.recvfrom(100)[1])
        except TimeoutError:
            return False
        return _pushes(server, client, seen[-1])

    until(is_running, "the server's datagrams arrive")
    return seen[-1]


def _pushes(server: socket.socket, client: socket.socket, to: _Address) -> bool:
    """Send one datagram that nobody asked for; tell whether it arrives."""
    client.settimeout(0.5)
    server.sendto(b"pushed", to)
    try:
        return bool(client.recv(100))
    except TimeoutError:
        return False


@VERSIONS
def test_a_new_owner_of_an_address_gets_nothing_of_the_old(
    stateful: Stateful, version: int
) -> None:
    """The machine goes, another gets its address: a stream to the old one does not reach it."""
    network, tenant = stateful.network, stateful.tenant
    first, second, _ = network.lab.hosts
    number = 21 + version
    name = f"old{version}"
    address = (f"10.0.1.{number}", f"fd00:0:1::{number}")[version]
    machine = network.plug(name, first, tenant.segments[1], number)
    network.wait_active(name)
    answers(stateful.vm("other"), address)
    port = network.api.get(PortResource, str(network.ports[name].id))
    network.api.update(
        msgspec.structs.replace(
            port,
            outbound_filter_id=stateful.group_out.id,
            inbound_filter_id=stateful.group_in.id,
        )
    )
    server = socket_inside(stateful.vm("other").namespace, FAMILIES[version], socket.SOCK_DGRAM)
    server.bind((OUTSIDE[version], 7600))
    with server:
        with socket_inside(machine.namespace, FAMILIES[version], socket.SOCK_DGRAM) as client:
            client.bind((address, 7601))
            source = _begin(client, server, (OUTSIDE[version], 7600))
        network.lab.unplug(name)
        network.api.delete(network.ports.pop(name))

        new = network.plug(f"new{version}", second, tenant.segments[1], number)
        network.wait_active(f"new{version}")
        port = network.api.get(PortResource, str(network.ports[f"new{version}"].id))
        network.api.update(msgspec.structs.replace(port, outbound_filter_id=stateful.group_out.id))
        until(
            lambda: not ping(stateful.vm("other"), address, count=1, wait_s=1).received,
            "the new machine is behind the group",
        )
        before = drops(second, "FILTERED")
        with socket_inside(new.namespace, FAMILIES[version], socket.SOCK_DGRAM) as client:
            client.bind((address, 7601))
            until(
                lambda: _pushes(server, client, source) or drops(second, "FILTERED") > before,
                "the old stream meets the new machine",
            )
            assert not _pushes(server, client, source)


@VERSIONS
def test_an_answer_by_another_uplink_is_known(stateful: Stateful, version: int) -> None:
    """A router with uplinks at two hosts: what leaves by one is answered by way of the other."""
    network, tenant = stateful.network, stateful.tenant
    with _uplinks(network, tenant) as outside:
        router = network.api.get(PortResource, str(tenant.segments[1].router_port.id))
        network.api.update(
            msgspec.structs.replace(
                router,
                outbound_filter_id=stateful.group_out.id,
                inbound_filter_id=stateful.group_in.id,
            )
        )
        try:
            target = ("198.51.100.1", "2001:db8:f::1")[version]
            vm = stateful.vm("vm")
            with _echo_server(outside, version, 7700) as interfaces:
                with socket_inside(vm.namespace, FAMILIES[version], socket.SOCK_DGRAM) as client:
                    until(lambda: _asks(client, (target, 7700)), "the first answer")
                for _ in range(10):
                    with socket_inside(
                        vm.namespace, FAMILIES[version], socket.SOCK_DGRAM
                    ) as client:
                        assert _asks(client, (target, 7700), wait_s=30)
            # The answers go back by the second one, as the routes of the outside machine say.
            assert interfaces == {"up1"}
        finally:
            network.api.update(
                msgspec.structs.replace(
                    network.api.get(PortResource, str(router.id)),
                    outbound_filter_id=None,
                    inbound_filter_id=None,
                )
            )


@contextmanager
def _uplinks(network: Network, tenant: Tenant) -> Iterator[Namespace]:
    """Make two uplinks of the tenant's router, at the second and third host, to one machine that
    sends everything back by the second of them."""
    api, made = network.api, network.lab
    outside = Namespace(f"{made.options.prefix}-outside")
    outside.create()
    group = api.create(PortGroupResource(name="uplinks", stateful=True))
    ports: list[PortResource] = []
    try:
        for number, host in ((1, made.hosts[1]), (2, made.hosts[2])):
            wire(outside, f"up{number}", host.namespace, f"uplink{number}")
            outside.ip(
                f"address add 192.0.2.{number * 16 + 2}/28 dev up{number}",
                f"address add 2001:db8:{number}::2/64 dev up{number} nodad",
            )
            outside.sysctl(f"net.ipv4.conf.up{number}.rp_filter", 0)
            ports.append(_uplink(network, tenant, host.host_id, number))
            api.create(PortGroupPortResource(port_id=ports[-1].id), parent=group)
        outside.sysctl("net.ipv4.conf.all.rp_filter", 0)
        # A router answers no question from outside the port's network.
        outside.sysctl("net.ipv4.conf.all.arp_announce", 2)
        outside.ip(
            "address add 198.51.100.1/32 dev lo",
            "address add 2001:db8:f::1/128 dev lo nodad",
            "route add 10.0.0.0/16 via 192.0.2.33",
            "route add fd00::/32 via 2001:db8:2::1",
        )
        yield outside
    finally:
        for port in ports:
            api.delete(port)
        api.delete(group)
        outside.delete()


def _uplink(network: Network, tenant: Tenant, host_id: str, number: int) -> PortResource:
    """Make and bind an uplink of the router. The first one leads to the outside machine."""
    api = network.api
    addresses = (f"192.0.2.{number * 16 + 1}/28", f"2001:db8:{number}::1/64")
    router = api.get(RouterResource, str(tenant.router.id))
    port = api.create(PortResource(kind="Router", addresses=addresses), parent=router)
    networks: list[tuple[str, int, str | None]] = [
        (f"192.0.2.{number * 16}", 28, None),
        (f"2001:db8:{number}::", 64, None),
    ]
    if number == 1:
        networks += [("198.51.100.1", 32, "192.0.2.18"), ("2001:db8:f::1", 128, "2001:db8:1::2")]
    for network_address, length, gateway in networks:
        any_source = "::" if ":" in network_address else "0.0.0.0"
        route = RouteResource(
            kind="Normal",
            source_address=any_source,
            destination_address=network_address,
            destination_length=length,
            next_hop_port_id=port.id,
            gateway=gateway,
            weight=100,
        )
        api.create(route, parent=router)
    api.create(
        BindingResource(port_id=UUID(str(port.id)), interface_name=f"uplink{number}"),
        parent=api.get(HostResource, host_id),
    )
    until(lambda: api.get(PortResource, str(port.id)).active, f"uplink {number} active")
    return port
