"""Frames that nobody should send: noise, cut headers, headers that contradict themselves.

All is drawn from a seeded source, so a failure repeats.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

_TYPES = (0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8, 0x8847, 0x8863, 0x0000, 0x05DC, 0xFFFF)
_LARGEST = 1400


def noise(
    seed: int, count: int, destinations: list[bytes], sources: list[bytes]
) -> Iterator[bytes]:
    """Yield frames of random bytes behind plausible addresses and types."""
    source = random.Random(seed)
    for _ in range(count):
        size = source.choice((0, 1, 2, 19, 20, 39, 40, source.randrange(_LARGEST)))
        eth_type = source.choice((*_TYPES, source.getrandbits(16)))
        addresses = source.choice(destinations) + source.choice(sources)
        yield addresses + struct.pack("!H", eth_type) + source.randbytes(size)


def templates(destination: str, own: str) -> list[bytes]:
    """Return correct frames of many kinds."""
    ether = Ether(src=own, dst=destination)
    v4, v6 = IP(src="10.0.1.11", dst="10.0.2.13"), IPv6(src="fd00:0:1::11", dst="fd00:0:2::13")
    error = ICMP(type=3, code=4) / IP(src="10.0.2.13", dst="10.0.1.11") / UDP(sport=1, dport=2)
    packets: list[Packet] = [
        ether / v4 / TCP(sport=1, dport=2, flags="S", options=[("MSS", 1460), ("WScale", 7)]),
        ether / v4 / UDP(sport=1, dport=2) / Raw(b"x" * 100),
        ether / v4 / ICMP() / Raw(b"x" * 50),
        ether / v4 / error,
        ether
        / IP(src="10.0.1.11", dst="10.0.2.13", options=b"\x83\x07\x04\x0a\x00\x00\x01")
        / ICMP(),
        ether / IP(src="10.0.1.11", dst="10.0.2.13", flags="MF", frag=3) / UDP() / Raw(b"x" * 64),
        ether / v6 / TCP(sport=1, dport=2),
        ether / v6 / ICMPv6EchoRequest(data=b"x" * 50),
        ether / v6 / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(m=1) / UDP() / Raw(b"x" * 64),
        ether / v6 / IPv6ExtHdrRouting() / IPv6ExtHdrDestOpt() / UDP(),
        ether / v6 / ICMPv6ND_NS(tgt="fd00:0:1::1"),
        ether / ARP(op=1, psrc="10.0.1.11", pdst="10.0.1.1", hwsrc=own),
        ether / ARP(op=2, psrc="10.0.1.11", pdst="10.0.1.1", hwsrc=own),
        ether / Dot1Q(vlan=7) / Dot1Q(vlan=8) / v4 / UDP(),
    ]
    return [bytes(packet) for packet in packets]


def mutations(seed: int, count: int, originals: list[bytes]) -> Iterator[bytes]:
    """Yield correct frames with a few bytes changed, cut short, or lengthened.

    Link-layer addresses stay, so that most frames get beyond the first check. The sender's address
    in ARP stays: a machine that claims another's is believed, as on any segment.
    """
    source = random.Random(seed)
    for _ in range(count):
        original = source.choice(originals)
        frame = bytearray(original)
        for _ in range(source.randrange(4)):
            frame[source.randrange(12, len(frame))] = source.getrandbits(8)
        if original[12:14] == b"\x08\x06":
            frame[22:32] = original[22:32]
        if source.random() < 0.3:
            del frame[source.randrange(14, len(frame) + 1) :]
        elif source.random() < 0.1:
            frame += source.randbytes(source.randrange(200))
        yield bytes(frame)


def overlay_packets(
    seed: int, count: int, ether: bytes, addresses: tuple[bytes, bytes], keys: list[int]
) -> Iterator[bytes]:
    """Yield VXLAN and GRE packets over IPv4 with damage in every layer.

    addresses: source and destination of the outer header. keys: some of the tunnel keys.
    """
    source = random.Random(seed)
    for _ in range(count):
        key = source.choice((*keys, source.getrandbits(24)))
        inner = source.randbytes(source.choice((0, 1, 13, 14, 15, 34, 60, 200)))
        if source.random() < 0.5:
            flags = source.choice((0x0800_0000, 0x0800_0000, 0, source.getrandbits(32)))
            vxlan = struct.pack("!II", flags, key << 8 | source.getrandbits(8))
            udp = struct.pack("!HHHH", 50000, 6677, 16 + len(inner), 0)
            payload, protocol = udp + vxlan + inner, 17
        else:
            flags = source.choice((0x2000, 0x2000, 0xB000, 0, source.getrandbits(16)))
            gre = struct.pack("!HHI", flags, source.choice((0x6558, 0x6558, 0x0800)), key)
            payload, protocol = gre + inner, 47
        if source.random() < 0.3:
            payload = payload[: source.randrange(len(payload) + 1)]
        yield ether + ipv4(*addresses, protocol, payload)


def ipv4(source_ip: bytes, local_ip: bytes, protocol: int, payload: bytes) -> bytes:
    """Return an IPv4 packet."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
    head += source_ip + local_ip
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:] + payload
