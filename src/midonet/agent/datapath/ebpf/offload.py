"""What the sender's stack left to do: checksums of frames that come up, headers of those sent.

A frame from a local sender carries only the sum of the pseudo header in its transport checksum
(CHECKSUM_PARTIAL in the kernel's words), because the device was to do the rest. The agent and
the contract know complete frames.
"""

from __future__ import annotations

import struct
from typing import Final

from midonet.errors import DecodeError
from midonet.packets.checksum import pseudo_header_sum, transport_checksum
from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import ParsedFrame, parse_frame

_TCP, _UDP = 6, 17
_CHECKSUM_AT = {_TCP: 16, _UDP: 6}
_VIRTIO = struct.Struct("=BBHHHH")
_NEEDS_CHECKSUM = 1
_GSO_TCPV4, _GSO_TCPV6, _GSO_UDP_L4 = 1, 4, 5
NO_OFFLOAD: Final = bytes(_VIRTIO.size)
"""`struct virtio_net_hdr` of a complete frame (linux/virtio_net.h)."""


def _partial_sum(parsed: ParsedFrame, size: int) -> int:
    """Return what a transport checksum field holds when the rest is left to the device.

    size: of the transport header and payload in bytes.
    """
    key = parsed.key
    return pseudo_header_sum(key.ip_src, key.ip_dst, key.ip_proto, size) % 0xFFFF


def _field(parsed: ParsedFrame) -> int | None:
    """Return the offset of the transport checksum in the frame, None when there is none."""
    key = parsed.key
    if parsed.ip_version is None or key.ip_frag != FragmentKind.NONE:
        return None
    relative = _CHECKSUM_AT.get(key.ip_proto)
    return None if relative is None else parsed.l4_offset + relative


def complete_checksum(frame: bytes) -> bytes:
    """Return a whole frame with its transport checksum completed, if that was left to do.

    A frame whose checksum is complete, right or wrong, comes back as it is, and so does one
    that is malformed.
    """
    try:
        parsed = parse_frame(frame)
    except DecodeError:
        return frame
    at = _field(parsed)
    if at is None:
        return frame
    start, end = parsed.l4_offset, parsed.l3_offset + parsed.ip_length
    held = frame[at] << 8 | frame[at + 1]
    # Zero is "no checksum" in UDP; both zeros of one's complement are one sum.
    if held == 0 or held % 0xFFFF != _partial_sum(parsed, end - start):
        return frame
    segment = bytearray(frame[start:end])
    segment[at - start : at - start + 2] = b"\0\0"
    key = parsed.key
    checksum = transport_checksum(segment, key.ip_src, key.ip_dst, key.ip_proto)
    return frame[:at] + checksum.to_bytes(2, "big") + frame[at + 2 :]


def prepare_super_packet(frame: bytes, gso_size: int) -> tuple[bytes, bytes]:
    """Return (virtio_net_hdr, frame) to send a super-packet whole.

    gso_size: payload bytes of a segment. A frame that cannot be cut into segments (not TCP
    or UDP) goes as an ordinary one.
    """
    try:
        parsed = parse_frame(frame, gso_size=gso_size)
    except DecodeError:
        return NO_OFFLOAD, frame
    at = _field(parsed)
    if at is None:
        return NO_OFFLOAD, frame
    start = parsed.l4_offset
    if parsed.key.ip_proto == _TCP:
        kind = _GSO_TCPV4 if parsed.ip_version == 4 else _GSO_TCPV6
        header = (frame[start + 12] >> 4) * 4
    else:
        kind, header = _GSO_UDP_L4, 8
    partial = _partial_sum(parsed, len(frame) - start)
    prepared = frame[:at] + partial.to_bytes(2, "big") + frame[at + 2 :]
    offload = _VIRTIO.pack(_NEEDS_CHECKSUM, kind, start + header, gso_size, start, at - start)
    return offload, prepared
