"""Overlay packets that nobody should send, against the real kernel: none of them reaches a tenant
that it is not for, the host's own stack, or the underlay again, and each has a named drop.

    outside --w0----u0-- host --p1--- red       two tenants, and a host that routes and listens
            --w9----u9--                        no hook of ours at u9
                              --p2--- blue
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio

from midonet.agent.datapath.ebpf import AttachMode, EbpfDatapath
from midonet.agent.datapath.protocol import OverlayConfig, PortAttachment
from midonet.agent.flows.mask import EMPTY_MASK
from midonet.agent.flows.program import FlowProgram, InstalledProgram, LocalOutput
from midonet.agent.underlay.clsact import Clsact
from midonet.demo.namespaces import Namespace, wire
from midonet.model.hosts import TunnelKind
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion, parse_ip
from midonet.packets.flowkey import FlowKey
from tests.contract.ebpf_harness import HASH_SEED
from tests.netns.entering import entered, packet_socket, socket_inside
from tests.netns.labs import until
from tests.netns.overlay_packets import (
    ANY,
    BLUE_KEY,
    DESTINATION_OPTIONS,
    ENDS,
    FRAGMENT,
    HOP_BY_HOP,
    KINDS,
    MARK,
    OTHER_KEY,
    OTHER_MAC,
    RED_KEY,
    SECRET_PORT,
    UDP,
    VXLAN_PORT,
    Outer,
    fragments,
    ipv4_udp,
    router_advertisement,
)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]


class Witness:
    """A socket that must not, or must, see packets with MARK."""

    def __init__(self, taken: socket.socket) -> None:
        taken.setblocking(False)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._taken = taken

    def seen(self) -> list[bytes]:
        """Return the frames or packets with MARK in them since the last call."""
        found = []
        while True:
            try:
                data, address = self._taken.recvfrom(1 << 16)
            except BlockingIOError:
                return found
            is_outgoing = len(address) == 5 and address[2] == socket.PACKET_OUTGOING
            if MARK in data and not is_outgoing and not _is_unopened(data):
                found.append(data)


def _is_unopened(packet: bytes) -> bool:
    """Tell whether an IPv4 packet is an overlay packet still: the host's socket may have that."""
    ports = (packet[0] & 15) * 4
    return packet[0] >> 4 == 4 and packet[ports + 2 : ports + 4] == struct.pack("!H", VXLAN_PORT)


@dataclass
class Stage:
    """The lab of the module docstring, with a witness wherever a packet could come out."""

    host: Namespace
    outside: Namespace
    datapath: EbpfDatapath
    reopen: Callable[[], EbpfDatapath]
    hooked: socket.socket
    unhooked: socket.socket
    tenant: socket.socket
    macs: dict[str, bytes]
    witnesses: dict[str, Witness]
    before: Counter[str] = field(default_factory=Counter)

    def drops(self, wanted: PortId | None = None) -> Counter[str]:
        """Return drops by reason, of a port or of the overlay."""
        found: Counter[str] = Counter()
        for (port_id, reason), count in self.datapath.drops().items():
            if port_id == wanted:
                found[reason.name] += count
        return found

    def begin(self) -> None:
        for witness in self.witnesses.values():
            witness.seen()
        self.before = self.drops()

    def send(self, packet: bytes, *, is_hooked: bool = True, mac: bytes | None = None) -> None:
        """Let an outer packet arrive at the host."""
        name, out = ("u0", self.hooked) if is_hooked else ("u9", self.unhooked)
        eth_type = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
        out.send((mac or self.macs[name]) + OTHER_MAC + eth_type + packet)

    def send_tagged(self, packet: bytes, tags: int) -> None:
        """Let an outer packet with priority tags arrive."""
        eth_type = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
        self.hooked.send(
            self.macs["u0"] + OTHER_MAC + b"\x81\x00\xa0\x00" * tags + eth_type + packet
        )

    def settle(self) -> None:
        """Wait until all that was sent has been handled: packets of known fate are behind it."""
        last = Outer(TunnelKind.VXLAN, IpVersion.V4, ENDS[IpVersion.V4].peer, b"", OTHER_KEY)
        for is_hooked, destination, reason in (
            (True, ENDS[IpVersion.V4].host, "UNKNOWN_TUNNEL_KEY"),
            (False, ENDS[IpVersion.V4].unhooked, "OVERLAY_STRAY"),
        ):
            last.destination = destination
            seen = self.drops()[reason]
            self.send(last.packet(bytes(60)), is_hooked=is_hooked)
            until(lambda seen=seen, reason=reason: self.drops()[reason] > seen, f"{reason} counted")
            self.before[reason] += 1

    def outcome(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return the drops since `begin`, and who saw how many packets with MARK."""
        self.settle()
        dropped = self.drops() - self.before
        seen = {name: len(witness.seen()) for name, witness in self.witnesses.items()}
        return dict(dropped), {name: count for name, count in seen.items() if count}

    def has_default_router(self) -> bool:
        return "default" in self.host.run("ip", "-6", "route", "show", "table", "all")


RED, BLUE = PortId(UUID(int=RED_KEY)), PortId(UUID(int=BLUE_KEY))
MODES = [AttachMode.TCX, AttachMode.CLSACT]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=MODES, ids=str)
async def built(prefix: str, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    mode: AttachMode = request.param
    with ExitStack() as stack:
        made = {}
        for name in ("host", "outside", "red", "blue"):
            made[name] = Namespace(f"{prefix}-i{name[0]}")
            made[name].create()
            stack.callback(made[name].delete)
        host, outside = made["host"], made["outside"]
        for near, other, far in (
            ("u0", outside, "w0"),
            ("u9", outside, "w9"),
            ("p1", made["red"], "eth0"),
            ("p2", made["blue"], "eth0"),
        ):
            wire(host, near, other, far)
        host.ip(
            *(f"link set {name} addrgenmode none" for name in ("p1", "p2")),
            "address add 192.0.2.1/24 dev u0",
            "address add 2001:db8::1/64 dev u0 nodad",
            "address add 198.51.100.1/24 dev u9",
            "address add 2001:db8:9::1/64 dev u9 nodad",
        )
        # A host as careless as can be.
        for name in ("all", "default"):
            host.sysctl(f"net.ipv4.conf.{name}.rp_filter", 0)
            host.sysctl(f"net.ipv4.conf.{name}.accept_local", 1)
            host.sysctl(f"net.ipv6.conf.{name}.accept_ra", 2)
        host.sysctl("net.ipv4.ip_forward", 1)
        host.sysctl("net.ipv6.conf.all.forwarding", 1)
        state_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="midonet-"))
        stack.enter_context(entered(host))
        filters = Clsact()
        stack.callback(filters.close)

        def reopen() -> EbpfDatapath:
            return EbpfDatapath(
                Path(state_dir),
                hash_seed=HASH_SEED,
                max_programs=64,
                max_ports=8,
                attach_mode=mode,
                filters=filters,
            )

        datapath = reopen()
        await datapath.open()
        for name, key, port_id in (("p1", RED_KEY, RED), ("p2", BLUE_KEY, BLUE)):
            datapath.attach(PortAttachment(port_id, name))
            datapath.set_delivery(key, (port_id,))
        configure(datapath)
        witnesses = _witnesses(host, outside, made["red"], made["blue"], stack)
        sending = [packet_socket(outside, name, eth_type=0) for name in ("w0", "w9")]
        sending.append(packet_socket(made["red"], "eth0", eth_type=0))
        for out in sending:
            stack.callback(out.close)
        macs = {name: _mac(name) for name in ("u0", "u9", "p1", "mn-vxlan")}
        stage = Stage(host, outside, datapath, reopen, *sending, macs, witnesses)
        try:
            yield stage
        finally:
            await stage.datapath.uninstall()


def configure(datapath: EbpfDatapath) -> None:
    datapath.configure_overlay(
        OverlayConfig(
            local_addresses=frozenset(map(parse_ip, ("192.0.2.1", "2001:db8::1"))),
            peers=frozenset(map(parse_ip, ("192.0.2.2", "2001:db8::2"))),
            interface_names=frozenset(("u0",)),
        )
    )


def _mac(interface: str) -> bytes:
    """Return the link-layer address of an interface of the present namespace."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as asked:
        asked.bind((interface, 0))
        return bytes(asked.getsockname()[4])


def _witnesses(
    host: Namespace, outside: Namespace, red: Namespace, blue: Namespace, stack: ExitStack
) -> dict[str, Witness]:
    taken = {
        "red": packet_socket(red, "eth0"),
        "blue": packet_socket(blue, "eth0"),
        "out of u0": packet_socket(outside, "w0"),
        "out of u9": packet_socket(outside, "w9"),
        "service": socket_inside(host, socket.AF_INET, socket.SOCK_DGRAM),
    }
    taken["service"].bind(("", SECRET_PORT))
    with entered(host):
        taken["stack"] = socket.socket(socket.AF_INET, socket.SOCK_RAW, UDP)
    for each in taken.values():
        stack.callback(each.close)
    return {name: Witness(each) for name, each in taken.items()}


@pytest.fixture
def stage(built: Stage) -> Iterator[Stage]:
    """The stage, before and after which a proper packet reaches the tenant it is for."""
    built.begin()
    yield built
    for version in ANY:
        for kind in KINDS:
            ends = ENDS[version]
            built.begin()
            built.send(Outer(kind, version, ends.peer, ends.host).packet(for_tenant()))
            assert built.outcome() == ({}, {"red": 1}), f"{kind} {version} afterwards"
    assert not built.has_default_router()


def for_tenant() -> bytes:
    """Return a frame that a container would take."""
    return b"\xff" * 6 + OTHER_MAC + b"\x88\xb5" + MARK * 3


def for_host(stage: Stage) -> list[bytes]:
    """Return frames that the host's stack would take from its tunnel device, if it took any."""
    to_device = stage.macs["mn-vxlan"] + OTHER_MAC + b"\x08\x00"
    source = bytes((203, 0, 113, 9))
    return [
        to_device + ipv4_udp(source, ENDS[IpVersion.V4].host, SECRET_PORT),
        to_device + ipv4_udp(source, bytes((198, 51, 100, 77)), SECRET_PORT),  # to route on
        router_advertisement(OTHER_MAC),
        for_tenant(),
    ]


both_kinds = pytest.mark.parametrize("kind", KINDS)
both_versions = pytest.mark.parametrize("version", ANY, ids=("v4", "v6"))

OPTIONS = b"\x01\x01\x01\x01"
PADDING = b"\x00\x01\x04" + bytes(4)
"""A hop-by-hop or destination options header with nothing in it, without its next header."""


def irregular(kind: TunnelKind, version: IpVersion, source: bytes) -> list[Outer]:
    """Return outer headers that a stack takes and hosts never send."""
    host = ENDS[version].host
    if version is IpVersion.V4:
        return [
            Outer(kind, version, source, host, options=OPTIONS),
            Outer(kind, version, source, host, options=OPTIONS * 10),
        ]
    atomic = (FRAGMENT, bytes(3) + b"\0\0\0\7")
    return [
        Outer(kind, version, source, host, extensions=chain)
        for chain in (
            ((HOP_BY_HOP, PADDING),),
            ((DESTINATION_OPTIONS, PADDING),) * 3,
            (atomic,),
            ((HOP_BY_HOP, PADDING), atomic, (DESTINATION_OPTIONS, PADDING)),
        )
    ]


@both_kinds
@both_versions
@pytest.mark.parametrize("who", ["peer", "stranger", "nowhere", "host"])
async def test_outer_options_and_extension_headers(
    stage: Stage, kind: TunnelKind, version: IpVersion, who: str
) -> None:
    source = getattr(ENDS[version], who)
    reason = "OVERLAY_MALFORMED" if who == "peer" else "UNKNOWN_PEER"
    sent = 0
    for outer in irregular(kind, version, source):
        for inner in for_host(stage):
            stage.send(outer.packet(inner))
            sent += 1
    assert stage.outcome() == ({reason: sent}, {})


@both_kinds
@both_versions
@pytest.mark.parametrize("who", ["peer", "stranger"])
async def test_outer_fragments(
    stage: Stage, kind: TunnelKind, version: IpVersion, who: str
) -> None:
    source = getattr(ENDS[version], who)
    reason = "OVERLAY_MALFORMED" if who == "peer" else "UNKNOWN_PEER"
    for inner in for_host(stage):
        for first, second in fragments(Outer(kind, version, source, ENDS[version].host), inner):
            stage.send(first)
            stage.send(second)
    assert stage.outcome() == ({reason: 2 * len(for_host(stage))}, {})


@both_kinds
@both_versions
async def test_addresses_that_are_no_tunnel_end(
    stage: Stage, kind: TunnelKind, version: IpVersion
) -> None:
    """Through an interface with a hook and one without; VXLAN reaches the host's own device."""
    ends, sent = ENDS[version], 0
    groups = {
        IpVersion.V4: [bytes((255,)) * 4, bytes((224, 0, 0, 1)), ends.broadcast],
        IpVersion.V6: [ends.broadcast],
    }[version]
    group_mac = b"\x33\x33\0\0\0\1" if version is IpVersion.V6 else b"\xff" * 6
    for source in (ends.peer, ends.stranger):
        for inner in for_host(stage):
            for is_hooked in (True, False):
                outer = Outer(kind, version, source, ends.unhooked)
                stage.send(outer.packet(inner), is_hooked=is_hooked)
                sent += 1
            stage.send(Outer(kind, version, source, ends.host).packet(inner), is_hooked=False)
            sent += 1
            for group in groups:
                outer = Outer(kind, version, source, group)
                for is_hooked in (True, False):
                    stage.send(outer.packet(inner), is_hooked=is_hooked, mac=group_mac)
    dropped, seen = stage.outcome()
    assert seen == {}
    if kind is TunnelKind.VXLAN:
        assert set(dropped) == {"OVERLAY_STRAY"}
        assert dropped["OVERLAY_STRAY"] >= sent
    else:
        assert dropped == {}, "no device of ours takes GRE"


@both_kinds
@both_versions
async def test_more_extension_headers_than_the_hook_follows(
    stage: Stage, kind: TunnelKind, version: IpVersion
) -> None:
    """And tags: what the hook leaves to the host ends at the host's own device."""
    ends = ENDS[version]
    packets = [
        Outer(kind, version, ends.stranger, ends.host).packet(inner) for inner in for_host(stage)
    ]
    for packet in packets:
        for tags in (1, 2):
            stage.send_tagged(packet, tags)
    assert stage.outcome() == ({"UNKNOWN_PEER": 2 * len(packets)}, {})
    stage.begin()
    for packet in packets:
        stage.send_tagged(packet, 3)
    sent = len(packets)
    if version is IpVersion.V6:
        chain = ((DESTINATION_OPTIONS, PADDING),) * 12
        outer = Outer(kind, version, ends.stranger, ends.host, extensions=chain)
        for inner in for_host(stage):
            stage.send(outer.packet(inner))
            sent += 1
    strays = {"OVERLAY_STRAY": sent} if kind is TunnelKind.VXLAN else {}
    assert stage.outcome() == (strays, {})


@both_kinds
@both_versions
async def test_sources_that_are_no_peer(stage: Stage, kind: TunnelKind, version: IpVersion) -> None:
    ends, sent = ENDS[version], 0
    for source in (ends.stranger, ends.nowhere, ends.host, ends.unhooked, ends.broadcast):
        for key in (0, RED_KEY, BLUE_KEY, 0xFFFFFF):
            for inner in for_host(stage):
                stage.send(Outer(kind, version, source, ends.host, key).packet(inner))
                sent += 1
    assert stage.outcome() == ({"UNKNOWN_PEER": sent}, {})


@both_versions
async def test_headers_of_the_tunnels(stage: Stage, version: IpVersion) -> None:
    """Reserved bits are ignored (RFC 7348 section 5); what changes the header's form is refused."""
    ends, inner = ENDS[version], for_tenant()
    vxlan, gre = TunnelKind.VXLAN, TunnelKind.GRE
    refused = [Outer(vxlan, version, ends.peer, ends.host, flags=0xF7FF_FFFF)]
    for flags, fields in ((0xA000, bytes(4)), (0x3000, b""), (0x6000, b""), (0x2001, b"")):
        refused.append(Outer(gre, version, ends.peer, ends.host, flags=flags, gre_fields=fields))
    refused.append(Outer(gre, version, ends.peer, ends.host, flags=0))
    for length in (0, 8, 16, 16 + len(inner) - 1, 16 + len(inner) + 1, 0xFFFF):
        refused.append(Outer(vxlan, version, ends.peer, ends.host, udp_length=length))
    for outer in refused:
        stage.send(outer.packet(inner))
    for kind in KINDS:
        proper = Outer(kind, version, ends.peer, ends.host)
        for size in (0, 1, 13):
            stage.send(proper.packet(inner[:size]))
        proper.ip_length = len(proper.packet(inner)) + 1  # longer than the frame
        stage.send(proper.packet(inner))
    assert stage.outcome() == ({"OVERLAY_MALFORMED": len(refused) + 8}, {})
    stage.begin()
    stage.send(Outer(vxlan, version, ends.peer, ends.host, flags=0xFFFF_FFFF).packet(inner))
    stage.send(Outer(gre, version, ends.stranger, ends.host, flags=0xB000).packet(inner))
    assert stage.outcome() == ({}, {"red": 1}), "another tunnel's packet is left to the host"


@both_kinds
@both_versions
async def test_what_follows_the_outer_packet_is_no_part_of_the_frame(
    stage: Stage, kind: TunnelKind, version: IpVersion
) -> None:
    ends, inner = ENDS[version], for_tenant()
    packet = Outer(kind, version, ends.peer, ends.host).packet(inner)
    stage.send(packet + b"trailer" * 9)
    stage.settle()
    assert stage.witnesses["red"].seen() == [inner]
    assert not any(witness.seen() for witness in stage.witnesses.values())


@both_kinds
@both_versions
async def test_frames_for_another_machine_and_other_networks(
    stage: Stage, kind: TunnelKind, version: IpVersion
) -> None:
    ends = ENDS[version]
    packet = Outer(kind, version, ends.peer, ends.host).packet(for_tenant())
    stage.send(packet, mac=OTHER_MAC)
    eth_type = b"\x08\x00" if version is IpVersion.V4 else b"\x86\xdd"
    stage.hooked.send(stage.macs["u0"] + OTHER_MAC + b"\x81\x00\x00\x05" + eth_type + packet)
    assert stage.outcome() == ({}, {})
    stage.begin()
    for tags in (1, 2):
        stage.send_tagged(packet, tags)
    assert stage.outcome() == ({}, {"red": 2}), "a priority tag is no network"


@both_kinds
async def test_a_key_reaches_its_port_only(stage: Stage, kind: TunnelKind) -> None:
    ends = ENDS[IpVersion.V4]
    for key in (RED_KEY, BLUE_KEY, OTHER_KEY, RED_KEY | 0xFF0000):
        stage.send(Outer(kind, IpVersion.V4, ends.peer, ends.host, key).packet(for_tenant()))
    assert stage.outcome() == ({"UNKNOWN_TUNNEL_KEY": 2}, {"red": 1, "blue": 1})


@both_kinds
@both_versions
async def test_a_tenant_is_no_host(stage: Stage, kind: TunnelKind, version: IpVersion) -> None:
    """What a container sends as if it were a host: by a program to another tenant, and without one.
    The host's stack sees none of it, whatever address it is for."""
    ends = ENDS[version]
    eth_type = b"\x08\x00" if version is IpVersion.V4 else b"\x86\xdd"
    outers = [
        Outer(kind, version, source, destination)
        for source in (ends.peer, ends.host)
        for destination in (ends.host, ends.peer)
    ]
    for mac in (stage.macs["p1"], stage.macs["u0"], b"\xff" * 6):
        for inner in for_host(stage):
            for outer in outers:
                stage.tenant.send(mac + OTHER_MAC + eth_type + outer.packet(inner))
            stage.tenant.send(mac + inner[6:])
    assert stage.outcome() == ({}, {}), "nobody decided on them"
    program = FlowProgram(RED, FlowKey(0, 0), EMPTY_MASK, (LocalOutput(BLUE),))
    entry = InstalledProgram(1, 1, EMPTY_MASK, EMPTY_MASK, program)
    stage.datapath.install([entry])
    before, sent = stage.drops(RED)["UNDERLAY_SPOOF"], 0
    for mac in (stage.macs["p1"], stage.macs["u0"], b"\xff" * 6):
        for outer in outers:
            for inner in for_host(stage):
                stage.tenant.send(mac + OTHER_MAC + eth_type + outer.packet(inner))
                sent += 1
    until(lambda: stage.drops(RED)["UNDERLAY_SPOOF"] - before == sent, "all of them dropped")
    assert stage.outcome() == ({}, {})
    stage.tenant.send(for_tenant())
    until(lambda: len(stage.witnesses["blue"].seen()) == 1, "ordinary frames pass")
    stage.datapath.remove([entry])
    stage.datapath.drop_mask(RED, 1)


async def test_nothing_passes_while_the_agent_is_away(stage: Stage) -> None:
    """Nor while it starts again, nor after."""
    expected = 0

    def attack() -> None:
        nonlocal expected
        for version in ANY:
            ends = ENDS[version]
            for inner in for_host(stage):
                packet = Outer(TunnelKind.VXLAN, version, ends.stranger, ends.unhooked)
                stage.send(packet.packet(inner), is_hooked=False)
                expected += 1

    before = stage.drops()["OVERLAY_STRAY"]
    await stage.datapath.close()
    attack()
    stage.datapath = stage.reopen()
    await stage.datapath.open()
    attack()
    configure(stage.datapath)
    attack()
    until(lambda: stage.drops()["OVERLAY_STRAY"] - before == expected, "all of them dropped")
    assert not any(witness.seen() for witness in stage.witnesses.values())


async def test_device_is_of_no_use_to_the_stack_either(stage: Stage) -> None:
    """Should the program that closes it be missing: no IPv6, no source is right, no ARP."""
    (link,) = json.loads(stage.host.run("ip", "-d", "-j", "link", "show", "mn-vxlan"))
    assert link["inet6_addr_gen_mode"] == "none"
    assert link["master"] == "mn-ports", "ports' interfaces have its headroom"
    for name, value in (
        ("ipv6.conf.mn-vxlan.disable_ipv6", "1"),
        ("ipv6.conf.mn-vxlan.accept_ra", "0"),
        ("ipv4.conf.mn-vxlan.rp_filter", "1"),
        ("ipv4.conf.mn-vxlan.arp_ignore", "8"),
        ("ipv4.conf.mn-vxlan.forwarding", "0"),
    ):
        assert stage.host.run("sysctl", "-n", f"net.{name}").strip() == value, name


async def test_device_that_was_removed_comes_back_closed(stage: Stage) -> None:
    """Somebody removes the device, or puts an open one in its place."""
    ends = ENDS[IpVersion.V4]
    for lines in (
        ["link del mn-vxlan"],
        ["link del mn-vxlan", "link add mn-vxlan type vxlan external dstport 6678"],
    ):
        stage.host.ip(*lines)
        await _comes_back(stage)
        stage.macs["mn-vxlan"] = _mac("mn-vxlan")
        stage.begin()
        for inner in for_host(stage):
            packet = Outer(TunnelKind.VXLAN, IpVersion.V4, ends.stranger, ends.unhooked)
            stage.send(packet.packet(inner), is_hooked=False)
        assert stage.outcome() == ({"OVERLAY_STRAY": len(for_host(stage))}, {})


async def _comes_back(stage: Stage) -> None:
    def is_there() -> bool:
        shown = stage.host.run("ip", "-d", "link", "show", "type", "vxlan")
        return "dstport 6677" in shown and "state DOWN" not in shown and "mn-vxlan" in shown

    deadline = time.monotonic() + 20
    while not is_there():
        assert time.monotonic() < deadline, "the device did not come back"
        await asyncio.sleep(0.02)
