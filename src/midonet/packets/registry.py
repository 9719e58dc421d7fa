"""The explicit list of header codecs. Tests feed every one of them arbitrary bytes."""

from __future__ import annotations

from typing import Final, Protocol, Self

from midonet.packets.arp import ArpMessage
from midonet.packets.dhcpv4 import Dhcpv4Message
from midonet.packets.dhcpv6 import Dhcpv6Message, Dhcpv6Option, IaAddress, IdentityAssociation
from midonet.packets.ethernet import EthernetHeader, VlanTag
from midonet.packets.gre import GreHeader
from midonet.packets.icmpv4 import Icmpv4Header
from midonet.packets.icmpv6 import Icmpv6Header
from midonet.packets.ipv4 import Ipv4Header
from midonet.packets.ipv6 import ExtensionHeader, FragmentHeader, Ipv6Header
from midonet.packets.nd import (
    NdOption,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    RouterAdvertisement,
    RouterSolicitation,
)
from midonet.packets.sctp import SctpHeader
from midonet.packets.tcp import TcpHeader
from midonet.packets.udp import UdpHeader
from midonet.packets.vxlan import VxlanHeader


class HeaderCodec(Protocol):
    """What every header type offers.

    What `parse` returns for any bytes, `serialise` turns into bytes that parse to an equal
    header (reserved bits aside, which are sent as zero).
    """

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Parse a header at the start of `data`. Raises DecodeError, never anything else."""
        ...

    def serialise(self) -> bytes:
        """Return the bytes of the header."""
        ...


HEADER_CODECS: Final[tuple[type[HeaderCodec], ...]] = (
    EthernetHeader,
    VlanTag,
    ArpMessage,
    Ipv4Header,
    Ipv6Header,
    FragmentHeader,
    ExtensionHeader,
    Icmpv4Header,
    Icmpv6Header,
    NdOption,
    NeighbourSolicitation,
    NeighbourAdvertisement,
    RouterSolicitation,
    RouterAdvertisement,
    TcpHeader,
    UdpHeader,
    SctpHeader,
    VxlanHeader,
    GreHeader,
    Dhcpv4Message,
    Dhcpv6Option,
    Dhcpv6Message,
    IdentityAssociation,
    IaAddress,
)
