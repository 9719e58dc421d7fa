"""Overlay packets: an inner Ethernet frame in VXLAN or keyed GRE, over IPv4 or IPv6.

The outer packet is an IP packet without a link header. It carries DF, TTL 64 and, for VXLAN, a
zero UDP checksum: on IPv6 that is allowed for tunnels by RFC 6935, and the inner packet has its
own. What is accepted is exactly what hosts send: no outer fragments, no IPv6 extension headers,
and of the optional GRE fields the key only.
"""

from __future__ import annotations

from typing import NamedTuple

from midonet.errors import DecodeError, InternalError
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.packets.ethernet import ETHERNET_HEADER_SIZE
from midonet.packets.gre import GRE_KEYED_HEADER_SIZE, GreHeader
from midonet.packets.ipv4 import IPV4_HEADER_SIZE, Ipv4Header
from midonet.packets.ipv6 import IPV6_HEADER_SIZE, Ipv6Header
from midonet.packets.protocols import EtherType, IpProtocol
from midonet.packets.udp import UDP_HEADER_SIZE, UdpHeader
from midonet.packets.vxlan import VXLAN_HEADER_SIZE, VxlanHeader

_OUTER_TTL = 64


class Decapsulated(NamedTuple):
    """An overlay packet taken apart.

    source, destination: outer addresses. tunnel_key: VNI (24 bits) or GRE key (32 bits).
    inner: from the destination MAC on.
    """

    source: IpAddress
    destination: IpAddress
    tunnel_key: int
    inner: bytes


class _Outer(NamedTuple):
    source: IpAddress
    destination: IpAddress
    protocol: int
    offset: int
    end: int


def overlay_source_port(flow_hash: int) -> int:
    """Return the outer UDP source port of an inner flow, in 49152..65535 (RFC 7348 section 5).

    The underlay balances by it; both directions of a connection have the same.
    """
    return 0xC000 | flow_hash & 0x3FFF


def encapsulate_vxlan(
    inner: bytes,
    *,
    key: int,
    local: IpAddress,
    remote: IpAddress,
    source_port: int,
    udp_port: int,
) -> bytes:
    """Return the outer IP packet of `inner` in VXLAN (RFC 7348). key: the VNI, 24 bits.

    Raises DecodeError when `inner` has no Ethernet header or is too long for an IP packet.
    """
    _check_inner(inner, UDP_HEADER_SIZE + VXLAN_HEADER_SIZE)
    length = UDP_HEADER_SIZE + VXLAN_HEADER_SIZE + len(inner)
    udp = UdpHeader(source_port, udp_port, length, 0)
    payload = udp.serialise() + VxlanHeader(key).serialise() + inner
    return _outer_header(local, remote, IpProtocol.UDP, length) + payload


def encapsulate_gre(inner: bytes, *, key: int, local: IpAddress, remote: IpAddress) -> bytes:
    """Return the outer IP packet of `inner` in GRE with a key (RFC 2890). key: 32 bits.

    Raises DecodeError when `inner` has no Ethernet header or is too long for an IP packet.
    """
    _check_inner(inner, GRE_KEYED_HEADER_SIZE)
    payload = GreHeader(key=key).serialise() + inner
    return _outer_header(local, remote, IpProtocol.GRE, len(payload)) + payload


def decapsulate(packet: bytes, vxlan_port: int) -> Decapsulated:
    """Take an outer IP packet apart: VXLAN to `vxlan_port`, or keyed GRE.

    Checksums are not looked at. Raises DecodeError when the packet is anything else, truncated,
    a fragment, or has less than an Ethernet header inside.
    """
    outer = _parse_outer(packet)
    if outer.protocol == IpProtocol.UDP:
        key, start, end = _open_vxlan(packet, outer, vxlan_port)
    elif outer.protocol == IpProtocol.GRE:
        key, start, end = _open_gre(packet, outer)
    else:
        raise DecodeError("not an overlay packet")
    if end - start < ETHERNET_HEADER_SIZE:
        raise DecodeError("overlay packet without an inner Ethernet header")
    return Decapsulated(outer.source, outer.destination, key, bytes(packet[start:end]))


def _check_inner(inner: bytes, tunnel_header_size: int) -> None:
    if len(inner) < ETHERNET_HEADER_SIZE:
        raise DecodeError("inner frame without an Ethernet header")
    if len(inner) + tunnel_header_size + IPV4_HEADER_SIZE > 0xFFFF:
        raise DecodeError("inner frame does not fit an IP packet")


def _outer_header(local: IpAddress, remote: IpAddress, protocol: int, size: int) -> bytes:
    """Return the IP header in front of `size` bytes of payload."""
    if local.version != remote.version:
        raise InternalError("tunnel end points of different IP versions")
    if local.version == IpVersion.V4:
        return Ipv4Header(
            local.value,
            remote.value,
            protocol,
            IPV4_HEADER_SIZE + size,
            dont_fragment=True,
            ttl=_OUTER_TTL,
        ).serialise()
    return Ipv6Header(
        local.value, remote.value, protocol, payload_length=size, hop_limit=_OUTER_TTL
    ).serialise()


def _parse_outer(packet: bytes) -> _Outer:
    if not packet:
        raise DecodeError("outer packet empty")
    if packet[0] >> 4 == IpVersion.V4:
        header = Ipv4Header.parse(packet)
        if header.more_fragments or header.fragment_offset:
            raise DecodeError("outer packet is a fragment")
        end = header.total_length
        outer = _Outer(
            IpAddress(IpVersion.V4, header.source),
            IpAddress(IpVersion.V4, header.destination),
            header.protocol,
            header.size,
            end,
        )
    else:
        fixed = Ipv6Header.parse(packet)
        end = IPV6_HEADER_SIZE + fixed.payload_length
        outer = _Outer(
            IpAddress(IpVersion.V6, fixed.source),
            IpAddress(IpVersion.V6, fixed.destination),
            fixed.next_header,
            IPV6_HEADER_SIZE,
            end,
        )
    if end > len(packet) or end < outer.offset:
        raise DecodeError("outer packet length contradicts its bytes")
    return outer


def _open_vxlan(packet: bytes, outer: _Outer, vxlan_port: int) -> tuple[int, int, int]:
    """Return (VNI, start and end of the inner frame)."""
    udp = UdpHeader.parse(packet, outer.offset)
    if udp.destination_port != vxlan_port:
        raise DecodeError("not an overlay packet: another UDP port")
    end = outer.offset + udp.length
    start = outer.offset + UDP_HEADER_SIZE + VXLAN_HEADER_SIZE
    if end > outer.end or end < start:
        raise DecodeError("outer UDP length contradicts the packet")
    vni = VxlanHeader.parse(packet, outer.offset + UDP_HEADER_SIZE).vni
    return vni, start, end


def _open_gre(packet: bytes, outer: _Outer) -> tuple[int, int, int]:
    """Return (key, start and end of the inner frame)."""
    gre = GreHeader.parse(packet, outer.offset)
    if gre.protocol != EtherType.TRANSPARENT_BRIDGING:
        raise DecodeError("GRE packet does not carry Ethernet")
    if gre.key is None or gre.checksum is not None or gre.sequence is not None:
        raise DecodeError("GRE packet without a key, or with a checksum or sequence number")
    return gre.key, outer.offset + gre.size, outer.end
