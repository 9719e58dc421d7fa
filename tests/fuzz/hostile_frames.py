"""Frames for soaks: correct ones of every kind, the same with damage, and noise.

All is drawn from the given source of random numbers, so that a seed repeats a run.
"""

from __future__ import annotations

import struct
from random import Random

from midonet.packets.addresses import IpAddress, IpVersion, format_mac, parse_ip
from midonet.packets.build import Envelope, icmpv6_frame, ip_frame
from tests.differential.packets import (
    GROUP_MACS,
    HOST_MACS,
    ODD_ADDRESSES,
    ROUTER_MACS,
    PacketSource,
    host_address,
)
from tests.scenario.dhcp_messages import (
    SERVER_DUID,
    from_client,
    from_client6,
    option6,
    reframed,
)

CORRECT = 2500
"""How many correct frames a source begins with."""

_TYPES = (0x0800, 0x86DD, 0x0806, 0x8100, 0x88A8, 0x9100, 0x8847, 0x0000, 0x05DC, 0xFFFF)
_EDGES = (0, 1, 2, 5, 7, 8, 0x0F, 0x45, 0x4F, 0x50, 0xF0, 0x7F, 0x80, 0xFE, 0xFF)
_LINK_MACS = tuple(0x0180_C200_0000 | last for last in (0, 1, 2, 3, 0x0E))
_NEXT_HEADERS = (0, 6, 17, 41, 43, 44, 50, 51, 58, 59, 60, 132, 135, 139, 255)
_DHCP_OPTIONS = (12, 50, 50, 52, 53, 54, 55, 55, 57, 57, 82, 255)
_ND_TYPES = (133, 134, 135, 136, 137)


class FrameSource:
    """Draws frames of at least 14 bytes that a machine may send."""

    def __init__(self, random: Random) -> None:
        self._random = random
        source = PacketSource(random)
        gateways = (*ROUTER_MACS, *HOST_MACS[:2])
        self._correct = [source.draw(gateways).frame() for _ in range(CORRECT)]
        makers = (self._special, self._segment, self._discovery, self._extended, self._lease)
        self._correct += [make() for make in makers for _ in range(CORRECT // 10)]

    def draw(self) -> bytes:
        """Return a frame."""
        kind = self._random.random()
        if kind < 0.35:
            return self._random.choice(self._correct)
        if kind < 0.9:
            return self._damaged(self._random.choice(self._correct))
        return self._noise()

    def _noise(self) -> bytes:
        random = self._random
        head = self._mac() + self._mac() + struct.pack("!H", random.choice(_TYPES))
        return head + random.randbytes(random.choice((0, 1, 19, 20, 39, 40, 60, 200)))

    def _mac(self) -> bytes:
        random = self._random
        pool = random.choice((HOST_MACS, ROUTER_MACS, GROUP_MACS, _LINK_MACS))
        mac = random.getrandbits(48) if random.random() < 0.1 else random.choice(pool)
        return mac.to_bytes(6, "big")

    def _damaged(self, correct: bytes) -> bytes:
        """Return a frame with a few fields overwritten, tags put in, cut or lengthened."""
        random = self._random
        frame = bytearray(correct)
        for _ in range(random.choice((1, 1, 2, 3, 6))):
            place = random.randrange(min(len(frame), 94))
            frame[place] = random.choice(_EDGES) if random.random() < 0.5 else random.getrandbits(8)
        kind = random.random()
        if kind < 0.15:
            for _ in range(random.choice((1, 1, 2, 3))):
                tpid = random.choice((0x8100, 0x8100, 0x88A8, 0x9100))
                vlan = random.choice((0, 0, 1, 10, 20, 4095))
                frame[12:12] = struct.pack("!HH", tpid, random.choice((0, 0xE000)) | vlan)
        elif kind < 0.25:
            del frame[random.randrange(14, len(frame) + 1) :]
        elif kind < 0.3:
            frame += random.randbytes(random.randrange(100))
        elif kind < 0.4:
            frame[0:6] = self._mac()
        return bytes(frame)

    # Correct, and rare.

    def _envelope(self, version: IpVersion) -> Envelope:
        random = self._random
        source, destination = self._address(version), self._address(version)
        eth_dst = random.choice((*ROUTER_MACS, *HOST_MACS, *GROUP_MACS))
        ttl = random.choice((0, 1, 2, 64, 255, 255))
        return Envelope(random.choice(HOST_MACS), eth_dst, source, destination, ttl=ttl)

    def _address(self, version: IpVersion) -> IpAddress:
        random = self._random
        if random.random() < 0.3:
            return parse_ip(random.choice(ODD_ADDRESSES[version]))
        return host_address(version, random.randrange(4), random.randrange(7))

    def _special(self) -> bytes:
        """Return a packet to or from addresses that mean something."""
        version = self._random.choice(tuple(IpVersion))
        protocol = self._random.choice(_NEXT_HEADERS)
        return ip_frame(self._envelope(version), protocol, self._random.randbytes(40))

    def _segment(self) -> bytes:
        """Return a TCP segment with any data offset and flags, and fewer options than it says."""
        random = self._random
        ports = random.choice((0, 22, 80, 4000)), random.choice((0, 22, 80, 4000))
        offset = random.randrange(16) << 4
        head = struct.pack("!HHIIBBHHH", *ports, 1, 2, offset, random.getrandbits(8), 9, 0, 0)
        version = random.choice(tuple(IpVersion))
        return ip_frame(self._envelope(version), 6, head + bytes(random.choice((0, 4, 20, 40))))

    def _discovery(self) -> bytes:
        """Return a message of neighbour discovery with any flags and options of any length."""
        random = self._random
        target = self._address(IpVersion.V6).value
        kind = random.choice(_ND_TYPES)
        flags = random.choice((0, 0x20, 0x40, 0x60, 0x80, 0xE0))
        body = bytearray((kind, 0, 0, 0, flags, 0, 0, 0)) + target.to_bytes(16, "big")
        for _ in range(random.randrange(4)):
            length = random.choice((0, 1, 1, 1, 2, 255))
            option = bytes((random.choice((1, 1, 2, 2, 3, 5, 14, 25)), length))
            body += option + self._mac() + bytes(8 * max(0, min(length, 3) - 1))
        return icmpv6_frame(self._envelope(IpVersion.V6), bytes(body))

    def _lease(self) -> bytes:
        """Return a DHCP or DHCPv6 message with any options, perhaps of lying lengths."""
        random = self._random
        source = format_mac(random.choice(HOST_MACS))
        if random.random() < 0.5:
            options = tuple(self._option(random.choice(_DHCP_OPTIONS)) for _ in range(3))
            fields = {"ciaddr": random.choice(("0.0.0.0", "10.0.0.3")),
                      "giaddr": random.choice(("0.0.0.0", "0.0.0.0", "10.0.7.1")),
                      "flags": random.choice((0, 0x8000)),
                      "hlen": random.choice((6, 6, 6, 0, 16, 255))}  # fmt: skip
            frame = from_client(random.choice((1, 1, 3, 3, 4, 7, 8, 9)), source, *options, **fields)
        else:
            inner = [option6(random.choice((5, 13)), random.randbytes(random.choice((2, 24))))]
            head = random.randbytes(random.choice((4, 12, 12, 12)))
            codes = random.choice((3, 4, 25)), random.choice((1, 2, 6, 7, 14, 23))
            options6 = (option6(codes[0], head + b"".join(inner)), option6(codes[1], SERVER_DUID))
            kind = random.choice((1, 1, 3, 4, 5, 6, 8, 9, 11, 12))
            frame = from_client6(kind, source, "fe80::a", *options6)
        cut = len(frame) if random.random() < 0.7 else random.randrange(60, len(frame))
        # Lengths are set right again, so that it is the message itself that ends too soon.
        return reframed(frame[:cut])

    def _option(self, code: int) -> tuple[int, bytes]:
        return code, self._random.randbytes(self._random.choice((0, 1, 1, 2, 4, 4, 255)))

    def _extended(self) -> bytes:
        """Return an IPv6 packet with a chain of extension headers."""
        random = self._random
        kinds = [random.choice((0, 43, 44, 60)) for _ in range(random.randrange(1, 8))]
        last = random.choice((6, 17, 58, 59))
        payload = b""
        for following in [*kinds[1:], last]:
            payload += struct.pack("!BB", following, random.choice((0, 0, 0, 1)))
            payload += random.choice((bytes(6), struct.pack("!HI", random.getrandbits(16), 7)))
        payload += random.randbytes(40)
        return ip_frame(self._envelope(IpVersion.V6), kinds[0], payload)
