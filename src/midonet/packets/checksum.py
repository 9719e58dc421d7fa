"""The Internet checksum: whole (RFC 1071), incremental (RFC 1624), with pseudo headers.

One's complement addition of 16-bit words is addition modulo 0xFFFF in which a sum of zero
arises only from all-zero data. 2^16 is 1 modulo 0xFFFF, so a byte string read as one large
big-endian integer is congruent to the sum of its words. All sums here are such integers: plain,
unreduced, reduced once at the end.
"""

from __future__ import annotations


def _complement(total: int) -> int:
    """Reduce a non-negative sum and return its one's complement, 16 bits."""
    reduced = total % 0xFFFF
    if reduced == 0 and total != 0:
        return 0
    return ~reduced & 0xFFFF


def word_sum(data: bytes | bytearray | memoryview) -> int:
    """Return an unreduced sum of the big-endian 16-bit words; an odd last byte is padded."""
    total = int.from_bytes(data, "big")
    return total << 8 if len(data) & 1 else total


def internet_checksum(data: bytes | bytearray | memoryview, initial: int = 0) -> int:
    """Return the checksum of `data` (RFC 1071), whose own checksum field must hold zero.

    initial: a sum to start from, such as `pseudo_header_sum`. Data that already holds its
    checksum yields 0 exactly when it is valid.
    """
    return _complement(word_sum(data) + initial)


def pseudo_header_sum(source: int, destination: int, protocol: int, size: int) -> int:
    """Return the unreduced sum of the pseudo header of either IP version.

    size: of the transport header and payload, in bytes. The fields are the same for both
    versions (RFC 9293 section 3.1, RFC 8200 section 8.1), only the widths differ, and width
    does not matter to the sum.
    """
    return source + destination + protocol + size


def transport_checksum(
    segment: bytes | bytearray | memoryview, source: int, destination: int, protocol: int
) -> int:
    """Return the checksum of a TCP, UDP or ICMPv6 segment whose checksum field holds zero.

    A UDP checksum that computes to zero is sent as 0xFFFF, as zero says that there is none
    (RFC 768).
    """
    result = _complement(
        word_sum(segment) + pseudo_header_sum(source, destination, protocol, len(segment))
    )
    return 0xFFFF if result == 0 and protocol == 17 else result


def updated_checksum(checksum: int, old: int, new: int, bits: int = 16) -> int:
    """Return `checksum` after a field changed from `old` to `new` (RFC 1624 equation 3).

    bits: width of the field, a multiple of 16; it must start at an even offset of the
    checksummed data. A wrong checksum stays wrong by the same amount.
    """
    mask = (1 << bits) - 1
    return _complement((~checksum & 0xFFFF) + (~old & mask) + new)


def updated_udp_checksum(checksum: int, old: int, new: int, bits: int = 16) -> int:
    """Return a UDP checksum after a change: 0 (none) stays 0, and never becomes 0 (RFC 768)."""
    if checksum == 0:
        return 0
    return updated_checksum(checksum, old, new, bits) or 0xFFFF
