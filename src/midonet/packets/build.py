"""Build whole frames, checksums included. Used for generated packets, injection and tests."""

from __future__ import annotations

from dataclasses import dataclass

from midonet.errors import InternalError
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.packets.checksum import internet_checksum, transport_checksum
from midonet.packets.ethernet import EthernetHeader, VlanTag
from midonet.packets.flowkey import VLAN_PRESENT
from midonet.packets.frame import ParsedFrame
from midonet.packets.icmpv4 import Icmpv4Header, Icmpv4Type
from midonet.packets.icmpv6 import Icmpv6Header, Icmpv6Type
from midonet.packets.ipv4 import IPV4_HEADER_SIZE, Ipv4Header
from midonet.packets.ipv6 import Ipv6Header
from midonet.packets.protocols import EtherType, IpProtocol
from midonet.packets.tcp import TcpHeader
from midonet.packets.udp import UDP_HEADER_SIZE, UdpHeader

_DSCP_BITS = 0xFC


@dataclass(frozen=True, slots=True)
class Envelope:
    """Link and network header fields of a frame to build.

    ip_src, ip_dst: of one version. vlan_tci: 16 bits (PCP and VID), None for no tag.
    ttl: TTL or hop limit. tos: TOS or traffic class, 8 bits. flow_label: IPv6 only, 20 bits.
    dont_fragment, identification: IPv4 only.
    """

    eth_src: int
    eth_dst: int
    ip_src: IpAddress
    ip_dst: IpAddress
    vlan_tci: int | None = None
    ttl: int = 64
    tos: int = 0
    dont_fragment: bool = False
    identification: int = 0
    flow_label: int = 0

    @property
    def is_ipv6(self) -> bool:
        """Tell whether the packet is IPv6. Raises InternalError when the versions differ."""
        if self.ip_src.version != self.ip_dst.version:
            raise InternalError("packet with addresses of different IP versions")
        return self.ip_src.version == IpVersion.V6


def answering(frame: ParsedFrame, *, ip_src: IpAddress | None = None) -> Envelope:
    """Return the envelope of an answer to an IP frame: ends swapped, the rest as there.

    Kept are the tag with its priority; precedence and type of service (RFC 1812 section 4.3.2.5,
    RFC 1349 section 5.1), which are the DSCP now; DF and identification, so that the answer
    tells of the path what the question asked, and is as unique; the flow label. Not ECN: who
    answers is no ECN-capable transport (RFC 3168 section 5). TTL and hop limit begin anew.
    ip_src: who answers, when it is not the addressee. Raises InternalError when not IP.
    """
    version = frame.ip_version
    if version is None:
        raise InternalError("no IP answer to a frame that is not IP")
    key = frame.key
    word = int.from_bytes(frame.frame[frame.l3_offset : frame.l3_offset + 8], "big")
    is_ipv6 = version is IpVersion.V6
    return Envelope(
        eth_src=key.eth_dst,
        eth_dst=key.eth_src,
        ip_src=ip_src or IpAddress(version, key.ip_dst),
        ip_dst=IpAddress(version, key.ip_src),
        vlan_tci=frame_tag(frame),
        tos=key.ip_tos & _DSCP_BITS,
        dont_fragment=frame.dont_fragment,
        identification=0 if is_ipv6 else word >> 16 & 0xFFFF,
        flow_label=word >> 32 & 0xF_FFFF if is_ipv6 else 0,
    )


def frame_tag(frame: ParsedFrame) -> int | None:
    """Return the TCI (PCP and VID) of the outermost tag, None when untagged."""
    tci = frame.key.vlan_tci
    return tci & ~VLAN_PRESENT if tci else None


def ethernet_frame(
    eth_dst: int, eth_src: int, eth_type: int, payload: bytes, *, vlan_tci: int | None = None
) -> bytes:
    """Return an Ethernet frame, with an 802.1Q tag unless `vlan_tci` is None. No padding."""
    tags = () if vlan_tci is None else (VlanTag(vlan_tci),)
    return EthernetHeader(eth_dst, eth_src, eth_type, tags).serialise() + payload


def ip_frame(envelope: Envelope, protocol: int, payload: bytes) -> bytes:
    """Return a frame with an IP packet that carries `payload` as it is."""
    source, destination = envelope.ip_src.value, envelope.ip_dst.value
    if envelope.is_ipv6:
        eth_type = EtherType.IPV6
        header = Ipv6Header(
            source,
            destination,
            protocol,
            len(payload),
            envelope.ttl,
            envelope.tos,
            envelope.flow_label,
        ).serialise()
    else:
        eth_type = EtherType.IPV4
        header = Ipv4Header(
            source,
            destination,
            protocol,
            IPV4_HEADER_SIZE + len(payload),
            tos=envelope.tos,
            identification=envelope.identification,
            dont_fragment=envelope.dont_fragment,
            ttl=envelope.ttl,
        ).serialise()
    return ethernet_frame(
        envelope.eth_dst, envelope.eth_src, eth_type, header + payload, vlan_tci=envelope.vlan_tci
    )


def udp_frame(
    envelope: Envelope, source_port: int, destination_port: int, payload: bytes = b""
) -> bytes:
    """Return a frame with a UDP datagram, checksum filled in."""
    header = UdpHeader(source_port, destination_port, UDP_HEADER_SIZE + len(payload))
    segment = bytearray(header.serialise() + payload)
    return _transport_frame(envelope, IpProtocol.UDP, segment, checksum_at=6)


def tcp_frame(envelope: Envelope, header: TcpHeader, payload: bytes = b"") -> bytes:
    """Return a frame with a TCP segment; the checksum is computed, whatever `header` holds."""
    segment = bytearray(header.serialise() + payload)
    return _transport_frame(envelope, IpProtocol.TCP, segment, checksum_at=16)


def icmp_frame(
    envelope: Envelope, header: Icmpv4Header | Icmpv6Header, payload: bytes = b""
) -> bytes:
    """Return a frame with an ICMP message of the version of `header`, checksum computed.

    Raises InternalError when that is not the version of the envelope.
    """
    message = bytearray(header.serialise() + payload)
    if isinstance(header, Icmpv6Header) is not envelope.is_ipv6:
        raise InternalError("ICMP message in a packet of another IP version")
    if envelope.is_ipv6:
        return icmpv6_frame(envelope, message)
    message[2:4] = b"\0\0"
    message[2:4] = internet_checksum(message).to_bytes(2, "big")
    return ip_frame(envelope, IpProtocol.ICMP, bytes(message))


def icmpv6_frame(envelope: Envelope, message: bytes | bytearray) -> bytes:
    """Return a frame with a whole ICMPv6 message, its checksum computed (RFC 4443 2.3)."""
    return _transport_frame(envelope, IpProtocol.ICMPV6, bytearray(message), checksum_at=2)


def echo_request_frame(
    envelope: Envelope, identifier: int, sequence: int = 0, payload: bytes = b""
) -> bytes:
    """Return a frame with an ICMP or ICMPv6 echo request."""
    rest = identifier << 16 | sequence
    if envelope.is_ipv6:
        return icmp_frame(envelope, Icmpv6Header(Icmpv6Type.ECHO_REQUEST, 0, rest), payload)
    return icmp_frame(envelope, Icmpv4Header(Icmpv4Type.ECHO_REQUEST, 0, rest), payload)


def _transport_frame(
    envelope: Envelope, protocol: int, segment: bytearray, *, checksum_at: int
) -> bytes:
    segment[checksum_at : checksum_at + 2] = b"\0\0"
    checksum = transport_checksum(segment, envelope.ip_src.value, envelope.ip_dst.value, protocol)
    segment[checksum_at : checksum_at + 2] = checksum.to_bytes(2, "big")
    return ip_frame(envelope, protocol, bytes(segment))
