"""Capture files in the classic pcap format, read only (draft-ietf-opsawg-pcap section 4)."""

from __future__ import annotations

from struct import Struct, error

from midonet.errors import DecodeError

_LINKTYPE_ETHERNET = 1
_MAX_RECORD = 262_144
_MAGICS = {
    b"\xa1\xb2\xc3\xd4": ">",
    b"\xa1\xb2\x3c\x4d": ">",
    b"\xd4\xc3\xb2\xa1": "<",
    b"\x4d\x3c\xb2\xa1": "<",
}
"""First four bytes (microseconds and nanoseconds, either byte order) to the order of the rest."""

_PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"
_HEADER_SIZE, _RECORD_SIZE = 24, 16


def read_pcap(data: bytes, *, limit: int = 1000) -> list[bytes]:
    """Return the frames of a capture in order, at most `limit`.

    Raises DecodeError: not a capture, not of Ethernet, cut off, or a frame that was not captured
    whole (as tcpdump -s 0 does).
    """
    if data[:4] == _PCAPNG_MAGIC:
        raise DecodeError("a pcapng file; convert it with: editcap -F pcap FILE NEW")
    order = _MAGICS.get(data[:4])
    if order is None:
        raise DecodeError("not a pcap file")
    try:
        (link_type,) = Struct(f"{order}I").unpack_from(data, 20)
        if link_type & 0xFFFF != _LINKTYPE_ETHERNET:
            raise DecodeError(f"captured on a link of type {link_type & 0xFFFF}, not Ethernet")
        return _records(data, Struct(f"{order}IIII"), limit)
    except error:
        raise DecodeError("the capture is cut off") from None


def _records(data: bytes, record: Struct, limit: int) -> list[bytes]:
    frames: list[bytes] = []
    at = _HEADER_SIZE
    while at < len(data) and len(frames) < limit:
        _, _, captured, length = record.unpack_from(data, at)
        at += _RECORD_SIZE
        if captured > _MAX_RECORD or captured > len(data) - at:
            raise DecodeError("the capture is cut off")
        if captured < length:
            raise DecodeError(f"frame {len(frames) + 1} was captured only in part")
        frames.append(data[at : at + captured])
        at += captured
    return frames
