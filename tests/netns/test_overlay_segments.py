"""Super-packets of every kind, with and without tags inside, through every kind of tunnel: what
comes out is what was sent, whole or in segments, with its tags and correct checksums."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

from midonet.demo.namespaces import Namespace
from midonet.model.hosts import TunnelKind
from midonet.packets.addresses import IpVersion
from midonet.packets.checksum import internet_checksum
from tests.contract.ebpf_harness import Tap
from tests.netns.entering import entered
from tests.netns.overlay_pair import Pair, connect, overlay_drops

SEGMENT, SEGMENTS = 1000, 6
NEEDS_CHECKSUM, GSO_TCPV4, GSO_UFO, GSO_TCPV6, GSO_UDP_L4 = 1, 1, 3, 4, 5
PAYLOAD = bytes(range(200)) * (SEGMENT * SEGMENTS // 200)


@dataclass(frozen=True)
class Kind:
    """What is inside. type: of the virtio header (linux/virtio_net.h)."""

    name: str
    is_ipv6: bool
    protocol: int
    type: int

    def ip(self) -> Packet:
        source, target = ("fd00::1", "fd00::2") if self.is_ipv6 else ("10.0.0.1", "10.0.0.2")
        return IPv6(src=source, dst=target) if self.is_ipv6 else IP(src=source, dst=target)

    def transport(self, number: int = 0) -> Packet:
        """Return the header of a segment."""
        if self.protocol == 17:
            return UDP(sport=5, dport=5004)
        return TCP(sport=5, dport=5004, seq=1 + number * SEGMENT, ack=1, flags="A")


KINDS = [
    Kind("tcp4", False, 6, GSO_TCPV4),
    Kind("tcp6", True, 6, GSO_TCPV6),
    Kind("udp4", False, 17, GSO_UDP_L4),
    Kind("udp6", True, 17, GSO_UDP_L4),
]
TAGS: dict[str, list[Packet]] = {
    "no tag": [],
    "a tag": [Dot1Q(vlan=9)],
    "a service tag": [Dot1AD(vlan=9)],
    "two tags": [Dot1AD(vlan=9), Dot1Q(vlan=8)],
}


def in_front(macs: tuple[str, str], tags: list[Packet]) -> Packet:
    packet: Packet = Ether(src=macs[0], dst=macs[1])
    for tag in tags:
        packet /= tag.copy()
    return packet


def super_packet(macs: tuple[str, str], kind: Kind, tags: list[Packet]) -> bytes:
    """Return a virtio header and a frame whose checksum and segmentation are left to do."""
    frame = bytearray(bytes(in_front(macs, tags) / kind.ip() / kind.transport() / Raw(PAYLOAD)))
    ip_at = 14 + 4 * len(tags)
    l4_at = ip_at + (40 if kind.is_ipv6 else 20)
    length = len(frame) - l4_at
    if kind.is_ipv6:
        pseudo = bytes(frame[ip_at + 8 : ip_at + 40]) + struct.pack("!II", length, kind.protocol)
    else:
        pseudo = bytes(frame[ip_at + 12 : ip_at + 20]) + struct.pack("!HH", kind.protocol, length)
    header, offset = (8, 6) if kind.protocol == 17 else (20, 16)
    partial = ~internet_checksum(pseudo) & 0xFFFF
    frame[l4_at + offset : l4_at + offset + 2] = partial.to_bytes(2, "big")
    offload = struct.pack(
        "=BBHHHH", NEEDS_CHECKSUM, kind.type, l4_at + header, SEGMENT, l4_at, offset
    )
    return offload + bytes(frame)


def expected_segments(macs: tuple[str, str], kind: Kind, tags: list[Packet]) -> Iterator[bytes]:
    for number in range(SEGMENTS):
        part = Raw(PAYLOAD[number * SEGMENT : (number + 1) * SEGMENT])
        yield bytes(in_front(macs, tags) / kind.ip() / kind.transport(number) / part)


def comparable(frame: bytes, kind: Kind, tags: list[Packet]) -> bytes:
    """Return a frame without what segmentation counts up: the IPv4 identifier and its checksum."""
    at = 14 + 4 * len(tags)
    if kind.is_ipv6:
        return frame
    return frame[: at + 4] + bytes(2) + frame[at + 6 : at + 10] + bytes(2) + frame[at + 12 :]


@pytest.mark.parametrize("tunnel", [TunnelKind.VXLAN, TunnelKind.GRE])
@pytest.mark.parametrize("version", list(IpVersion))
async def test_segments_are_those_that_the_sender_meant(
    pair: Pair, tunnel: TunnelKind, version: IpVersion
) -> None:
    """First the receiver's interface takes super-packets, then it takes no offload at all, so that
    the kernel must make every segment and checksum."""
    one, two = pair
    connect(one, two, tunnel, version)
    connect(two, one, tunnel, version)
    macs = ("02:00:00:00:00:01", "02:00:00:00:00:02")
    with ExitStack() as stack:
        out = tap_inside(one.container, stack)
        taken = tap_inside(two.container, stack)
        for kind, (words, tags) in product(KINDS, TAGS.items()):
            out.send_raw(super_packet(macs, kind, tags))
            size = len(next(expected_segments(macs, kind, tags))) - SEGMENT
            frames = taken.take(lambda found, size=size: len(payload(found, size)) >= len(PAYLOAD))
            assert payload(frames, size) == PAYLOAD, f"{kind.name}, {words}"
        two.host.run("ethtool", "-K", "p0", "tx", "off", "tso", "off", "gso", "off",
                     "tx-udp-segmentation", "off", "txvlan", "off")  # fmt: skip
        for kind, (words, tags) in product(KINDS, TAGS.items()):
            out.send_raw(super_packet(macs, kind, tags))
            frames = taken.take(lambda found: len(found) >= SEGMENTS)
            assert [comparable(frame, kind, tags) for frame in frames] == [
                comparable(frame, kind, tags) for frame in expected_segments(macs, kind, tags)
            ], f"{kind.name}, {words}, segment by segment"
    assert not overlay_drops(one) + overlay_drops(two)


def payload(frames: list[bytes], header_size: int) -> bytes:
    return b"".join(frame[header_size:] for frame in frames)


class RawTap(Tap):
    """A tap that sends what has its virtio header already."""

    def send_raw(self, frame: bytes) -> None:
        self._out.send(frame)

    def take(
        self, is_complete: Callable[[list[bytes]], bool], timeout_s: float = 10
    ) -> list[bytes]:
        """Return the frames of the test since the last call, once they are complete, or those
        that came in time."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = [frame for frame in self.read() if PAYLOAD[:100] in frame]
            if is_complete(found) or time.monotonic() > deadline:
                self.frames.clear()
                return found
            time.sleep(0.005)


def tap_inside(container: Namespace, stack: ExitStack) -> RawTap:
    with entered(container):
        tap = RawTap("eth0")
    stack.callback(tap.close)
    return tap
