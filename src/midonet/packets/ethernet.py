"""Ethernet II and its VLAN tags (IEEE 802.3, IEEE 802.1Q and 802.1ad)."""

from __future__ import annotations

from struct import Struct
from typing import Self

import msgspec

from midonet.errors import DecodeError
from midonet.packets.protocols import EtherType

_HEADER = Struct("!HIHIH")
_TAG = Struct("!HH")
_TAG_TYPES = frozenset((int(EtherType.VLAN), int(EtherType.SERVICE_VLAN)))
_MAX_TAGS = 2

ETHERNET_HEADER_SIZE = 14


class VlanTag(msgspec.Struct, frozen=True, gc=False):
    """One tag, IEEE 802.1Q section 9.6.

    ::

        +-------------------------------+-----+-+-----------------------+
        |  TPID (0x8100 or 0x88A8)      | PCP |D|  VID                  |
        +-------------------------------+-----+-+-----------------------+

    tci: the second 16 bits. tpid: the type field in whose place the tag stands.
    """

    tci: int
    tpid: int = EtherType.VLAN

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse the tag at `offset`. Raises DecodeError when truncated or not a tag."""
        if len(data) < offset + 4:
            raise DecodeError("VLAN tag truncated")
        tpid, tci = _TAG.unpack_from(data, offset)
        if tpid not in _TAG_TYPES:
            raise DecodeError("not a VLAN tag")
        return cls(tci, tpid)

    def serialise(self) -> bytes:
        """Return the 4 bytes of the tag."""
        return _TAG.pack(self.tpid, self.tci)

    @property
    def vlan_id(self) -> int:
        """VLAN identifier, 12 bits; 0 for a tag that carries priority only."""
        return self.tci & 0xFFF

    @property
    def priority(self) -> int:
        """Priority code point, 3 bits."""
        return self.tci >> 13


class EthernetHeader(msgspec.Struct, frozen=True):
    """An Ethernet header with up to two tags, outermost first.

    ::

        +---------------------------------------------------------------+
        |  destination (6 bytes)                                        |
        +                               +-------------------------------+
        |                               |  source (6 bytes)             |
        +-------------------------------+                               +
        |                                                               |
        +---------------------------------------------------------------+
        |  tags (4 bytes each, optional)                                |
        +-------------------------------+-------------------------------+
        |  type or length               |
        +-------------------------------+

    eth_type: behind the tags; below 0x0600 it is the length of an 802.3 frame.
    """

    destination: int
    source: int
    eth_type: int
    tags: tuple[VlanTag, ...] = ()

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse the header at `offset`. Raises DecodeError when truncated.

        A third tag is not looked into: its TPID is then `eth_type`.
        """
        if len(data) < offset + ETHERNET_HEADER_SIZE:
            raise DecodeError("Ethernet header truncated")
        dst_high, dst_low, src_high, src_low, eth_type = _HEADER.unpack_from(data, offset)
        tags: tuple[VlanTag, ...] = ()
        position = offset + 12
        while eth_type in _TAG_TYPES and len(tags) < _MAX_TAGS:
            tags += (VlanTag.parse(data, position),)
            position += 4
            if len(data) < position + 2:
                raise DecodeError("Ethernet header truncated behind a VLAN tag")
            eth_type = data[position] << 8 | data[position + 1]
        return cls(dst_high << 32 | dst_low, src_high << 32 | src_low, eth_type, tags)

    def serialise(self) -> bytes:
        """Return the bytes of the header, tags included."""
        return b"".join(
            (
                self.destination.to_bytes(6, "big"),
                self.source.to_bytes(6, "big"),
                *(tag.serialise() for tag in self.tags),
                self.eth_type.to_bytes(2, "big"),
            )
        )

    @property
    def size(self) -> int:
        """Size on the wire, in bytes."""
        return ETHERNET_HEADER_SIZE + 4 * len(self.tags)
