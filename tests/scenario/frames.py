"""Frames of the scenarios, sent and expected, each built from nothing.

Expected frames are written out, never made by changing the one that was sent: what the product
rewrites is compared with what a sender would have built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from midonet.packets.addresses import IpAddress, IpVersion, parse_ip, parse_mac
from midonet.packets.build import (
    Envelope,
    ethernet_frame,
    icmp_frame,
    ip_frame,
    tcp_frame,
    udp_frame,
)
from midonet.packets.checksum import transport_checksum
from midonet.packets.ethernet import EthernetHeader
from midonet.packets.icmpv4 import Icmpv4Header
from midonet.packets.icmpv6 import Icmpv6Header
from midonet.packets.ipv4 import Ipv4Header
from midonet.packets.ipv6 import FragmentHeader, Ipv6Header
from midonet.packets.tcp import TcpFlag, TcpHeader

A = "02:aa:00:00:00:01"
B = "02:aa:00:00:00:02"
C = "02:aa:00:00:00:03"
R1 = "02:bb:00:00:00:01"
R2 = "02:bb:00:00:00:02"
R3 = "02:bb:00:00:00:03"
R4 = "02:bb:00:00:00:04"
EVERYONE = "ff:ff:ff:ff:ff:ff"
UDP = 17
TCP = 6


@dataclass(frozen=True)
class Family:
    """One IP version, with the same plan of addresses in both."""

    version: IpVersion

    def host(self, network: int, host: int) -> str:
        """Return the address of a host on a network; the router is host 1."""
        if self.version is IpVersion.V4:
            return f"10.0.{network}.{host}"
        return f"fd00:{network}::{host}"

    def router(self, network: int) -> str:
        """Return the address of the router with the length of the network."""
        return f"{self.host(network, 1)}/{24 if self.version is IpVersion.V4 else 64}"

    @property
    def everywhere(self) -> str:
        """The default route's destination."""
        return "0.0.0.0/0" if self.version is IpVersion.V4 else "::/0"

    def __str__(self) -> str:
        return f"IPv{int(self.version)}"


V4, V6 = Family(IpVersion.V4), Family(IpVersion.V6)
FAMILIES = (V4, V6)


def mac(text: str) -> int:
    return parse_mac(text)


def _envelope(
    route: tuple[str, str],
    macs: tuple[str, str],
    *,
    vlan: int | None = None,
    ttl: int = 64,
    tos: int = 0,
    df: bool = False,
    identification: int = 0,
    flow_label: int = 0,
) -> Envelope:
    return Envelope(
        parse_mac(macs[0]),
        parse_mac(macs[1]),
        parse_ip(route[0]),
        parse_ip(route[1]),
        vlan,
        ttl,
        tos,
        df,
        identification,
        flow_label,
    )


def udp(
    route: tuple[str, str],
    macs: tuple[str, str] = (A, B),
    *,
    ports: tuple[int, int] = (4000, 5000),
    size: int = 8,
    **link: Any,
) -> bytes:
    """Return a datagram. route: addresses; macs: source and destination."""
    return udp_frame(_envelope(route, macs, **link), *ports, bytes(size))


def other_protocol(
    route: tuple[str, str], macs: tuple[str, str] = (A, B), *, protocol: int = 47, **link: Any
) -> bytes:
    """Return a packet of a protocol without ports."""
    return ip_frame(_envelope(route, macs, **link), protocol, bytes(range(40)))


def tcp(
    route: tuple[str, str],
    macs: tuple[str, str] = (A, B),
    *,
    ports: tuple[int, int] = (4000, 80),
    flags: TcpFlag = TcpFlag.SYN,
    sequence: int = 7,
    acknowledgment: int = 9,
    window: int = 65535,
    **link: Any,
) -> bytes:
    """Return a segment without data."""
    header = TcpHeader(*ports, sequence, acknowledgment, flags, window)
    return tcp_frame(_envelope(route, macs, **link), header)


def icmp(
    route: tuple[str, str],
    macs: tuple[str, str],
    kind: int,
    code: int = 0,
    *,
    rest: int = 0,
    payload: bytes = b"",
    **link: Any,
) -> bytes:
    """Return an ICMP or ICMPv6 message."""
    envelope = _envelope(route, macs, **link)
    header: Icmpv4Header | Icmpv6Header
    header = Icmpv6Header(kind, code, rest) if envelope.is_ipv6 else Icmpv4Header(kind, code, rest)
    return icmp_frame(envelope, header, payload)


def echo(
    route: tuple[str, str], macs: tuple[str, str], *, reply: bool = False, **link: Any
) -> bytes:
    """Return an echo request or reply."""
    kinds = (129, 128) if ":" in route[0] else (0, 8)
    return icmp(route, macs, kinds[not reply], rest=1 << 16 | 1, payload=b"payload!", **link)


ERRORS = {
    "no route": ((3, 0), (1, 0)),
    "unreachable": ((3, 1), (1, 3)),
    "port unreachable": ((3, 3), (1, 4)),
    "too big": ((3, 4), (2, 0)),
    "prohibited": ((3, 13), (1, 1)),
    "time exceeded": ((11, 0), (3, 0)),
}
"""Type and code of an error over IPv4 and over IPv6."""


def error(
    name: str, route: tuple[str, str], macs: tuple[str, str], about: bytes, *, mtu: int = 0
) -> bytes:
    """Return an error that quotes the packet in the frame `about`, as much as may be.

    It has DF, identification, flow label and DSCP of that packet, but for IPv4's own TOS.
    """
    is_v6 = ":" in route[0]
    kind, code = ERRORS[name][is_v6]
    start = 18 if about[12:14] == b"\x81\x00" else 14
    quote = about[start : start + (1280 - 48 if is_v6 else 576 - 28)]
    link: dict[str, Any] = {"vlan": int.from_bytes(about[14:16], "big")} if start == 18 else {}
    if is_v6:
        word = int.from_bytes(quote[:4], "big")
        link |= {"tos": word >> 20 & 0xFC, "flow_label": word & 0xF_FFFF}
    else:
        word = int.from_bytes(quote[4:8], "big")
        link |= {"tos": 0xC0, "df": bool(word & 0x4000), "identification": word >> 16}
    return icmp(route, macs, kind, code, rest=mtu, payload=quote, **link)


def fragment(
    route: tuple[str, str],
    macs: tuple[str, str] = (A, B),
    *,
    first: bool,
    ports: tuple[int, int] = (4000, 5000),
    ttl: int = 64,
    offset: int = 40,
) -> bytes:
    """Return the first, or a later, fragment of a UDP datagram of 80 bytes, checksum included."""
    source, destination = (parse_ip(text).value for text in route)
    words = b"".join(port.to_bytes(2, "big") for port in ports)
    datagram = bytearray(words + (80).to_bytes(2, "big") + bytes(74))
    datagram[6:8] = transport_checksum(datagram, source, destination, UDP).to_bytes(2, "big")
    payload = bytes(datagram[:40]) if first else bytes(40)
    link = (parse_mac(macs[1]), parse_mac(macs[0]))
    if ":" not in route[0]:
        header = Ipv4Header(
            source, destination, UDP, 20 + len(payload), more_fragments=first,
            fragment_offset=0 if first else offset, identification=5, ttl=ttl,
        ).serialise()  # fmt: skip
        return EthernetHeader(*link, 0x0800).serialise() + header + payload
    extension = FragmentHeader(UDP, 0 if first else offset, first, 5).serialise()
    header = Ipv6Header(source, destination, 44, len(extension) + len(payload), ttl).serialise()
    return EthernetHeader(*link, 0x86DD).serialise() + header + extension + payload


def piece(whole: bytes, start: int, end: int | None, *, ttl: int, macs: tuple[str, str]) -> bytes:
    """Return the fragment that carries those bytes of the payload of an untagged IPv4 frame."""
    header = Ipv4Header.parse(whole, 14)
    payload = whole[34:][start:end]
    fragmented = Ipv4Header(
        header.source, header.destination, header.protocol, 20 + len(payload),
        more_fragments=end is not None, fragment_offset=start, ttl=ttl,
    )  # fmt: skip
    link = EthernetHeader(parse_mac(macs[1]), parse_mac(macs[0]), 0x0800).serialise()
    return link + fragmented.serialise() + payload


def raw(
    eth_type: int, macs: tuple[str, str] = (A, B), *, size: int = 46, vlan: int | None = None
) -> bytes:
    """Return a frame of some other protocol."""
    return ethernet_frame(
        parse_mac(macs[1]), parse_mac(macs[0]), eth_type, bytes(size), vlan_tci=vlan
    )


def retagged(frame: bytes, vlan: int) -> bytes:
    """Return an untagged frame with a tag."""
    return frame[:12] + b"\x81\x00" + vlan.to_bytes(2, "big") + frame[12:]


def aged(frame: bytes, hops: int, family: Family) -> bytes:
    """Return an untagged frame as it is after some hops."""
    if not hops:
        return frame
    if family is V6:
        return frame[:21] + bytes((frame[21] - hops,)) + frame[22:]
    header = bytearray(frame[14:34])
    header[8] -= hops
    header[10:12] = b"\0\0"
    total = sum(int.from_bytes(header[i : i + 2], "big") for i in range(0, 20, 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    header[10:12] = (0xFFFF ^ total).to_bytes(2, "big")
    return frame[:14] + bytes(header) + frame[34:]


def address(text: str) -> IpAddress:
    return parse_ip(text)
