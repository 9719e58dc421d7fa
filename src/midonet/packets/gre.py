"""The GRE header with its key (RFC 2784, RFC 2890)."""

from __future__ import annotations

from struct import Struct
from typing import Self

import msgspec

from midonet.errors import DecodeError
from midonet.packets.protocols import EtherType

_PREFIX = Struct("!HH")
_CHECKSUM_PRESENT = 0x8000
_KEY_PRESENT = 0x2000
_SEQUENCE_PRESENT = 0x1000
_MUST_BE_ZERO = 0x4C07  # routing, strict source route, first recursion bit, version

GRE_KEYED_HEADER_SIZE = 8


class GreHeader(msgspec.Struct, frozen=True, gc=False):
    """A GRE header, RFC 2784 section 2 with the extensions of RFC 2890 section 2.

    ::

        +-+-+-+-+-----------------+-----+-------------------------------+
        |C| |K|S|   Reserved0     | Ver |         Protocol Type         |
        +-+-+-+-+-----------------+-----+-------------------------------+
        |      Checksum (optional)      |      Reserved1 (optional)     |
        +-------------------------------+-------------------------------+
        |                         Key (optional)                        |
        +---------------------------------------------------------------+
        |                 Sequence Number (optional)                    |
        +---------------------------------------------------------------+

    Optional fields are None when absent. The default protocol type is transparent Ethernet
    bridging. checksum: as found, not verified.
    """

    protocol: int = EtherType.TRANSPARENT_BRIDGING
    key: int | None = None
    sequence: int | None = None
    checksum: int | None = None

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> Self:
        """Parse the header at `offset`.

        Raises DecodeError when it is truncated, of another version, or source-routed.
        """
        if len(data) < offset + 4:
            raise DecodeError("GRE header truncated")
        flags, protocol = _PREFIX.unpack_from(data, offset)
        if flags & _MUST_BE_ZERO:
            raise DecodeError("GRE header has another version or unsupported flags")
        offset += 4
        words: list[int | None] = []
        for bit in (_CHECKSUM_PRESENT, _KEY_PRESENT, _SEQUENCE_PRESENT):
            if not flags & bit:
                words.append(None)
                continue
            if len(data) < offset + 4:
                raise DecodeError("GRE header truncated")
            words.append(int.from_bytes(data[offset : offset + 4], "big"))
            offset += 4
        checksum, key, sequence = words
        return cls(protocol, key, sequence, None if checksum is None else checksum >> 16)

    def serialise(self) -> bytes:
        """Return the bytes of the header."""
        flags = 0
        words = b""
        if self.checksum is not None:
            flags |= _CHECKSUM_PRESENT
            words += (self.checksum << 16).to_bytes(4, "big")
        if self.key is not None:
            flags |= _KEY_PRESENT
            words += self.key.to_bytes(4, "big")
        if self.sequence is not None:
            flags |= _SEQUENCE_PRESENT
            words += self.sequence.to_bytes(4, "big")
        return _PREFIX.pack(flags, self.protocol) + words

    @property
    def size(self) -> int:
        """Size on the wire, in bytes."""
        present = (self.checksum, self.key, self.sequence)
        return 4 + 4 * sum(word is not None for word in present)
