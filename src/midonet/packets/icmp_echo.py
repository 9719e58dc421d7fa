"""Answer an ICMP or ICMPv6 echo request (RFC 1122 section 3.2.2.6, RFC 4443 section 4.2)."""

from __future__ import annotations

from midonet.errors import DecodeError
from midonet.packets.addresses import IpAddress
from midonet.packets.build import answering, ip_frame
from midonet.packets.checksum import updated_checksum
from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import ParsedFrame
from midonet.packets.icmpv4 import Icmpv4Type
from midonet.packets.icmpv6 import Icmpv6Type
from midonet.packets.protocols import EtherType, IpProtocol

_REPLY_TYPES: dict[tuple[int, int, int], int] = {
    (EtherType.IPV4, IpProtocol.ICMP, Icmpv4Type.ECHO_REQUEST): Icmpv4Type.ECHO_REPLY,
    (EtherType.IPV6, IpProtocol.ICMPV6, Icmpv6Type.ECHO_REQUEST): Icmpv6Type.ECHO_REPLY,
}


def is_echo_request(frame: ParsedFrame) -> bool:
    """Tell whether the frame is a whole, unfragmented echo request."""
    key = frame.key
    return (
        (key.eth_type, key.ip_proto, key.l4_src) in _REPLY_TYPES
        and key.l4_dst == 0
        and key.ip_frag == FragmentKind.NONE
        and not frame.is_cut
    )


def echo_reply(request: ParsedFrame, *, ip_src: IpAddress | None = None) -> bytes:
    """Return the reply to a request: same data and tag, ends swapped, IP options left out.

    ip_src: the address to answer from, when the request went to a multicast address. It is the
    request's checksum, adapted: a request that arrived damaged gets a reply that is so too.
    Raises DecodeError when the frame is not a whole echo request (`is_echo_request`).
    """
    if not is_echo_request(request):
        raise DecodeError("not a whole ICMP echo request")
    key = request.key
    start = request.l4_offset
    message = bytearray(request.frame[start : request.l3_offset + request.packet_length])
    reply_type = _REPLY_TYPES[key.eth_type, key.ip_proto, key.l4_src]
    checksum = updated_checksum(
        int.from_bytes(message[2:4], "big"), key.l4_src << 8, reply_type << 8
    )
    envelope = answering(request, ip_src=ip_src)
    if envelope.is_ipv6:  # swapped addresses have the same sum, a new source has another
        checksum = updated_checksum(checksum, key.ip_dst, envelope.ip_src.value, 128)
    message[0] = reply_type
    if not checksum and not any((message[0], *message[4:])):
        checksum = 0xFFFF  # of nothing but zeros; an adapted one cannot tell it from 0
    message[2:4] = checksum.to_bytes(2, "big")
    return ip_frame(envelope, key.ip_proto, bytes(message))
