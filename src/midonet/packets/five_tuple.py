"""The five-tuple of a packet: what tells its conversation from others."""

from __future__ import annotations

from typing import NamedTuple

from midonet.packets.addresses import IpVersion
from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import ParsedFrame
from midonet.packets.icmpv4 import Icmpv4Type
from midonet.packets.icmpv6 import Icmpv6Type
from midonet.packets.protocols import IpProtocol

_PORT_PROTOCOLS = frozenset((int(IpProtocol.TCP), int(IpProtocol.UDP), int(IpProtocol.SCTP)))
_ECHO_TYPES = {
    (IpVersion.V4, int(IpProtocol.ICMP)): frozenset(
        (int(Icmpv4Type.ECHO_REQUEST), int(Icmpv4Type.ECHO_REPLY))
    ),
    (IpVersion.V6, int(IpProtocol.ICMPV6)): frozenset(
        (int(Icmpv6Type.ECHO_REQUEST), int(Icmpv6Type.ECHO_REPLY))
    ),
}


class FiveTuple(NamedTuple):
    """Protocol and both end points of a packet.

    source, destination: addresses as integers. source_port, destination_port: of TCP, UDP and
    SCTP; both are the identifier of an ICMP echo (RFC 5508 section 3.1), so that a reply's tuple
    is the inverse of its request's.
    """

    version: IpVersion
    protocol: int
    source: int
    source_port: int
    destination: int
    destination_port: int

    def inverse(self) -> FiveTuple:
        """Return the tuple of the other direction."""
        return FiveTuple(
            self.version,
            self.protocol,
            self.destination,
            self.destination_port,
            self.source,
            self.source_port,
        )


def five_tuple(packet: ParsedFrame) -> FiveTuple | None:
    """Return the tuple of a packet, None when it has none.

    Of TCP, UDP and SCTP, and of ICMP and ICMPv6 echo; never of a later fragment, which has no
    ports, nor of an ICMP error, which is about somebody else's.
    """
    version, key = packet.ip_version, packet.key
    if version is None or key.ip_frag == FragmentKind.LATER:
        return None
    if key.ip_proto in _PORT_PROTOCOLS:
        ports = key.l4_src, key.l4_dst
    elif key.l4_src in _ECHO_TYPES.get((version, key.ip_proto), ()):
        ports = packet.icmp_id, packet.icmp_id
    else:
        return None
    return FiveTuple(version, key.ip_proto, key.ip_src, ports[0], key.ip_dst, ports[1])
