"""The VXLAN header (RFC 7348)."""

from __future__ import annotations

from struct import Struct
from typing import Self

import msgspec

from midonet.errors import DecodeError

_HEADER = Struct("!II")
_VNI_VALID = 1 << 27

VXLAN_HEADER_SIZE = 8


class VxlanHeader(msgspec.Struct, frozen=True, gc=False):
    """A VXLAN header, RFC 7348 section 5.

    ::

        +---------------+-----------------------------------------------+
        |R|R|R|R|I|R|R|R|                   Reserved                    |
        +---------------+-------------------------------+---------------+
        |                VXLAN Network Identifier (VNI) |   Reserved    |
        +-----------------------------------------------+---------------+

    Reserved bits are sent as zero and ignored on receipt.
    """

    vni: int

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse the header at `offset`. Raises DecodeError when truncated or without the I bit."""
        if len(data) < offset + VXLAN_HEADER_SIZE:
            raise DecodeError("VXLAN header truncated")
        flags, identifier = _HEADER.unpack_from(data, offset)
        if not flags & _VNI_VALID:
            raise DecodeError("VXLAN header without a network identifier")
        return cls(identifier >> 8)

    def serialise(self) -> bytes:
        """Return the 8 bytes of the header."""
        return _HEADER.pack(_VNI_VALID, self.vni << 8)

    @property
    def size(self) -> int:
        """Size on the wire, in bytes."""
        return VXLAN_HEADER_SIZE
