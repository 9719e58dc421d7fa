"""ICMPv6 (RFC 4443). Neighbour discovery messages are in `midonet.packets.nd`."""

from __future__ import annotations

from enum import IntEnum

from midonet.packets.icmp_header import IcmpHeader


class Icmpv6Type(IntEnum):
    """Message types that matter here (RFC 4443 section 2.1)."""

    DESTINATION_UNREACHABLE = 1
    PACKET_TOO_BIG = 2
    TIME_EXCEEDED = 3
    PARAMETER_PROBLEM = 4
    ECHO_REQUEST = 128
    ECHO_REPLY = 129


class Icmpv6UnreachableCode(IntEnum):
    """Codes of destination unreachable (RFC 4443 section 3.1)."""

    NO_ROUTE = 0
    ADMINISTRATIVELY_PROHIBITED = 1
    ADDRESS = 3
    PORT = 4


class Icmpv6Header(IcmpHeader, frozen=True, gc=False):
    """The first eight bytes of an ICMPv6 message, RFC 4443 sections 2.1, 3 and 4.

    ::

        +---------------+---------------+-------------------------------+
        |     Type      |     Code      |           Checksum            |
        +---------------+---------------+-------------------------------+
        |  echo: identifier             |  echo: sequence number        |
        |  packet too big: MTU (32 bits); other errors: unused          |
        +-------------------------------+-------------------------------+

    rest: the second word. checksum: as found; it covers a pseudo header, builders fill it in.
    """

    @property
    def mtu_bytes(self) -> int:
        """MTU of a packet-too-big message, in bytes; meaningless in others."""
        return self.rest

    @property
    def is_error(self) -> bool:
        """Tell whether the message is an error, which no error may answer (section 2.4)."""
        return self.type < 128
