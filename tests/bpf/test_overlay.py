"""Outer headers that the kernel adds and removes, against `packets.overlay`."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from midonet.agent.datapath.ebpf import abi, codec
from midonet.agent.datapath.ebpf.loader import LoadedObject
from midonet.agent.datapath.ebpf.syscalls import BpfMap, run_program
from midonet.agent.flows.drop_reason import DropReason
from midonet.packets.addresses import IpAddress, parse_ip
from midonet.packets.overlay import decapsulate, encapsulate_gre, encapsulate_vxlan

ZERO = bytes(4)
TUNNEL_OFFSET = 144
KIND_OFFSET = 144 + abi.TUNNEL.size
KEY = 0x123456
VXLAN_PORT = 6677
REDIRECT = 7
SHOT, UNSPEC = 2, -1
IPV4 = (parse_ip("192.0.2.1"), parse_ip("192.0.2.2"))
IPV6 = (parse_ip("2001:db8::1"), parse_ip("2001:db8::2"))
LOCAL_IFINDEX = 1

INNER = [
    pytest.param(Ether() / IP(dst="10.0.0.1") / TCP() / Raw(b"x" * 50), id="tcp"),
    pytest.param(Ether() / Dot1Q(vlan=9) / IP(dst="10.0.0.1") / TCP(), id="tagged"),
    pytest.param(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(psrc="10.0.0.1"), id="arp"),
    pytest.param(Ether(type=0x9999) / Raw(b"x" * 46), id="other"),
]
ENDS = [pytest.param(IPV4, id="ipv4"), pytest.param(IPV6, id="ipv6")]
KINDS = [abi.OutputKind.VXLAN, abi.OutputKind.GRE]


def configure(loaded: LoadedObject) -> None:
    loaded.maps["config"].update(
        ZERO,
        abi.CONFIG.pack(
            abi_version=abi.ABI_VERSION,
            vxlan_port=VXLAN_PORT.to_bytes(2, "big"),
            statistics_width=1,
        ),
    )


def tunnel(ends: tuple[IpAddress, IpAddress]) -> bytes:
    return abi.TUNNEL.pack(
        local=codec.pack_ip(ends[0]),
        remote=codec.pack_ip(ends[1]),
        family=ends[0].version,
        ifindex=LOCAL_IFINDEX,
    )


SENT_TO = b"\2\0\0\0\0\0"
"""Link-layer destination of what is sent, until the kernel resolves the neighbour."""


def outer(
    ends: tuple[IpAddress, IpAddress], kind: abi.OutputKind, inner: bytes, mac: bytes = SENT_TO
) -> bytes:
    """Return the frame on the underlay that Python makes. mac: link-layer destination."""
    if kind is abi.OutputKind.GRE:
        packet = encapsulate_gre(inner, key=KEY, local=ends[0], remote=ends[1])
    else:
        packet = encapsulate_vxlan(
            inner,
            key=KEY,
            local=ends[0],
            remote=ends[1],
            source_port=0xC000,
            udp_port=VXLAN_PORT,
        )
    eth_type = b"\x08\x00" if ends[0].version == 4 else b"\x86\xdd"
    return mac + b"\2\0\0\0\0\0" + eth_type + packet


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("inner", INNER)
def test_encapsulated_bytes_equal_those_of_python(
    probe: LoadedObject, inner: Packet, ends: tuple[IpAddress, IpAddress], kind: abi.OutputKind
) -> None:
    frame = bytes(inner)
    configure(probe)
    room = bytearray(160 + abi.TUNNEL.size)
    room[TUNNEL_OFFSET:KIND_OFFSET] = tunnel(ends)
    room[KIND_OFFSET : KIND_OFFSET + 8] = kind.to_bytes(4, "little") + KEY.to_bytes(4, "little")
    probe.maps["probe"].update(ZERO, bytes(room))
    ran = run_program(probe.programs["probe_encapsulate"], frame)
    assert ran.verdict == 0
    opened = decapsulate(ran.frame[14:], VXLAN_PORT)
    assert opened.inner == frame
    assert (opened.source, opened.destination) == ends
    assert opened.tunnel_key == KEY
    ip_size = 20 if ends[0].version == 4 else 40
    port = slice(14 + ip_size, 16 + ip_size) if kind is abi.OutputKind.VXLAN else slice(0)
    expected = bytearray(outer(ends, kind, frame))
    expected[port] = ran.frame[port]
    assert ran.frame == bytes(expected)


@pytest.fixture
def host(program: LoadedObject) -> LoadedObject:
    """A host with both underlay addresses, one peer, and one port behind KEY."""
    configure(program)
    for local, remote in (IPV4, IPV6):
        own = {"local": codec.pack_ip(local), "family": local.version}
        for key in (
            abi.PEER_KEY.pack(**own, remote=codec.pack_ip(remote), role=abi.PeerRole.SENDER),
            abi.PEER_KEY.pack(**own, role=abi.PeerRole.OWN),
        ):
            program.maps["peers"].update(key, abi.PEER.pack())
    program.maps["ports"].update(
        (1).to_bytes(4, "little"),
        abi.PORT.pack(
            flags=abi.PortFlag.ATTACHED | abi.PortFlag.IN_USE, ifindex=LOCAL_IFINDEX, incarnation=5
        ),
    )
    program.maps["deliveries"].update(
        (1).to_bytes(4, "little"),
        abi.DELIVERY.pack(sequence=2, tunnel_key=KEY, port=1, incarnation=5),
    )
    program.maps["tunnel_keys"].update(KEY.to_bytes(4, "little"), (1).to_bytes(4, "little"))
    return program


def overlay_drops(drops: BpfMap) -> dict[DropReason, int]:
    found = {}
    for reason in DropReason:
        value = drops.get(int(reason).to_bytes(4, "little"))
        assert value is not None
        if any(value):
            found[reason] = int.from_bytes(value, "little")
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("inner", INNER)
def test_delivered_bytes_are_the_inner_frame(
    host: LoadedObject, inner: Packet, ends: tuple[IpAddress, IpAddress], kind: abi.OutputKind
) -> None:
    frame = bytes(inner)
    received = outer((ends[1], ends[0]), kind, frame, mac=bytes(6))
    ran = run_program(host.programs["midonet_underlay"], received)
    assert ran.verdict == REDIRECT
    assert ran.frame == frame
    assert overlay_drops(host.maps["drops"]) == {}


def received_from(source: str, *, destination: str = "192.0.2.1", port: int = VXLAN_PORT) -> bytes:
    packet = encapsulate_vxlan(
        bytes(Ether() / IP(dst="10.0.0.1") / TCP()),
        key=KEY,
        local=parse_ip(source),
        remote=parse_ip(destination),
        source_port=0xC000,
        udp_port=port,
    )
    return bytes(12) + b"\x08\x00" + packet


def test_overlay_packets_of_strangers_are_dropped(host: LoadedObject) -> None:
    ran = run_program(host.programs["midonet_underlay"], received_from("192.0.2.66"))
    assert ran.verdict == SHOT
    assert overlay_drops(host.maps["drops"]) == {DropReason.UNKNOWN_PEER: 1}


@pytest.mark.parametrize(
    "frame",
    [
        received_from("192.0.2.2", port=4789),
        received_from("192.0.2.2", destination="192.0.2.77"),
        bytes(Ether() / IP(src="192.0.2.2", dst="192.0.2.1") / TCP()),
        bytes(Ether() / ARP()),
        bytes(Ether() / IP(src="192.0.2.2", dst="192.0.2.1", proto=47) / Raw(b"\0\0\x08\0")),
    ],
    ids=["other-port", "other-address", "tcp", "arp", "plain-gre"],
)
def test_what_is_not_overlay_goes_to_the_host(host: LoadedObject, frame: bytes) -> None:
    assert run_program(host.programs["midonet_underlay"], frame).verdict == UNSPEC
    assert overlay_drops(host.maps["drops"]) == {}


def test_unknown_keys_and_broken_headers_are_dropped_by_name(host: LoadedObject) -> None:
    good = received_from("192.0.2.2")
    unknown = good[:46] + b"\0\0\1\0" + good[50:]
    invalid = good[:42] + b"\0\0\0\0" + good[46:]
    short = good[:60]
    for frame in (unknown, invalid, short):
        assert run_program(host.programs["midonet_underlay"], frame).verdict == SHOT
    assert overlay_drops(host.maps["drops"]) == {
        DropReason.UNKNOWN_TUNNEL_KEY: 1,
        DropReason.OVERLAY_MALFORMED: 2,
    }


def test_delivery_to_a_slot_that_has_passed_to_another_port_is_dropped(host: LoadedObject) -> None:
    host.maps["ports"].update(
        (1).to_bytes(4, "little"),
        abi.PORT.pack(flags=abi.PortFlag.ATTACHED, ifindex=LOCAL_IFINDEX, incarnation=6),
    )
    ran = run_program(host.programs["midonet_underlay"], received_from("192.0.2.2"))
    assert ran.verdict == SHOT
    assert overlay_drops(host.maps["drops"]) == {DropReason.PORT_NOT_ATTACHED: 1}
