"""What VMs on three hosts can do with each other, with real stacks and real tools."""

from __future__ import annotations

import json
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
import pytest

from midonet.demo.checks import check_identity, check_stream, check_traceroute, ping
from midonet.demo.lab import VirtualMachine
from midonet.model.hosts import TunnelKind
from midonet.model.schema_chains import ChainResource
from midonet.model.schema_ports import PortResource
from midonet.model.schema_rules import PortRangeResource, RuleResource
from tests.netns.entering import packet_socket, socket_inside
from tests.netns.labs import (
    DEADLINE_S,
    answers,
    drops,
    mac_bytes,
    neighbour_mac,
    own_mac,
    require_pings,
    until,
    wait_dropped,
)
from tests.netns.traffic_lab import (
    LOCAL,
    ONE,
    REMOTE,
    ROUTED,
    ROUTED_LOCAL,
    SIX_ONE,
    SIX_TWO,
    TARGETS,
    TWO,
    UNDERLAYS,
    Traffic,
    traffic_lab,
)

pytestmark = pytest.mark.timeout(400)

IPPROTO_GRE, VXLAN_PORT = 47, 6677
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 0x10
TEST_TYPE = 0x88B5  # IEEE 802: for local experiments
VERSIONS = pytest.mark.parametrize("version", [0, 1], ids=["ipv4", "ipv6"])


@pytest.fixture(scope="module")
def built(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    with traffic_lab(f"{prefix}t", tmp_path_factory.mktemp("traffic")) as made:
        yield made


@pytest.fixture
def traffic(built: Traffic) -> Traffic:
    """The lab with its ordinary tunnel zone."""
    built.network.use_zone(TunnelKind.VXLAN)
    answers(built.vm("red1"), TARGETS[REMOTE][0])
    return built


def test_first_packets_arrive(traffic: Traffic) -> None:
    """Nothing is known of these machines, and no ping is lost on the way to them."""
    for number, name in ((31, "fresh1"), (32, "fresh2")):
        host = traffic.lab.hosts[number - 31]
        traffic.network.plug(name, host, traffic.red.segments[1], number)
    traffic.network.wait_active("fresh1", "fresh2")
    try:
        for source, target in (("fresh1", f"{ONE}32"), ("fresh2", f"{SIX_TWO}14")):
            answers(traffic.vm(source), target)
            require_pings(traffic.vm(source), target)
    finally:
        for name in ("fresh1", "fresh2"):
            traffic.network.api.delete(traffic.network.ports.pop(name))
            traffic.lab.unplug(name)


@pytest.mark.parametrize("way", [LOCAL, REMOTE, ROUTED, ROUTED_LOCAL])
@VERSIONS
def test_pings(traffic: Traffic, way: str, version: int) -> None:
    answers(traffic.vm("red1"), TARGETS[way][version])
    require_pings(traffic.vm("red1"), TARGETS[way][version])


@VERSIONS
def test_traceroute_shows_the_router(traffic: Traffic, version: int) -> None:
    gateway = (f"{ONE}1", f"{SIX_ONE}1")[version]
    target = TARGETS[ROUTED][version]
    answers(traffic.vm("red1"), target)
    found = check_traceroute("way", traffic.vm("red1"), target, (gateway, target))
    assert found.ok, found.detail


@pytest.mark.parametrize("underlay", UNDERLAYS, ids=lambda each: f"{each[0]}-v{4 + 2 * each[1]}")
def test_every_underlay_carries_both_versions(
    built: Traffic, underlay: tuple[TunnelKind, bool]
) -> None:
    kind, is_ipv6 = underlay
    built.network.use_zone(kind, is_ipv6=is_ipv6)
    source = built.vm("red1")
    for target in (*TARGETS[REMOTE], *TARGETS[ROUTED]):
        until(lambda target=target: carriers(built, source, target) == {underlay}, f"{underlay}")
        require_pings(source, target)
    for target, server in ((TARGETS[ROUTED][0], "red4"), (TARGETS[REMOTE][1], "red3")):
        found = check_stream("stream", source, built.vm(server), target, 20)
        assert found.ok, found.detail


def carriers(traffic: Traffic, source: VirtualMachine, target: str) -> set[tuple[TunnelKind, bool]]:
    """Return the kinds of overlay packet that pings make on the underlay."""
    with packet_socket(traffic.lab.fabric, None) as taken:
        ping(source, target, count=2, wait_s=1)
        taken.setblocking(False)
        found = set()
        while True:
            try:
                found.add(_carrier(taken.recv(100)))
            except BlockingIOError:
                return {each for each in found if each is not None}


def _carrier(frame: bytes) -> tuple[TunnelKind, bool] | None:
    is_ipv6 = frame[12:14] == b"\x86\xdd"
    protocol, l4 = (frame[20], 54) if is_ipv6 else (frame[23], 34)
    if protocol == IPPROTO_GRE:
        return TunnelKind.GRE, is_ipv6
    if protocol == socket.IPPROTO_UDP and frame[l4 + 2 : l4 + 4] == VXLAN_PORT.to_bytes(2):
        return TunnelKind.VXLAN, is_ipv6
    return None


@VERSIONS
def test_large_segments_cross_whole(traffic: Traffic, version: int) -> None:
    """A segment of the sender's TCP stays one packet, through router and tunnel."""
    server = traffic.vm("red4")
    with (
        packet_socket(server.namespace, "eth0") as inner,
        packet_socket(traffic.lab.fabric, "h3") as outer,
        longest_packet(inner) as longest_inner,
        longest_packet(outer) as longest_outer,
    ):
        found = check_stream("stream", traffic.vm("red1"), server, TARGETS[ROUTED][version], 50)
    assert found.ok, found.detail
    assert longest_inner[0] > 60_000
    assert longest_outer[0] > 60_000


@contextmanager
def longest_packet(taken: socket.socket) -> Iterator[list[int]]:
    """Yield a list whose one element is the length of the longest packet, set at the end."""
    longest, is_done, room = [0], threading.Event(), bytearray(64)

    def watch() -> None:
        taken.settimeout(0.1)
        while not is_done.is_set():
            with suppress(TimeoutError):
                longest[0] = max(longest[0], taken.recvfrom_into(room, 64, socket.MSG_TRUNC)[0])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield longest
    finally:
        is_done.set()
        watcher.join()


@pytest.mark.parametrize("way", [LOCAL, REMOTE, ROUTED])
@VERSIONS
def test_fragments_arrive(traffic: Traffic, way: str, version: int) -> None:
    source, target = traffic.vm("red1"), TARGETS[way][version]
    answers(source, target)
    shown = source.namespace.run("ping", "-n", "-c", "3", "-i", "0.1", "-s", "8000", target)
    assert "3 received" in shown


@pytest.fixture
def wide_interface(traffic: Traffic) -> Iterator[VirtualMachine]:
    """red1 with an MTU that the overlay does not take."""
    machine = traffic.vm("red1")
    before = _set_mtu(machine, 1500)
    yield machine
    _set_mtu(machine, before)
    for version in "46":
        machine.namespace.run("ip", f"-{version}", "route", "flush", "cache")


def _set_mtu(machine: VirtualMachine, mtu_bytes: int) -> int:
    shown = json.loads(machine.namespace.run("ip", "-j", "link", "show", "eth0"))
    machine.namespace.ip(f"link set eth0 mtu {mtu_bytes}")
    machine.host.namespace.ip(f"link set {machine.tap} mtu {mtu_bytes}")
    return int(shown[0]["mtu"])


@VERSIONS
def test_too_big_is_answered_with_the_mtu(
    traffic: Traffic, wide_interface: VirtualMachine, version: int
) -> None:
    target = TARGETS[ROUTED][version]
    answers(wide_interface, target)
    result = subprocess.run(
        wide_interface.namespace.enter(
            ["ping", "-n", "-M", "do", "-c", "3", "-i", "0.2", "-W", "5", "-s", "1440", target]
        ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    said = result.stdout + result.stderr
    assert re.search(r"mtu.{0,3}1450", said), said
    known = wide_interface.namespace.run("ip", "route", "get", target)
    assert "mtu 1450" in known
    stream = check_stream("stream", wide_interface, traffic.vm("red4"), target, 2)
    assert stream.ok, stream.detail


def test_tagged_frames_cross_a_bridge(traffic: Traffic) -> None:
    """Frames of VLANs of the machines' own arrive with their tag, on one host and across."""
    source = traffic.vm("red1")
    answers(source, TARGETS[LOCAL][0])
    answers(source, TARGETS[REMOTE][0])
    for name, vlan in (("red2", 100), ("red3", 101)):
        machine = traffic.vm(name)
        addresses = mac_bytes(own_mac(machine)) + mac_bytes(own_mac(source))
        tag, rest = (0x8100 << 16 | vlan).to_bytes(4), TEST_TYPE.to_bytes(2) + b"tagged" * 20
        with (
            packet_socket(machine.namespace, "eth0") as taken,
            packet_socket(source.namespace, "eth0", eth_type=0) as out,
        ):
            taken.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            for _ in range(3):
                out.send(addresses + tag + rest)
            found = [_tagged_frame(taken, addresses + rest) for _ in range(3)]
        assert found == [vlan] * 3


def _tagged_frame(taken: socket.socket, wanted: bytes) -> int | None:
    """Wait for a frame that is as wanted but for its tag; return the VLAN."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        frame, ancillary, _, _ = taken.recvmsg(2048, 256)
        if frame == wanted:
            ((_, _, data),) = ancillary
            status, _, _, _, _, tci, _ = struct.unpack_from("=IIIHHHH", data)
            return tci if status & TP_STATUS_VLAN_VALID else None
    return None


def test_neighbours_are_resolved_to_the_right_machines(traffic: Traffic) -> None:
    source = traffic.vm("red1")
    (router_port,) = [
        port
        for port in traffic.network.api.list_all(PortResource)
        if port.id == traffic.red.segments[1].router_port.id
    ]
    expected = {
        f"{ONE}12": own_mac(traffic.vm("red2")),
        f"{SIX_ONE}12": own_mac(traffic.vm("red2")),
        f"{ONE}13": own_mac(traffic.vm("red3")),
        f"{SIX_ONE}13": own_mac(traffic.vm("red3")),
        f"{ONE}1": router_port.mac,
        f"{SIX_ONE}1": router_port.mac,
    }
    source.namespace.run("ip", "neigh", "flush", "dev", "eth0")
    for address, mac in expected.items():
        answers(source, address)
        assert neighbour_mac(source, address) == mac


def test_tenants_do_not_see_each_other(traffic: Traffic) -> None:
    red1, blue1 = traffic.vm("red1"), traffic.vm("blue1")
    answers(blue1, f"{ONE}15")
    for source, target in ((red1, f"{ONE}15"), (blue1, f"{ONE}13"), (blue1, f"{TWO}14")):
        assert ping(source, target, count=3, wait_s=1).received == 0
    found = check_identity(
        "who", ((red1, traffic.vm("red2")), (blue1, traffic.vm("blue2"))), f"{ONE}12"
    )
    assert found.ok, found.detail


# Rules.


@pytest.fixture
def filtered_port(traffic: Traffic) -> Iterator[str]:
    """red3 behind rules: what goes to port 7001 is dropped, to 7002 rejected."""
    api = traffic.network.api
    chain = api.create(ChainResource(name="guard", project_id="red"))
    for kind, l4_port in (("drop", 7001), ("reject", 7002)):
        for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
            for eth_type in (0x0800, 0x86DD):
                rule = RuleResource(
                    kind=kind,
                    ip_proto=protocol,
                    eth_type=eth_type,
                    l4_dst=PortRangeResource(start=l4_port, end=l4_port),
                )
                api.create(rule, parent=chain)
    port = api.get(PortResource, str(traffic.network.ports["red3"].id))
    api.update(msgspec.structs.replace(port, outbound_filter_id=chain.id))
    yield "red3"
    api.update(port)
    api.delete(chain)


@VERSIONS
def test_rules_drop_silently_and_reject_at_once(
    traffic: Traffic, filtered_port: str, version: int
) -> None:
    source, target = traffic.vm("red1"), TARGETS[REMOTE][version]
    family = socket.AF_INET6 if version else socket.AF_INET
    answers(source, target)

    def is_refused(l4_port: int, kind: socket.SocketKind, wait_s: float = DEADLINE_S) -> bool:
        with socket_inside(source.namespace, family, kind) as client:
            client.settimeout(wait_s)
            try:
                client.connect((target, l4_port))
                if kind == socket.SOCK_DGRAM:
                    client.send(b"?")
                    client.recv(1)
            except ConnectionRefusedError:
                return True
            except TimeoutError:
                return False
        raise AssertionError(f"{l4_port} is open")

    def is_dropped() -> bool:
        before = drops(source.host, "FILTERED")
        is_refused(7001, socket.SOCK_STREAM, wait_s=0.2)
        return drops(source.host, "FILTERED") > before

    until(is_dropped, "the rules in force")
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        before = drops(source.host, "FILTERED")
        assert not is_refused(7001, kind, wait_s=1), f"{kind}: dropped means no answer"
        wait_dropped(source.host, "FILTERED", before)
        assert is_refused(7002, kind), f"{kind}: rejected means an answer"
        assert is_refused(7003, kind), f"{kind}: the machine itself answers"
    require_pings(source, target)
