"""Refuse a TCP segment with a reset (RFC 9293 section 3.10.7.1)."""

from __future__ import annotations

from midonet.errors import DecodeError
from midonet.packets.build import answering, tcp_frame
from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import ParsedFrame
from midonet.packets.protocols import IpProtocol
from midonet.packets.tcp import TcpFlag, TcpHeader


def tcp_reset(segment: ParsedFrame) -> bytes | None:
    """Return the reset with which a closed port answers `segment`; None if it gets no answer.

    Not answered are a reset, and a segment whose header does not fit the packet: it has no
    length that could be acknowledged, and a receiver drops it unread.
    Ends swapped, tag kept. If the segment has ACK, the reset takes its sequence number from
    there; else it has sequence number 0 and acknowledges the segment.
    Raises DecodeError when the frame is not a TCP segment or is a fragment.
    """
    key = segment.key
    if key.ip_proto != IpProtocol.TCP or key.ip_frag != FragmentKind.NONE:
        raise DecodeError("not a whole TCP segment")
    end = segment.l3_offset + segment.packet_length
    try:
        header = TcpHeader.parse(segment.frame[:end], segment.l4_offset)
    except DecodeError:
        return None
    if header.flags & TcpFlag.RST:
        return None
    if header.flags & TcpFlag.ACK:
        sequence, acknowledgment, flags = header.acknowledgment, 0, TcpFlag.RST
    else:
        sequence, flags = 0, TcpFlag.RST | TcpFlag.ACK
        data = end - segment.l4_offset - header.size
        acknowledgment = (header.sequence + _segment_length(data, header.flags)) & 0xFFFF_FFFF
    answer = TcpHeader(
        header.destination_port,
        header.source_port,
        sequence,
        acknowledgment,
        flags,
        window=0,
    )
    return tcp_frame(answering(segment), answer)


def _segment_length(data: int, flags: int) -> int:
    """Return SEG.LEN: the data bytes, and one each for SYN and FIN (RFC 9293 section 3.4)."""
    return data + bool(flags & TcpFlag.SYN) + bool(flags & TcpFlag.FIN)
