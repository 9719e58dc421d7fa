"""VMs on taps: frames and super-packets cross from one hypervisor's tap to another's."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from midonet.model.hosts import TunnelKind
from midonet.packets.checksum import pseudo_header_sum
from midonet.packets.frame import parse_frame
from tests.netns.entering import packet_socket
from tests.netns.labs import Network, lab, mac_bytes, show, until
from tests.netns.taps import GSO_NONE, GSO_TCPV4, GSO_TCPV6, Tap

pytestmark = pytest.mark.timeout(400)

LEFT_MAC, RIGHT_MAC, NEAR_MAC = "02:00:00:00:0a:01", "02:00:00:00:0a:02", "02:00:00:00:0a:03"
SEGMENT = 1300
SUPER = SEGMENT * 40


@dataclass(slots=True)
class Wire:
    """left and near on one host, right on another, on one bridge."""

    network: Network
    left: Tap
    near: Tap
    right: Tap


@pytest.fixture(scope="module")
def wire(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    with lab(f"{prefix}v", tmp_path_factory.mktemp("taps")) as made:
        network = Network(made)
        network.use_zone(TunnelKind.VXLAN)
        segment = network.make_tenant("red").segments[1]
        first, second = made.hosts
        with (
            Tap(first.namespace, "vm-left") as left,
            Tap(first.namespace, "vm-near") as near,
            Tap(second.namespace, "vm-right") as right,
        ):
            network.bind(first, segment, left.name)
            network.bind(first, segment, near.name)
            network.bind(second, segment, right.name)
            network.wait_active()
            yield Wire(network, left, near, right)
        network.close()


def tcp(version: int, payload: bytes, *, is_reverse: bool = False, flags: str = "A") -> Ether:
    """Return a segment with all checksums."""
    macs = (LEFT_MAC, RIGHT_MAC)
    ends = ("10.0.1.51", "10.0.1.52") if version == 4 else ("fd00:0:1::51", "fd00:0:1::52")
    if is_reverse:
        macs, ends = macs[::-1], ends[::-1]
    network = IP if version == 4 else IPv6
    return (
        Ether(src=macs[0], dst=macs[1])
        / network(src=ends[0], dst=ends[1])
        / TCP(sport=1000, dport=2000, flags=flags)
        / Raw(payload)
    )


def taken(tap: Tap, wanted: Callable[[bytes], bool]) -> tuple[tuple[int, ...], bytes] | None:
    """Return the next frame that is wanted; None when it does not come."""
    while (found := tap.receive()) is not None:
        if wanted(found[1]):
            return found
    return None


def is_stream(frame: bytes) -> bool:
    return struct.pack("!HH", 1000, 2000) in frame[34:60]


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def version(request: pytest.FixtureRequest, wire: Wire) -> int:
    """The IP version; both machines have been heard of, and the programs are there."""
    number = int(request.param)

    def both_ways() -> bool:
        warm = bytes(tcp(number, b"warm", flags="S"))
        wire.left.send(warm)
        wire.left.send(mac_bytes(NEAR_MAC) + warm[6:])
        wire.near.send(warm[:6] + mac_bytes(NEAR_MAC) + warm[12:])
        wire.right.send(bytes(tcp(number, b"warm", flags="SA", is_reverse=True)))
        return all(taken(tap, is_stream) is not None for tap in (wire.right, wire.near))

    until(both_ways, "frames across")
    for tap in (wire.right, wire.near):
        while tap.receive(0.3) is not None:
            pass
    return number


def test_frames_cross_unchanged(wire: Wire, version: int) -> None:
    for size in (1, 100, SEGMENT):
        frame = bytes(tcp(version, b"x" * size))
        wire.left.send(frame)
        found = taken(wire.right, is_stream)
        assert found is not None
        assert found[1] == frame


def partial(version: int, payload: bytes) -> tuple[bytes, int]:
    """Return a frame with the pseudo-header's sum in place of the checksum, and its L4 offset."""
    packet = tcp(version, payload)
    layer = packet[IP] if version == 4 else packet[IPv6]
    key = parse_frame(bytes(tcp(version, b""))).key
    packet[TCP].chksum = pseudo_header_sum(key.ip_src, key.ip_dst, 6, 20 + len(payload)) % 0xFFFF
    return bytes(packet), 14 + len(bytes(layer)) - len(bytes(layer.payload))


def test_checksums_that_were_left_to_the_device(wire: Wire, version: int) -> None:
    payload = bytes(SEGMENT)
    frame, l4_offset = partial(version, payload)
    wire.left.send_tcp(frame, l4_offset=l4_offset, gso_type=GSO_NONE, gso_size=0)
    found = taken(wire.right, is_stream)
    assert found is not None
    (flags, *_), received = found
    assert received[l4_offset + 20 :] == payload
    assert flags & 1 or checksum_holds(version, received)


@pytest.mark.parametrize("side", ["near", "right"])
def test_super_packets_cross_whole(wire: Wire, version: int, side: str) -> None:
    """To a tap of the same host, and to one of another.

    There the kernel may take it apart at the last tap, because a packet that came out of a tunnel
    still bears the tunnel's mark among its segmentation types, and a tap's driver does not take
    that. On the way it is one packet.
    """
    payload = b"".join(number.to_bytes(4) for number in range(SUPER // 4))
    frame, l4_offset = partial(version, payload)
    receiver, gso_type = wire.right, GSO_TCPV4 if version == 4 else GSO_TCPV6
    if side == "near":
        receiver, frame = wire.near, mac_bytes(NEAR_MAC) + frame[6:]
    with packet_socket(wire.network.lab.fabric, "h1") as underlay:
        wire.left.send_tcp(frame, l4_offset=l4_offset, gso_type=gso_type, gso_size=SEGMENT)
        received, headers = b"", []
        while len(received) < SUPER:
            found = taken(receiver, is_stream)
            assert found is not None, f"{len(received)} bytes arrived"
            headers.append(found[0])
            received += found[1][l4_offset + 20 :]
        if side == "right":
            assert until_longer(underlay, SUPER), "taken apart before the underlay"
    show(f"{side}: {len(headers)} packets, first header {headers[0]}")
    assert received == payload
    if side == "near":
        ((flags, kind, _, segment, start, _),) = headers
        assert (flags, kind, segment, start) == (1, gso_type, SEGMENT, l4_offset)


def until_longer(taken: socket.socket, size: int) -> bool:
    """Tell whether one of the packets of a socket is longer."""
    room = bytearray(64)
    try:
        while taken.recvfrom_into(room, 64, socket.MSG_TRUNC)[0] <= size:
            pass
    except TimeoutError:
        return False
    return True


def checksum_holds(version: int, frame: bytes) -> bool:
    """Tell whether the TCP checksum of a frame is right."""
    packet = Ether(frame)
    given = packet[TCP].chksum
    del packet[TCP].chksum
    return bool(Ether(bytes(packet))[TCP].chksum == given)
