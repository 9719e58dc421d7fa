"""Mirrors, DSCP marks and services, with real machines on two hosts.

h1: `red1` (bridge one)      h2: `red3` (bridge one), `watcher` and `service` (bridge two)
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
import pytest

from midonet.demo.checks import ping
from midonet.demo.lab import VirtualMachine
from midonet.model.hosts import TunnelKind
from midonet.model.schema_chains import ChainResource
from midonet.model.schema_insertions import L2InsertionResource
from midonet.model.schema_mirrors import MirrorResource
from midonet.model.schema_ports import PortResource
from midonet.model.schema_qos import QosDscpRuleResource, QosPolicyResource
from midonet.model.schema_rules import ConditionResource, RuleResource
from midonet.packets.frame import ParsedFrame, parse_frame
from tests.netns.entering import packet_socket
from tests.netns.labs import (
    Network,
    answers,
    lab,
    mac_bytes,
    own_mac,
    receive_until,
    require_pings,
    silent,
    until,
)
from tests.netns.traffic_lab import ONE, SIX_ONE

pytestmark = pytest.mark.timeout(400)

VERSIONS = pytest.mark.parametrize("version", [0, 1], ids=["ipv4", "ipv6"])
FAR = (f"{ONE}13", f"{SIX_ONE}13")
ECHO_REQUEST = ((1, 8), (58, 128))
ECHO_REPLY = ((1, 0), (58, 129))
EF = 46
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID, PACKET_OUTGOING = 263, 8, 0x10, 4
VLAN = 7
FROM_MACHINE, TO_MACHINE = 1 << 13 | VLAN, 2 << 13 | VLAN


@pytest.fixture(scope="module")
def network(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with lab(f"{prefix}w", tmp_path_factory.mktemp("watched")) as made:
        built = Network(made)
        built.use_zone(TunnelKind.VXLAN)
        red = built.make_tenant("red")
        first, second = made.hosts
        for name, host, segment, number in (
            ("red1", first, red.segments[1], 11),
            ("red3", second, red.segments[1], 13),
            ("watcher", second, red.segments[2], 14),
            ("service", second, red.segments[2], 15),
        ):
            built.plug(name, host, segment, number)
        built.wait_active()
        try:
            yield built
        finally:
            built.close()


def machine(network: Network, name: str) -> VirtualMachine:
    return network.lab.machines[name]


@contextmanager
def changed(network: Network, name: str, **fields: object) -> Iterator[None]:
    """Change the port of a machine for a while."""
    api = network.api
    before = api.get(PortResource, str(network.ports[name].id))
    api.update(msgspec.structs.replace(before, **fields))
    try:
        yield
    finally:
        empty = {key: () if isinstance(value, tuple) else None for key, value in fields.items()}
        present = api.get(PortResource, str(before.id))
        api.update(msgspec.structs.replace(present, **empty))


def is_echo(frame: bytes, kind: tuple[int, int]) -> bool:
    packet = parse_frame(frame)
    return (packet.key.ip_proto, packet.key.l4_src) == kind


@VERSIONS
def test_a_mirror_shows_both_directions_on_another_host(network: Network, version: int) -> None:
    red1, red3 = machine(network, "red1"), machine(network, "red3")
    answers(red1, FAR[version])
    port_id = network.ports["watcher"].id
    protocol = ECHO_REQUEST[version][0]
    condition = ConditionResource(ip_proto=protocol)
    mirror = network.api.create(MirrorResource(to_port_id=port_id, conditions=(condition,)))
    ends = mac_bytes(own_mac(red1)), mac_bytes(own_mac(red3))
    with (
        packet_socket(machine(network, "watcher").namespace, "eth0") as seen,
        changed(network, "red1", inbound_mirror_ids=(mirror.id,), outbound_mirror_ids=(mirror.id,)),
    ):
        for kind, (source, target) in (
            (ECHO_REQUEST[version], ends),
            (ECHO_REPLY[version], ends[::-1]),
        ):

            def is_copy(
                frame: bytes,
                kind: tuple[int, int] = kind,
                macs: bytes = target + source,
            ) -> bool:
                return frame[:12] == macs and is_echo(frame, kind)

            until(
                lambda is_copy=is_copy: (
                    ping(red1, FAR[version], count=1, wait_s=1).received
                    and receive_until(seen, is_copy, 1.0)
                ),
                f"a copy of {kind} at the watcher",
            )
        require_pings(red1, FAR[version])
    network.api.delete(mirror)
    require_pings(red1, FAR[version])


@VERSIONS
def test_a_mark_is_on_the_wire(network: Network, version: int) -> None:
    red1, red3 = machine(network, "red1"), machine(network, "red3")
    answers(red1, FAR[version])
    policy = network.api.create(QosPolicyResource(name="expedited"))
    network.api.create(QosDscpRuleResource(dscp_mark=EF), parent=policy)

    def marks() -> set[int]:
        """Return the DSCPs of the requests that arrive."""
        with packet_socket(red3.namespace, "eth0") as seen:
            assert ping(red1, FAR[version], count=1, wait_s=5).received
            frame = receive_until(seen, lambda one: is_echo(one, ECHO_REQUEST[version]), 5.0)
        assert frame is not None
        return {parse_frame(frame).key.ip_tos >> 2}

    assert marks() == {0}
    with changed(network, "red1", qos_policy_id=policy.id):
        until(lambda: marks() == {EF}, "requests with the mark")
    until(lambda: marks() == {0}, "requests without a mark")
    network.api.delete(policy)


@dataclass
class Service:
    """What a service saw: the tags, and the packets in them."""

    tags: set[int] = field(default_factory=set)
    packets: list[ParsedFrame] = field(default_factory=list)


@contextmanager
def serving(at: VirtualMachine) -> Iterator[Service]:
    """Return each frame as it came, by the interface by which it came, as a bump in the wire."""
    service, done = Service(), threading.Event()
    with packet_socket(at.namespace, "eth0") as wire:
        wire.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        wire.settimeout(0.1)

        def serve() -> None:
            while not done.is_set():
                try:
                    frame, ancillary, _, address = wire.recvmsg(2048, 256)
                except TimeoutError:
                    continue
                tag = _tag(ancillary)
                if address[2] != PACKET_OUTGOING and tag is not None:
                    service.tags.add(tag)
                    service.packets.append(parse_frame(frame))
                    wire.send(frame[:12] + b"\x81\x00" + tag.to_bytes(2) + frame[12:])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield service
        finally:
            done.set()
            thread.join()


def _tag(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    for _, _, data in ancillary:
        status, _, _, _, _, tci, _ = struct.unpack_from("=IIIHHHH", data)
        if status & TP_STATUS_VLAN_VALID:
            return int(tci)
    return None


def insert(network: Network, *, fail_open: bool) -> L2InsertionResource:
    """Let what `red1` sends and gets pass the service."""
    return network.api.create(
        L2InsertionResource(
            port_id=network.ports["red1"].id,
            service_port_id=network.ports["service"].id,
            mac=own_mac(machine(network, "red1")),
            vlan=VLAN,
            fail_open=fail_open,
        )
    )


def test_traffic_passes_a_service_or_nobody_or_past_it(network: Network) -> None:
    red1, behind = machine(network, "red1"), machine(network, "service")
    for target in FAR:
        answers(red1, target)
    insertion = insert(network, fail_open=True)
    silent(red1, FAR[0])
    with serving(behind) as service:
        for target in FAR:
            answers(red1, target)
            require_pings(red1, target)
    assert service.tags == {FROM_MACHINE, TO_MACHINE}
    seen = {(packet.key.ip_proto, packet.key.l4_src) for packet in service.packets}
    assert {*ECHO_REQUEST, *ECHO_REPLY} <= seen
    silent(red1, FAR[0])
    # The machine of the service is gone: its port is inactive, and the insertion fails open.
    behind.namespace.ip("link set eth0 down")
    for target in FAR:
        answers(red1, target)
        require_pings(red1, target)
    behind.namespace.ip("link set eth0 up")
    network.wait_active("service")
    silent(red1, FAR[0])
    with serving(behind):
        answers(red1, FAR[0])
    network.api.delete(insertion)
    for target in FAR:
        answers(red1, target)
        require_pings(red1, target)


def test_answers_pass_a_service_on_another_host_and_a_stateful_filter(network: Network) -> None:
    """The filter lets in answers only; the host of the service knows the connections as well."""
    api, red1, red3 = network.api, machine(network, "red1"), machine(network, "red3")
    answers(red1, FAR[0])
    asking, answering = api.create(ChainResource(name="out")), api.create(ChainResource(name="in"))
    api.create(RuleResource(kind="accept", match_forward_flow=True), parent=asking)
    api.create(RuleResource(kind="drop", ip_proto=1), parent=answering)
    api.create(RuleResource(kind="accept", match_return_flow=True), parent=answering)
    insertion = insert(network, fail_open=False)
    filters = {"inbound_filter_id": asking.id, "outbound_filter_id": answering.id}
    with changed(network, "red1", **filters), serving(machine(network, "service")) as service:
        silent(red3, f"{ONE}11")
        answers(red1, FAR[0])
        require_pings(red1, FAR[0])
        silent(red3, f"{ONE}11")
        assert service.tags == {FROM_MACHINE, TO_MACHINE}
    for made in (insertion, asking, answering):
        api.delete(made)
    answers(red3, f"{ONE}11")
