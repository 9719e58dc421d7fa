"""State frames: a state message in a frame that the underlay carries like its connection's. Pure.

The frame has the addresses, protocol and ports of a packet of the connection, so that it has the
outer five-tuple of that packet and takes the same path, in front of it. What is behind those
headers is the message; nobody but an agent opens such a frame, so checksums are left out.

    | destination 02:6d:6e:00:00:02 | source 02:6d:6e:00:00:01 | IPv4 or IPv6 header |
    | TCP header of 20 bytes, SCTP of 12, else 8 with the ports first | message |
"""

from __future__ import annotations

import struct
from typing import Final

from midonet.errors import DecodeError
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.packets.build import Envelope, ip_frame
from midonet.packets.ethernet import ETHERNET_HEADER_SIZE
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.ipv4 import IPV4_HEADER_SIZE
from midonet.packets.ipv6 import IPV6_HEADER_SIZE
from midonet.packets.protocols import IpProtocol
from midonet.packets.tcp import TcpHeader
from midonet.packets.udp import UDP_HEADER_SIZE, UdpHeader

FROM_MAC: Final = 0x026D_6E00_0001
TO_MAC: Final = 0x026D_6E00_0002

_PORTS = struct.Struct("!HH")
_TCP, _UDP = int(IpProtocol.TCP), int(IpProtocol.UDP)
_HEADER_SIZES = {_TCP: 20, _UDP: UDP_HEADER_SIZE, int(IpProtocol.SCTP): 12}
_OTHER_HEADER_SIZE = 8


def state_frame(message: bytes, ends: FiveTuple) -> bytes:
    """Return the frame for an encoded message about a connection with those ends, in either
    direction: the hash that chooses the path is the same."""
    envelope = Envelope(
        FROM_MAC,
        TO_MAC,
        IpAddress(ends.version, ends.source),
        IpAddress(ends.version, ends.destination),
    )
    ports = ends.source_port, ends.destination_port
    if ends.protocol == _TCP:
        header = TcpHeader(*ports, 0, 0, 0).serialise()
    elif ends.protocol == _UDP:
        header = UdpHeader(*ports, UDP_HEADER_SIZE + len(message)).serialise()
    else:
        size = _HEADER_SIZES.get(ends.protocol, _OTHER_HEADER_SIZE)
        header = _PORTS.pack(*ports).ljust(size, b"\0")
    return ip_frame(envelope, ends.protocol, header + message)


def message_in(frame: bytes) -> bytes:
    """Return the encoded message in a state frame. Raises DecodeError when it is none."""
    if len(frame) <= ETHERNET_HEADER_SIZE:
        raise DecodeError("state frame truncated")
    at = ETHERNET_HEADER_SIZE
    try:
        if frame[at] >> 4 == IpVersion.V4:
            protocol, at = frame[at + 9], at + IPV4_HEADER_SIZE
        else:
            protocol, at = frame[at + 6], at + IPV6_HEADER_SIZE
    except IndexError:
        raise DecodeError("state frame truncated") from None
    return frame[at + _HEADER_SIZES.get(protocol, _OTHER_HEADER_SIZE) :]
