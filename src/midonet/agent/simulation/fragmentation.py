"""Fragmentation of IPv4 packets by a router (RFC 791 section 3.2).

The fragments leave by the router's egress port as packets of their own and are walked from
there, so that what is behind that port treats them as fragments. Options stay in the first
fragment only when they are not to be copied.
"""

from __future__ import annotations

from midonet.agent.simulation.answers import packet_as_seen
from midonet.agent.simulation.result import GeneratedPacket
from midonet.agent.simulation.walk import MAX_GENERATED, Walk
from midonet.packets.addresses import IpVersion
from midonet.packets.checksum import internet_checksum
from midonet.packets.frame import ParsedFrame

_MORE_FRAGMENTS = 0x2000
_OFFSET_BITS = 0x1FFF
_COPIED = 0x80
_END_OF_OPTIONS = 0
_NO_OPERATION = 1


def fragment_at_router(walk: Walk, limit: int) -> tuple[GeneratedPacket, ...]:
    """Return the fragments that the last router makes of the packet, none if it must not.

    limit: size of the largest IP packet that passes, in bytes.
    """
    visit = walk.branch.router
    packet = walk.inputs.packet
    if (
        visit is None
        or visit.egress is None
        or visit.egress_header is None
        or walk.inputs.is_generated
    ):
        return ()
    if packet.ip_version is not IpVersion.V4 or packet.dont_fragment:
        return ()
    # Segments of a super-packet are not at hand one by one; its sender is told instead.
    if packet.gso_size or packet.is_cut:
        return ()
    egress_id = visit.egress.id
    frames = fragment(packet_as_seen(walk, visit.egress_header), limit)
    if len(walk.findings.generated) + len(frames) > MAX_GENERATED:
        return ()
    return tuple(GeneratedPacket(egress_id, frame) for frame in frames)


def fragment(packet: ParsedFrame, limit: int) -> tuple[bytes, ...]:
    """Return frames whose IP packets are at most `limit` bytes and carry all of `packet`.

    packet: a whole IPv4 packet. Empty when `limit` has no room for eight bytes of payload, or the
    packet is a fragment that reaches beyond the largest datagram.
    """
    start = packet.l3_offset
    header_size = (packet.frame[start] & 0xF) * 4
    payload = packet.frame[start + header_size : start + packet.packet_length]
    first_header = packet.frame[start : start + header_size]
    later_header = first_header[:20] + _copied_options(first_header[20:])
    link = packet.frame[:start]
    word = int.from_bytes(first_header[6:8], "big")
    if limit < header_size + 8 or (word & _OFFSET_BITS) + len(payload) // 8 > _OFFSET_BITS:
        return ()
    frames = []
    position = 0
    while position < len(payload):
        header = later_header if position else first_header
        room = (limit - len(header)) // 8 * 8
        piece = payload[position : position + room]
        is_last = position + len(piece) == len(payload)
        flags = word & (_MORE_FRAGMENTS | 0x8000) if is_last else word | _MORE_FRAGMENTS
        offset = (word & _OFFSET_BITS) + position // 8
        frames.append(link + _header(header, len(piece), flags & ~_OFFSET_BITS | offset) + piece)
        position += len(piece)
    return tuple(frames)


def _header(template: bytes, payload_size: int, fragment_word: int) -> bytes:
    header = bytearray(template)
    header[0] = 0x40 | len(template) // 4
    header[2:4] = (len(template) + payload_size).to_bytes(2, "big")
    header[6:8] = fragment_word.to_bytes(2, "big")
    header[10:12] = b"\0\0"
    header[10:12] = internet_checksum(header).to_bytes(2, "big")
    return bytes(header)


def _copied_options(options: bytes) -> bytes:
    """Return the options that every fragment carries, padded to whole words."""
    copied = bytearray()
    position = 0
    while position < len(options) and options[position] != _END_OF_OPTIONS:
        size = 1
        if options[position] != _NO_OPERATION:
            size = options[position + 1] if position + 1 < len(options) else 0
            if size < 2:
                break
        if options[position] & _COPIED:
            copied += options[position : position + size]
        position += size
    copied += bytes(-len(copied) % 4)
    return bytes(copied)
