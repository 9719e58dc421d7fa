"""Outer packets, right and wrong in every part, and inner frames that a host might fall for."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from midonet.model.hosts import TunnelKind
from midonet.packets.addresses import IpVersion
from midonet.packets.checksum import internet_checksum

UDP, GRE, HOP_BY_HOP, FRAGMENT, DESTINATION_OPTIONS = 17, 47, 0, 44, 60
VXLAN_PORT, SECRET_PORT = 6677, 7777
RED_KEY, BLUE_KEY, OTHER_KEY = 0x100, 0x200, 0x300
MARK = b"isolation of the overlay"
"""In every inner frame, so that witnesses know it."""

OTHER_MAC = bytes.fromhex("020000000099")
ANY = IpVersion.V4, IpVersion.V6
KINDS = TunnelKind.VXLAN, TunnelKind.GRE


@dataclass
class Ends:
    """Underlay addresses of one IP version, as bytes."""

    host: bytes
    peer: bytes
    stranger: bytes
    unhooked: bytes  # the host's at u9
    nowhere: bytes
    broadcast: bytes


def _ends(version: IpVersion) -> Ends:
    texts = (
        ("192.0.2.1", "192.0.2.2", "203.0.113.9", "198.51.100.1", "0.0.0.0", "192.0.2.255")
        if version is IpVersion.V4
        else ("2001:db8::1", "2001:db8::2", "2001:db8:3::9", "2001:db8:9::1", "::", "ff02::1")
    )
    family = socket.AF_INET if version is IpVersion.V4 else socket.AF_INET6
    return Ends(*(socket.inet_pton(family, text) for text in texts))


ENDS = {version: _ends(version) for version in ANY}


# Packets.


@dataclass
class Outer:
    """What surrounds an inner frame. None: as it should be."""

    kind: TunnelKind
    version: IpVersion
    source: bytes
    destination: bytes
    key: int = RED_KEY
    flags: int | None = None  # of the VXLAN or GRE header
    gre_fields: bytes = b""  # between the GRE header's first word and the key
    udp_length: int | None = None
    options: bytes = b""  # of IPv4
    extensions: tuple[tuple[int, bytes], ...] = ()  # of IPv6: (type, bytes without next header)
    ip_length: int | None = None
    fragment: int = 0  # of IPv4: flags and offset as on the wire

    def payload(self, inner: bytes) -> tuple[int, bytes]:
        """Return the protocol and what comes behind the IP header."""
        if self.kind is TunnelKind.GRE:
            flags = 0x2000 if self.flags is None else self.flags
            key = struct.pack("!I", self.key) if flags & 0x2000 else b""
            return GRE, struct.pack("!HH", flags, 0x6558) + self.gre_fields + key + inner
        flags = 0x0800_0000 if self.flags is None else self.flags
        length = 16 + len(inner) if self.udp_length is None else self.udp_length
        udp = struct.pack("!HHHH", 50000, VXLAN_PORT, length, 0)
        datagram = udp + struct.pack("!II", flags, self.key << 8) + inner
        if self.version is IpVersion.V6:  # stacks refuse zero, where the hook must take it
            pseudo = self.source + self.destination + struct.pack("!II", len(datagram), UDP)
            total = struct.pack("!H", internet_checksum(pseudo + datagram) or 0xFFFF)
            datagram = datagram[:6] + total + datagram[8:]
        return UDP, datagram

    def packet(self, inner: bytes) -> bytes:
        """Return the IP packet around a frame."""
        return self.around(*self.payload(inner))

    def around(self, protocol: int, payload: bytes) -> bytes:
        """Return the IP packet around a payload."""
        if self.version is IpVersion.V4:
            size = 20 + len(self.options)
            length = size + len(payload) if self.ip_length is None else self.ip_length
            head = struct.pack(
                "!BBHHHBBH", 0x40 | size // 4, 0, length, 7, self.fragment, 64, protocol, 0
            )
            head += self.source + self.destination + self.options
            total = struct.pack("!H", internet_checksum(head))
            return head[:10] + total + head[12:] + payload
        chain, first = b"", protocol
        for header, body in reversed(self.extensions):
            chain, first = bytes((first,)) + body + chain, header
        length = len(chain + payload) if self.ip_length is None else self.ip_length - 40
        head = struct.pack("!IHBB", 6 << 28, length, first, 64)
        return head + self.source + self.destination + chain + payload


def ipv4_udp(source: bytes, destination: bytes, port: int) -> bytes:
    payload = struct.pack("!HHHH", 9, port, 8 + len(MARK), 0) + MARK
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, UDP, 0)
    head += source + destination
    return head[:10] + struct.pack("!H", internet_checksum(head)) + head[12:] + payload


def router_advertisement(mac: bytes) -> bytes:
    """Return a frame that would make its sender the default router (RFC 4861 section 4.2)."""
    source = socket.inet_pton(socket.AF_INET6, "fe80::bad")
    group = socket.inet_pton(socket.AF_INET6, "ff02::1")
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    pseudo = source + group + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", internet_checksum(pseudo + body)) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + group
    return bytes.fromhex("333300000001") + mac + b"\x86\xdd" + head + body


def fragments(outer: Outer, inner: bytes) -> list[tuple[bytes, bytes]]:
    """Return pairs of fragments: cut as early as can be, and in the middle of the frame."""
    protocol, payload = outer.payload(inner)
    made = []
    for at in (8, len(payload) // 2 & ~7):
        pair = []
        for offset, part, more in ((0, payload[:at], 1), (at, payload[at:], 0)):
            if outer.version is IpVersion.V4:
                outer.fragment = more << 13 | offset // 8
            else:
                outer.extensions = ((FRAGMENT, struct.pack("!BHI", 0, offset | more, at)),)
            pair.append(outer.around(protocol, part))
        made.append((pair[0], pair[1]))
    return made
