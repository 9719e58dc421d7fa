"""ICMP for IPv4 (RFC 792, RFC 1191, RFC 1812)."""

from __future__ import annotations

from enum import IntEnum

from midonet.packets.icmp_header import IcmpHeader


class Icmpv4Type(IntEnum):
    """Message types that matter here (RFC 792)."""

    ECHO_REPLY = 0
    DESTINATION_UNREACHABLE = 3
    ECHO_REQUEST = 8
    TIME_EXCEEDED = 11
    PARAMETER_PROBLEM = 12


class Icmpv4UnreachableCode(IntEnum):
    """Codes of destination unreachable (RFC 792, RFC 1812 section 5.2.7.1)."""

    NETWORK = 0
    HOST = 1
    PROTOCOL = 2
    PORT = 3
    FRAGMENTATION_NEEDED = 4
    NETWORK_PROHIBITED = 9
    HOST_PROHIBITED = 10
    COMMUNICATION_PROHIBITED = 13


class Icmpv4Header(IcmpHeader, frozen=True, gc=False):
    """The first eight bytes of any ICMP message, RFC 792.

    ::

        +---------------+---------------+-------------------------------+
        |     Type      |     Code      |           Checksum            |
        +---------------+---------------+-------------------------------+
        |  echo: identifier             |  echo: sequence number        |
        |  unreachable: unused          |  fragmentation needed: MTU    |
        +-------------------------------+-------------------------------+

    rest: the second word. What follows is the echoed data, or the packet complained about.
    checksum: as found; builders fill it in.
    """

    @property
    def next_hop_mtu_bytes(self) -> int:
        """MTU of a fragmentation-needed message in bytes, 0 if not told (RFC 1191 section 4)."""
        return self.rest & 0xFFFF

    @property
    def is_error(self) -> bool:
        """Tell whether the message is an error, which no error may answer (RFC 1122 3.2.2)."""
        return self.type in _ERROR_TYPES


_ERROR_TYPES = frozenset((3, 4, 5, 11, 12))
