"""What a tenant's router and bridges do for it, with real stacks and tools across two hosts."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest

from midonet.demo.checks import check_stream, check_traceroute
from midonet.demo.lab import VirtualMachine
from midonet.demo.leases import has_client, obtain_lease
from midonet.demo.namespaces import CommandError
from midonet.demo.services import (
    BEGINS,
    OUTSIDE,
    OUTSIDE6,
    REPLIES_ONLY,
    SNAT,
    SNAT6,
    Outside,
    Services,
    vlan_interfaces,
)
from midonet.demo.topology import Tenant
from midonet.model.hosts import TunnelKind
from midonet.model.schema_ports import PortResource
from midonet.model.schema_rules import RuleResource
from tests.netns.entering import packet_socket, socket_inside
from tests.netns.labs import Network, answers, lab, own_mac, require_pings, silent, until
from tests.netns.traffic_lab import ONE, SIX_ONE, SIX_TWO, TWO

pytestmark = pytest.mark.timeout(400)

FLOATING = {
    f"{ONE}12": "198.51.100.12",
    f"{ONE}13": "198.51.100.13",
    f"{SIX_ONE}12": "2001:db8:0:a::12",
    f"{SIX_ONE}13": "2001:db8:0:a::13",
}
VERSIONS = pytest.mark.parametrize("version", [0, 1], ids=["ipv4", "ipv6"])
OUTSIDES, SHARED = (OUTSIDE, OUTSIDE6), (SNAT, SNAT6)
FAMILIES = (socket.AF_INET, socket.AF_INET6)
ANY = ("0.0.0.0", "::")


@dataclass(slots=True)
class Served:
    """h1: red1, red2 (floating), guest (trunk).  h2: red3 (floating), red4 (bridge two), outside.

    red1 and red4 go out by the shared address.
    """

    network: Network
    red: Tenant
    services: Services
    outside: Outside

    def vm(self, name: str) -> VirtualMachine:
        """Return a machine by name."""
        return self.network.lab.machines[name]

    def port(self, name: str) -> PortResource:
        """Return the port of a machine."""
        return self.network.ports[name]


@pytest.fixture(scope="module")
def served(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with lab(f"{prefix}sv", tmp_path_factory.mktemp("services")) as made:
        network = Network(made)
        network.use_zone(TunnelKind.VXLAN)
        red = network.make_tenant("red")
        one, two = red.segments[1], red.segments[2]
        first, second = made.hosts
        for name, host, segment, number in (
            ("red1", first, one, 11),
            ("red2", first, one, 12),
            ("red3", second, one, 13),
            ("red4", second, two, 14),
        ):
            network.plug(name, host, segment, number)
        services = Services(made, network, red)
        outside = services.plug_outside("outside", second, "02:00:00:00:09:09")
        services.translate(outside, FLOATING)
        guest = made.plug("guest", first, mac="02:00:00:00:08:08", addresses=[], gateways=[])
        services.trunk(first, guest.tap)
        until(lambda: network.active_ports() >= 6, "all ports active")
        with vlan_interfaces(guest, (one, two), 50):
            yield Served(network, red, services, outside)
        network.close()


@contextmanager
def connected(
    client: VirtualMachine, server: VirtualMachine, target: str, port: int
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Connect by TCP; yield the client's and the server's end."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    with socket_inside(server.namespace, family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((ANY[family == socket.AF_INET6], port))
        listening.listen()
        with socket_inside(client.namespace, family) as asking:
            asking.connect((target, port))
            accepted, _ = listening.accept()
            with accepted:
                accepted.settimeout(30)
                yield asking, accepted


def exchange(one: socket.socket, other: socket.socket) -> None:
    """Require that both directions work."""
    for sender, receiver, text in ((one, other, b"there"), (other, one, b"back")):
        sender.sendall(text)
        assert receiver.recv(64) == text


@VERSIONS
def test_tenant_goes_out_by_the_shared_address(served: Served, version: int) -> None:
    """Two machines on two hosts, from the same port to the same port."""
    target, outside = OUTSIDES[version], served.outside.machine
    with (
        connected(served.vm("red1"), outside, target, 7001) as (one, one_out),
        connected(served.vm("red4"), outside, target, 7002) as (two, two_out),
    ):
        exchange(one, one_out)
        exchange(two, two_out)
        exchange(one, one_out)
        peers = [one_out.getpeername(), two_out.getpeername()]
    assert [peer[0] for peer in peers] == [SHARED[version]] * 2
    assert all(1024 <= peer[1] <= 65535 for peer in peers)
    for name in ("red1", "red4"):
        require_pings(served.vm(name), target)


@VERSIONS
def test_datagrams_of_one_port_keep_apart(served: Served, version: int) -> None:
    """Both machines use the same source port, and each hears its own answers only."""
    family, outside = FAMILIES[version], served.outside.machine
    with (
        socket_inside(outside.namespace, family, socket.SOCK_DGRAM) as server,
        socket_inside(served.vm("red1").namespace, family, socket.SOCK_DGRAM) as one,
        socket_inside(served.vm("red4").namespace, family, socket.SOCK_DGRAM) as two,
    ):
        server.bind((ANY[version], 7003))
        peers = set()
        for number, end in enumerate((one, two, one, two)):
            if number < 2:
                end.bind((ANY[version], 5000))
                end.connect((OUTSIDES[version], 7003))
            end.send(b"%d" % number)
            data, peer = server.recvfrom(64)
            assert data == b"%d" % number
            peers.add(peer)
            server.sendto(b"to %d" % number, peer)
            assert end.recv(64) == b"to %d" % number
    assert len(peers) == 2
    assert {peer[0] for peer in peers} == {SHARED[version]}


def test_traceroute_passes_the_translation(served: Served) -> None:
    for target, gateway in ((OUTSIDE, f"{ONE}1"), (OUTSIDE6, f"{SIX_ONE}1")):
        found = check_traceroute("way", served.vm("red1"), target, (gateway, target))
        assert found.ok, found.detail


@VERSIONS
def test_path_mtu_is_discovered_through_the_translation(served: Served, version: int) -> None:
    """Both ends believe in 1500 bytes, which the overlay does not carry."""
    red1, outside, target = served.vm("red1"), served.outside.machine, OUTSIDES[version]
    for machine in (red1, outside):
        machine.namespace.ip("link set eth0 mtu 1500")
    try:
        until(lambda: _path_mtu(red1, target, version), "the path's MTU")
        assert 1280 <= (_path_mtu(red1, target, version) or 0) < 1500
        there = check_stream("there", red1, outside, target, 3)
        assert there.ok, there.detail
        # The outside host learns it from an error about a packet that was translated.
        with connected(red1, outside, target, 7004) as (near, far):
            sent = bytes(range(256)) * 400
            far.sendall(sent)
            far.shutdown(socket.SHUT_WR)
            assert b"".join(iter(lambda: near.recv(1 << 16), b"")) == sent
    finally:
        for machine in (red1, outside):
            machine.namespace.ip("link set eth0 mtu 1430")


def _path_mtu(machine: VirtualMachine, target: str, version: int) -> int | None:
    size = 1500 - (48 if version else 28)
    with suppress(CommandError):
        machine.namespace.run(
            "ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", str(size), target
        )
    shown = machine.namespace.run("ip", "route", "get", target)
    found = re.search(r"mtu (\d+)", shown)
    return int(found[1]) if found else None


@VERSIONS
def test_floating_addresses_work_both_ways(served: Served, version: int) -> None:
    outside = served.outside.machine
    for name, own in (("red2", 12), ("red3", 13)):
        address = f"{(ONE, SIX_ONE)[version]}{own}"
        public = FLOATING[address]
        answers(outside, public)
        with connected(outside, served.vm(name), public, 7005) as (far, near):
            exchange(far, near)
            assert near.getpeername()[0] == OUTSIDES[version]
        with connected(served.vm(name), outside, OUTSIDES[version], 7006) as (near, far):
            exchange(near, far)
            assert far.getpeername()[0] == public


@VERSIONS
def test_floating_addresses_reach_each_other(served: Served, version: int) -> None:
    """Hairpin: each sees the other's outside address, across hosts and back."""
    prefix = (ONE, SIX_ONE)[version]
    for client, server, own, other in (("red2", "red3", 12, 13), ("red3", "red2", 13, 12)):
        target = FLOATING[f"{prefix}{other}"]
        with connected(served.vm(client), served.vm(server), target, 7007) as (near, far):
            exchange(near, far)
            assert far.getpeername()[0] == FLOATING[f"{prefix}{own}"]
        require_pings(served.vm(client), target)


@VERSIONS
def test_fragments_pass_the_translation(served: Served, version: int) -> None:
    family = FAMILIES[version]
    sent = bytes(range(256)) * 20
    with (
        socket_inside(served.outside.machine.namespace, family, socket.SOCK_DGRAM) as server,
        socket_inside(served.vm("red1").namespace, family, socket.SOCK_DGRAM) as client,
    ):
        server.bind((ANY[version], 7008))
        client.connect((OUTSIDES[version], 7008))
        for _ in range(3):
            client.send(sent)
            data, peer = server.recvfrom(1 << 16)
            assert data == sent
            assert peer[0] == SHARED[version]
            server.sendto(sent, peer)
            assert client.recv(1 << 16) == sent


@VERSIONS
def test_fragments_do_not_pass_a_policy_against_them(served: Served, version: int) -> None:
    """The first fragment names the port, the others do not; none of a refused datagram arrives."""
    family = FAMILIES[version]
    sent = bytes(range(256)) * 20
    target = f"{(ONE, SIX_ONE)[version]}13"
    refused = {
        "type": "drop",
        "dlType": (0x0800, 0x86DD)[version],
        "nwProto": 17,
        "tpDst": {"start": 7009, "end": 7009},
    }
    with (
        served.services.filters(served.port("red1"), sent=(refused, {"type": "accept"})),
        socket_inside(served.vm("red3").namespace, family, socket.SOCK_DGRAM) as denied,
        socket_inside(served.vm("red3").namespace, family, socket.SOCK_DGRAM) as allowed,
        socket_inside(served.vm("red1").namespace, family, socket.SOCK_DGRAM) as client,
    ):
        denied.bind((ANY[version], 7009))
        allowed.bind((ANY[version], 7010))

        def passes(port: int, end: socket.socket) -> bool:
            client.sendto(sent, (target, port))
            end.settimeout(0.5)
            with suppress(TimeoutError):
                return end.recv(1 << 16) == sent
            return False

        until(lambda: not passes(7009, denied), "the policy in force")
        for _ in range(3):
            assert passes(7010, allowed) or passes(7010, allowed)
            assert not passes(7009, denied)


@VERSIONS
def test_replies_pass_what_lets_nothing_else_in(served: Served, version: int) -> None:
    """red3 opens connections to others on its host and the other one; nobody opens one to it."""
    prefix = (ONE, SIX_ONE)[version]
    red3 = served.vm("red3")
    both = {"sent": (BEGINS, {"type": "accept"}), "received": REPLIES_ONLY}
    with served.services.filters(served.port("red3"), **both):
        silent(served.vm("red1"), f"{prefix}13")
        for other, target in (
            (served.vm("red1"), f"{prefix}11"),
            (served.vm("red4"), f"{(TWO, SIX_TWO)[version]}14"),
            (served.outside.machine, OUTSIDES[version]),
        ):
            with connected(red3, other, target, 7012) as (near, far):
                exchange(near, far)
                exchange(far, near)
            require_pings(red3, target)
        for other, target in (
            (served.vm("red1"), f"{prefix}13"),
            (served.vm("red4"), f"{prefix}13"),
            (served.outside.machine, FLOATING[f"{prefix}13"]),
        ):
            with (
                socket_inside(red3.namespace, FAMILIES[version]) as listening,
                socket_inside(other.namespace, FAMILIES[version]) as asking,
            ):
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listening.bind((ANY[version], 7013))
                listening.listen()
                asking.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    asking.connect((target, 7013))
    answers(served.vm("red1"), f"{prefix}13")


@VERSIONS
def test_rule_that_goes_ends_a_stream_in_both_directions(served: Served, version: int) -> None:
    prefix, family = (ONE, SIX_ONE)[version], FAMILIES[version]
    permitted = {
        **BEGINS,
        "dlType": (0x0800, 0x86DD)[version],
        "nwProto": 17,
        "tpDst": {"start": 7014, "end": 7014},
    }
    refused = {"type": "drop", "dlType": (0x0800, 0x86DD)[version], "nwProto": 17}
    with (
        served.services.filters(
            served.port("red3"),
            sent=(permitted, refused, {"type": "accept"}),
            received=REPLIES_ONLY,
        ) as (sent, _),
        socket_inside(served.vm("red1").namespace, family, socket.SOCK_DGRAM) as server,
        socket_inside(served.vm("red3").namespace, family, socket.SOCK_DGRAM) as client,
    ):
        server.bind((ANY[version], 7014))
        client.connect((f"{prefix}11", 7014))
        client.settimeout(0.2)
        server.settimeout(0.2)
        peer = client.getsockname()

        def passed() -> tuple[bool, bool]:
            """Tell whether a datagram gets there, and one gets back."""
            client.send(b"there")
            server.sendto(b"back", peer)
            return _arrives(server), _arrives(client)

        until(lambda: passed() == (True, True), "a stream in both directions")
        assert [passed() for _ in range(5)] == [(True, True)] * 5
        api = served.network.api
        rules = api.list_all(RuleResource, parent=sent)
        api.delete(next(rule for rule in rules if rule.position == 1))
        until(lambda: passed() == (False, False), "the end of the stream")
        assert [passed() for _ in range(5)] == [(False, False)] * 5


def _arrives(end: socket.socket) -> bool:
    with suppress(TimeoutError):
        return bool(end.recv(64))
    return False


@pytest.mark.parametrize("tenant", ["same", "other"])
def test_new_owner_of_an_address_gets_nothing_of_an_old_stream(served: Served, tenant: str) -> None:
    """The outside goes on sending to a machine that is gone; its address is another's by now."""
    network, first = served.network, served.network.lab.hosts[0]
    one = served.red.segments[1]
    network.plug("old", first, one, 60)
    network.wait_active("old")
    with socket_inside(served.outside.machine.namespace, FAMILIES[0], socket.SOCK_DGRAM) as stream:
        stream.bind((ANY[0], 7015))
        with socket_inside(served.vm("old").namespace, FAMILIES[0], socket.SOCK_DGRAM) as asking:
            asking.bind((ANY[0], 5555))
            asking.settimeout(0.5)
            asking.sendto(b"begin", (OUTSIDE, 7015))
            _, peer = stream.recvfrom(64)

            def is_answered() -> bool:
                # The other host may have yet to hear that the address has another MAC by now.
                asking.sendto(b"again", (OUTSIDE, 7015))
                stream.sendto(b"old stream", peer)
                return _arrives(asking)

            until(is_answered, "an answer from outside")
        network.api.delete(network.ports.pop("old"))
        network.lab.unplug("old")
        segment = one if tenant == "same" else network.make_tenant("blue").segments[1]
        network.plug("new", first, segment, 60)
        network.wait_active("new")
        new = served.vm("new")
        with packet_socket(new.namespace, "eth0") as seen:
            answers(new, f"{ONE}1")
            for _ in range(20):
                stream.sendto(b"old stream", peer)
                require_pings(new, f"{ONE}1", 1)
            seen.settimeout(0.2)
            heard = b"".join(iter(lambda: _frame(seen), b""))
        assert b"old stream" not in heard
        assert heard, "its own pings"
    network.api.delete(network.ports.pop("new"))
    network.lab.unplug("new")


def _frame(seen: socket.socket) -> bytes:
    with suppress(TimeoutError):
        return seen.recv(2048)
    return b""


def test_trunk_reaches_each_segment_in_its_vlan(served: Served) -> None:
    guest = served.vm("guest")
    for target in (f"{ONE}13", f"{TWO}14", f"{SIX_ONE}13"):
        answers(guest, target)
        require_pings(guest, target)


def test_vlans_of_a_trunk_do_not_meet(served: Served) -> None:
    """Broadcasts of one VLAN are heard in its segment and in no other; without a tag, nowhere."""
    guest = served.vm("guest")
    marker = 0x88B5  # IEEE 802: for local experiments
    ends = {"red1": "", "red3": "", "red4": ""}
    sockets = {
        name: packet_socket(served.vm(name).namespace, "eth0", eth_type=marker) for name in ends
    }
    try:
        heard: dict[str, set[bytes]] = {name: set() for name in ends}
        for interface, text in (("eth0", b"none"), ("vlan10", b"one "), ("vlan20", b"two ")):
            with packet_socket(guest.namespace, interface, eth_type=0) as sender:
                source = bytes.fromhex(own_mac(guest).replace(":", ""))
                frame = b"\xff" * 6 + source + marker.to_bytes(2, "big") + text * 12
                for _ in range(3):
                    sender.send(frame)
        for name, wanted in (("red1", b"one "), ("red3", b"one "), ("red4", b"two ")):
            _hear_until(sockets[name], wanted, heard[name])
        assert heard == {"red1": {b"one "}, "red3": {b"one "}, "red4": {b"two "}}
    finally:
        for each in sockets.values():
            each.close()


def _hear_until(end: socket.socket, wanted: bytes, heard: set[bytes]) -> None:
    """Take in what comes until all three of `wanted` have; they were sent last to this end or
    after everything else that could have come here."""
    count = 0
    while count < 3:
        text = end.recv(2048)[14:18]
        heard.add(text)
        count += text == wanted


@pytest.mark.skipif(not has_client(), reason="needs busybox for udhcpc")
def test_machine_gets_its_address_by_dhcp(served: Served) -> None:
    host = served.network.lab.hosts[1]
    mac = "02:00:00:00:07:07"
    machine = served.network.lab.plug("leased", host, mac=mac, addresses=[], gateways=[])
    served.services.lease(served.red.segments[1], mac, f"{ONE}77")
    served.network.bind(host, served.red.segments[1], machine.tap)
    obtain_lease(machine, served.network.lab.options.directory)
    assert f"{ONE}77" in machine.namespace.addresses("eth0")
    require_pings(machine, f"{ONE}11")
    require_pings(machine, OUTSIDE)
