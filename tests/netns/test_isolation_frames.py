"""Frames that say one thing to a filter and another to their receiver, or that are not for the one
who gets them: between machines of one tenant, between tenants, between a machine and its host's
stack; on one host and across two, through VXLAN and GRE, over TCX and clsact. None arrives where it
does not belong, and each has a named drop.

    h1: attacker, near (red), stranger (blue)      h2: far (red)

What the attacker sends to UDP or TCP port 22 is filtered at its port. A frame that arrives at
last shows that all before it were handled.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import count

import msgspec
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop
from scapy.layers.l2 import LLC, SNAP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.packet import Packet, Raw

from midonet.commands.control_client import call
from midonet.demo.lab import LabHost, VirtualMachine
from midonet.demo.topology import Tenant
from midonet.model.hosts import TunnelKind
from midonet.model.schema_chains import ChainResource
from midonet.model.schema_ports import PortResource
from midonet.model.schema_rules import PortRangeResource, RuleResource
from tests.netns.entering import packet_socket, socket_inside
from tests.netns.labs import Network, answers, lab, own_mac, until

pytestmark = pytest.mark.timeout(240)

SOL_PACKET, PACKET_VNET_HDR = 263, 15
MARK, LAST = b"not for you, ", b"the last one, "
SSH, WEB = 22, 80
NO_OFFLOAD = bytes(10)
SERIAL = count(1)


class Ear:
    """Collects frames at an interface, or datagrams at a socket."""

    def __init__(self, taken: socket.socket) -> None:
        taken.setblocking(False)
        self._taken = taken
        self._frames: list[tuple[bytes, bool]] = []

    def heard(self, mark: bytes, *, outgoing: bool = False) -> list[bytes]:
        """Return what bears a mark; outgoing: only what leaves by the interface, else only what
        comes in."""
        while True:
            try:
                data, sender = self._taken.recvfrom(1 << 16)
            except BlockingIOError:
                break
            is_outgoing = len(sender) == 5 and sender[2] == socket.PACKET_OUTGOING
            self._frames.append((data, is_outgoing))
        return [data for data, left in self._frames if mark in data and left is outgoing]


@dataclass(slots=True)
class Stage:
    """The lab of the module docstring, with an ear wherever a frame could come out."""

    network: Network
    tenant: Tenant
    sender: socket.socket
    ears: dict[str, Ear]
    by_host: dict[str, Ear]

    def vm(self, name: str) -> VirtualMachine:
        return self.network.lab.machines[name]

    @property
    def host(self) -> LabHost:
        return self.network.lab.hosts[0]

    def send(self, frame: bytes, offload: bytes = NO_OFFLOAD) -> None:
        self.sender.sendmsg([offload, frame])

    def dropped(self) -> Counter[str]:
        """Return the drops at the attacker's port by reason."""
        port = str(self.network.ports["attacker"].id)
        return Counter(
            {
                row["reason"]: row["packets"]
                for row in call(self.host.state_dir, "GET", "/drops")
                if row["port"] == port
            }
        )

    def link(self, target: str) -> Ether:
        return Ether(src=own_mac(self.vm("attacker")), dst=own_mac(self.vm(target)))

    def everything_handled(self) -> None:
        """Wait for frames that are let through, to both neighbours."""
        mark = LAST + str(next(SERIAL)).encode()
        for target in ("near", "far"):
            frame = self.link(target) / IP(src="10.0.1.11", dst="10.0.1.12") / UDP(dport=WEB)
            self.send(bytes(frame / Raw(mark)))
            until(lambda target=target: self.ears[target].heard(mark), f"a frame at {target}")

    def nobody_heard(self, mark: bytes) -> None:
        """No machine but the sender, no host, and no wire between hosts has such a frame."""
        everywhere = {**self.ears, **self.by_host}
        found = {name: ear.heard(mark) for name, ear in everywhere.items()}
        assert {name: frames for name, frames in found.items() if frames} == {}


@contextmanager
def guarded(network: Network, name: str) -> Iterator[None]:
    """Drop what a machine sends to port 22."""
    api = network.api
    chain = api.create(ChainResource(name="guard", project_id="red"))
    for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        for eth_type in (0x0800, 0x86DD):
            rule = RuleResource(
                kind="drop",
                ip_proto=protocol,
                eth_type=eth_type,
                l4_dst=PortRangeResource(start=SSH, end=SSH),
            )
            api.create(rule, parent=chain)
    port = api.get(PortResource, str(network.ports[name].id))
    api.update(msgspec.structs.replace(port, inbound_filter_id=chain.id))
    yield


@pytest.fixture(scope="module", params=["tcx", "clsact"])
def stage(
    request: pytest.FixtureRequest, prefix: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    before = os.sched_getaffinity(0)
    with ExitStack() as stack:
        # What one CPU sends is handled in that order.
        os.sched_setaffinity(0, {min(before)})
        stack.callback(os.sched_setaffinity, 0, before)
        directory = tmp_path_factory.mktemp("frames")
        arguments = ("--attach-mode", request.param)
        made = stack.enter_context(lab(f"{prefix}y", directory, agent_arguments=arguments))
        network = Network(made)
        stack.callback(network.close)
        network.use_zone(TunnelKind.VXLAN)
        red, blue = network.make_tenant("red"), network.make_tenant("blue")
        first, second = made.hosts
        for name, host, tenant, number in (
            ("attacker", first, red, 11),
            ("near", first, red, 12),
            ("far", second, red, 13),
            ("stranger", first, blue, 12),
        ):
            network.plug(name, host, tenant.segments[1], number)
        network.wait_active()
        stack.enter_context(guarded(network, "attacker"))
        attacker = made.machines["attacker"]
        sender = stack.enter_context(closing(packet_socket(attacker.namespace, "eth0", eth_type=0)))
        sender.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)

        def ear(taken: socket.socket) -> Ear:
            return Ear(stack.enter_context(closing(taken)))

        ears = {
            name: ear(packet_socket(made.machines[name].namespace, "eth0"))
            for name in ("near", "far", "stranger")
        }
        by_host = {}
        for host in made.hosts:
            host.namespace.sysctl("net.ipv4.ip_forward", 1)
            for key in ("all", "default", "tap-attacker"):
                if key != "tap-attacker" or host is first:
                    host.namespace.sysctl(f"net.ipv4.conf.{key}.rp_filter", 0)
            for port in (SSH, WEB):
                made_socket = socket_inside(host.namespace, socket.AF_INET, socket.SOCK_DGRAM)
                made_socket.bind(("0.0.0.0", port))
                by_host[f"{host.name} port {port}"] = ear(made_socket)
        for name in ("h1", "h2"):
            by_host[f"wire to {name}"] = ear(packet_socket(made.fabric, name))
        answers(attacker, "10.0.1.12")
        answers(attacker, "10.0.1.13")
        yield Stage(network, red, sender, ears, by_host)


@pytest.fixture(params=[TunnelKind.VXLAN, TunnelKind.GRE], ids=str)
def tunnelled(request: pytest.FixtureRequest, stage: Stage) -> Stage:
    """The stage, with far behind a tunnel of this kind."""
    stage.network.use_zone(request.param)
    answers(stage.vm("attacker"), "10.0.1.13")
    return stage


def v4(**fields: object) -> IP:
    return IP(src="10.0.1.11", dst="10.0.1.12", **fields)


def v6(**fields: object) -> IPv6:
    return IPv6(src="fd00:0:1::11", dst="fd00:0:1::12", **fields)


Build = Callable[[Ether, bytes], Packet]


def shifted(packet: Packet, tags: bytes) -> Packet:
    """Return a frame with tags in front of its type."""
    frame = bytes(packet)
    return Raw(frame[:12] + tags + frame[12:])


READINGS: list[tuple[str, Build, str]] = [
    ("one priority tag", lambda e, m: e / Dot1Q(vlan=0) / v4() / UDP(dport=22) / m, "FILTERED"),
    (
        "two priority tags",
        lambda e, m: e / Dot1Q(vlan=0) / Dot1Q(vlan=0, prio=7) / v4() / UDP(dport=22) / m,
        "FILTERED",
    ),
    (
        "four priority tags",
        lambda e, m: shifted(e / v6() / UDP(dport=22) / m, b"\x81\x00\0\0\x88\xa8\0\0" * 2),
        "FILTERED",
    ),
    (
        "five priority tags",
        lambda e, m: shifted(e / v4() / UDP(dport=22) / m, b"\x81\x00\0\0" * 5),
        "MALFORMED",
    ),
    (
        "priority behind a VLAN",
        lambda e, m: e / Dot1Q(vlan=5) / Dot1Q(vlan=0) / v4() / UDP(dport=22) / m,
        "FILTERED",
    ),
    (
        "service VLAN behind priority",
        lambda e, m: e / Dot1Q(vlan=0) / Dot1AD(vlan=5) / v4() / UDP(dport=22) / m,
        "FILTERED",
    ),
    (
        "SNAP",
        lambda e, m: (
            Dot3(src=e.src, dst=e.dst)
            / LLC()
            / SNAP(OUI=0, code=0x0800)
            / Raw(bytes(v4() / UDP(dport=22) / m))
        ),
        "MALFORMED",
    ),
    ("options", lambda e, m: e / v4(options=b"\x01" * 8) / UDP(dport=22) / m, "FILTERED"),
    (
        "extension headers",
        lambda e, m: e / v6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(dport=22) / m,
        "FILTERED",
    ),
    (
        "seven extension headers",
        lambda e, m: (
            e
            / v6(nh=60)
            / Raw((b"\x3c" + bytes(7)) * 6 + b"\x11" + bytes(7) + bytes(UDP(dport=22) / m))
        ),
        "MALFORMED",
    ),
    ("first fragment", lambda e, m: e / v4(flags="MF") / UDP(dport=22) / m, "FILTERED"),
    ("tiny fragment", lambda e, m: e / v4(flags="MF", proto=6) / Raw(m[:15]), "MALFORMED"),
    ("in the header", lambda e, m: e / v4(frag=1, proto=6) / Raw(m), "MALFORMED"),
    (
        "in the header, IPv6",
        lambda e, m: e / v6() / IPv6ExtHdrFragment(offset=2, nh=6) / Raw(m),
        "MALFORMED",
    ),
    ("payload length zero", lambda e, m: e / v6(plen=0) / UDP(dport=22) / m, "MALFORMED"),
    (
        "options without a length",
        lambda e, m: e / v6(plen=0) / IPv6ExtHdrHopByHop() / UDP(dport=22) / m,
        "MALFORMED",
    ),
    (
        "mapped address",
        lambda e, m: e / IPv6(src="::ffff:10.0.1.11", dst="fd00:0:1::12") / UDP(dport=22) / m,
        "MALFORMED",
    ),
    ("TCP offset", lambda e, m: e / v4() / TCP(dport=22, dataofs=15) / m[:8], "MALFORMED"),
    ("UDP length", lambda e, m: e / v4() / UDP(dport=22, len=4) / m, "MALFORMED"),
]


def test_no_frame_gets_past_a_filter_that_its_receiver_reads_otherwise(tunnelled: Stage) -> None:
    before, expected = tunnelled.dropped(), Counter[str]()
    mark = MARK + str(next(SERIAL)).encode() + b". "
    for target in ("near", "far"):
        link = tunnelled.link(target)
        for _, build, reason in READINGS:
            tunnelled.send(bytes(build(link, mark)))  # type: ignore[arg-type]
            expected[reason] += 1
    tunnelled.everything_handled()
    until(lambda: tunnelled.dropped() - before >= expected, f"{dict(expected)}")
    assert tunnelled.dropped() - before == expected
    tunnelled.nobody_heard(mark)


WRITES = [
    ("destination port", 34, 2),
    ("source port", 34, 0),
    ("destination address", 26, 4),
    ("length", 34, 4),
]
"""Where a "checksum" of a frame to UDP port 80 is to be written."""


def test_no_header_is_written_after_it_was_judged(tunnelled: Stage) -> None:
    """A tunnel, and a device without offloads, have the kernel write the checksum."""
    mark = MARK + str(next(SERIAL)).encode() + b". "
    before, sent = tunnelled.dropped(), 0
    tunnelled.vm("near").host.namespace.run("ethtool", "-K", tunnelled.vm("near").tap, "tx", "off")
    for target in ("near", "far"):
        frame = bytes(tunnelled.link(target) / v4() / UDP(dport=WEB) / Raw(mark))
        for _, start, offset in WRITES:
            offload = struct.pack("=BBHHHH", 1, 0, 0, 0, start, offset)
            tunnelled.send(frame, offload)
            sent += 1
    tunnelled.everything_handled()
    assert tunnelled.dropped() - before == {"OFFLOAD_MISMATCH": sent}
    tunnelled.nobody_heard(mark)


def test_a_machine_that_forwards_does_not_forward_floods(tunnelled: Stage) -> None:
    """near and far forward what is theirs; a flood is everybody's, and nobody's to forward."""
    mark = MARK + str(next(SERIAL)).encode() + b". "
    for name in ("near", "far"):
        tunnelled.vm(name).namespace.sysctl("net.ipv4.ip_forward", 1)
    unknown = Ether(src=own_mac(tunnelled.vm("attacker")), dst="02:00:00:00:77:77")
    for target in ("10.0.2.99", "192.0.2.9"):
        packet = IP(src="10.0.1.11", dst=target) / UDP(dport=WEB) / Raw(mark)
        tunnelled.send(bytes(unknown / packet))
    tunnelled.everything_handled()
    for name in ("near", "far"):
        until(lambda name=name: len(tunnelled.ears[name].heard(mark)) >= 2, f"floods at {name}")
        # What it took for its own it forwards at once, or asks for the next hop first.
        answers(tunnelled.vm(name), "10.0.1.1")
    tunnelled.everything_handled()
    for name in ("near", "far"):
        assert tunnelled.ears[name].heard(mark, outgoing=True) == []
    assert tunnelled.ears["stranger"].heard(mark) == []


def attached(host: LabHost) -> set[str]:
    state = call(host.state_dir, "GET", "/state")
    return {port["interface"] for port in state["ports"] if port["attached"]}


def test_a_detached_machine_does_not_reach_its_host(stage: Stage) -> None:
    """Its port is gone, and the host forwards and listens."""
    host, network, wire = stage.host, stage.network, "free0"
    leaver = network.plug("leaver", host, stage.tenant.segments[1], 19)
    network.wait_active("leaver")
    namespace = leaver.namespace
    namespace.ip(f"link add ctl0 type veth peer name {wire} netns {host.namespace.name}")
    namespace.ip("link set ctl0 up")
    host.namespace.ip(f"link set {wire} up")
    network.api.delete(network.ports.pop("leaver"))
    until(lambda: leaver.tap not in attached(host), "the port detached")
    other = network.lab.hosts[1]
    number = str(next(SERIAL)).encode() + b". "
    for own, near, mark in (("eth0", leaver.tap, MARK), ("ctl0", wire, LAST)):
        host.namespace.sysctl(f"net.ipv4.conf.{near}.rp_filter", 0)
        with closing(packet_socket(host.namespace, near, eth_type=0)) as here:
            mac = here.getsockname()[4].hex(":")
        with closing(packet_socket(namespace, own, eth_type=0)) as out:
            for address in (host.address, other.address):
                for port in (SSH, WEB):
                    for dst in (mac, "ff:ff:ff:ff:ff:ff", "01:80:c2:00:00:03"):
                        frame = Ether(src="02:00:00:00:00:0a", dst=dst)
                        packet = IP(src="10.0.1.11", dst=address) / UDP(dport=port)
                        out.send(bytes(frame / packet / Raw(mark + number)))
    last = LAST + number
    until(lambda: stage.by_host["h1 port 80"].heard(last), "the control frames at the host")
    until(lambda: stage.by_host["h2 port 80"].heard(last), "the control frames forwarded")
    for ear in (*stage.ears.values(), *stage.by_host.values()):
        assert ear.heard(MARK + number) == ear.heard(MARK + number, outgoing=True) == []
    network.lab.unplug("leaver")
