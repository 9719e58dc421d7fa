"""Refuse a TCP segment with a reset (RFC 9293 section 3.10.7.1)."""

from __future__ import annotations

from midonet.errors import DecodeError
from midonet.packets.build import answering, tcp_frame
from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import ParsedFrame
from midonet.packets.protocols import IpProtocol
from midonet.packets.tcp import TcpFlag, TcpHeader


def tcp_reset(segment: ParsedFrame) -> bytes | None:
    """Return the reset with which a closed port answers `segment`; None if that is a reset.

    Ends swapped, tag kept. If the segment has ACK, the reset takes its sequence number from
    there; else it has sequence number 0 and acknowledges the segment.
    Raises DecodeError when the frame is not a TCP segment or is a fragment.
    """
    key = segment.key
    if key.ip_proto != IpProtocol.TCP or key.ip_frag != FragmentKind.NONE:
        raise DecodeError("not a whole TCP segment")
    header = TcpHeader.parse(segment.frame, segment.l4_offset)
    if header.flags & TcpFlag.RST:
        return None
    if header.flags & TcpFlag.ACK:
        sequence, acknowledgment, flags = header.acknowledgment, 0, TcpFlag.RST
    else:
        sequence, flags = 0, TcpFlag.RST | TcpFlag.ACK
        acknowledgment = (header.sequence + _segment_length(segment, header)) & 0xFFFF_FFFF
    answer = TcpHeader(
        header.destination_port,
        header.source_port,
        sequence,
        acknowledgment,
        flags,
        window=0,
    )
    return tcp_frame(answering(segment), answer)


def _segment_length(segment: ParsedFrame, header: TcpHeader) -> int:
    """Return SEG.LEN: the data bytes, and one each for SYN and FIN (RFC 9293 section 3.4)."""
    end = segment.l3_offset + segment.packet_length
    data = max(0, end - segment.l4_offset - header.size)
    return data + bool(header.flags & TcpFlag.SYN) + bool(header.flags & TcpFlag.FIN)
