"""Change header fields of a frame in place; checksums follow incrementally (RFC 1624).

Edits for which a frame has no field do nothing: addresses of a frame that is not IP, ports of a
protocol without ports or of a later fragment. That is what the kernel program does too. Wrong
checksums stay wrong, so that the receiver still notices; a UDP checksum of zero stays zero.
"""

from __future__ import annotations

from midonet.errors import InternalError
from midonet.packets.checksum import updated_checksum, updated_udp_checksum
from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import ParsedFrame
from midonet.packets.icmp_quote import Quote, find_quote
from midonet.packets.protocols import EtherType, IpProtocol
from midonet.packets.sctp import crc32c_change

_TCP, _UDP = int(IpProtocol.TCP), int(IpProtocol.UDP)
_SCTP, _ICMPV6 = int(IpProtocol.SCTP), int(IpProtocol.ICMPV6)
_ICMP = int(IpProtocol.ICMP)
_IPV4, _IPV6 = int(EtherType.IPV4), int(EtherType.IPV6)

_PSEUDO_HEADER_CHECKSUMS = {
    (_IPV4, _TCP): 16,
    (_IPV4, _UDP): 6,
    (_IPV6, _TCP): 16,
    (_IPV6, _UDP): 6,
    (_IPV6, _ICMPV6): 2,
}
"""Offset in the transport header of a checksum that covers the IP addresses."""


class FrameEditor:
    """A mutable copy of a frame that knows where its headers are.

    `parsed.frame` must hold the whole packet when SCTP ports are to be changed; all other edits
    work on a cut copy too.
    """

    def __init__(self, parsed: ParsedFrame) -> None:
        key = parsed.key
        self._parsed = parsed
        self._shifted = 0
        self._buffer = bytearray(parsed.frame)
        self._is_tagged = bool(key.vlan_tci)
        self._eth_type = key.eth_type
        self._protocol = key.ip_proto
        self._l3 = parsed.l3_offset
        self._l4 = parsed.l4_offset if key.ip_frag != FragmentKind.LATER else 0
        self._packet_end = min(len(parsed.frame), parsed.l3_offset + parsed.packet_length)

    def frame(self) -> bytes:
        """Return the frame as edited so far."""
        return bytes(self._buffer)

    # Link layer.

    def set_eth_dst(self, mac: int) -> None:
        """Write the destination MAC."""
        self._buffer[0:6] = mac.to_bytes(6, "big")

    def set_eth_src(self, mac: int) -> None:
        """Write the source MAC."""
        self._buffer[6:12] = mac.to_bytes(6, "big")

    def pop_vlan(self) -> None:
        """Remove the outermost tag, if there is one."""
        if self._is_tagged:
            del self._buffer[12:16]
            self._is_tagged = False
            self._shift(-4)

    def push_vlan(self, tci: int) -> None:
        """Insert an 802.1Q tag in front of everything behind the MACs. tci: 16 bits."""
        self._buffer[12:12] = (EtherType.VLAN << 16 | tci).to_bytes(4, "big")
        self._is_tagged = True
        self._shift(4)

    # Network layer.

    def set_ip_src(self, address: int) -> None:
        """Write the source address, of the version of the packet."""
        self._set_address(12 if self._eth_type == _IPV4 else 8, address)

    def set_ip_dst(self, address: int) -> None:
        """Write the destination address, of the version of the packet."""
        self._set_address(16 if self._eth_type == _IPV4 else 24, address)

    def set_ip_tos(self, tos: int) -> None:
        """Write the 8 bits of TOS or traffic class."""
        if self._eth_type == _IPV4:
            old = self._word(self._l3)
            self._replace_ipv4_word(self._l3, old & 0xFF00 | tos)
        elif self._eth_type == _IPV6:
            old = self._word(self._l3)
            self._put(self._l3, 2, old & 0xF00F | tos << 4)

    def decrement_ttl(self, amount: int = 1) -> None:
        """Subtract from TTL or hop limit.

        Raises InternalError when it would not stay above zero: a guard lets no such packet by.
        """
        if self._eth_type == _IPV4:
            offset, shift = self._l3 + 8, 8
        elif self._eth_type == _IPV6:
            offset, shift = self._l3 + 6, 0
        else:
            return
        old = self._word(offset)
        if (old >> shift & 0xFF) <= amount:
            raise InternalError("a TTL would not stay above zero")
        new = old - (amount << shift)
        if self._eth_type == _IPV4:
            self._replace_ipv4_word(offset, new)
        else:
            self._put(offset, 2, new)

    # Transport layer.

    def set_l4_src(self, port: int) -> None:
        """Write the source port of TCP, UDP or SCTP."""
        self._set_port(0, port)

    def set_l4_dst(self, port: int) -> None:
        """Write the destination port of TCP, UDP or SCTP."""
        self._set_port(2, port)

    def set_icmp_id(self, identifier: int) -> None:
        """Write the identifier of an ICMP or ICMPv6 echo."""
        if self._l4 and self._protocol in (_ICMP, _ICMPV6):
            offset, checksum_at = self._l4 + 4, self._l4 + 2
            updated = updated_checksum(self._word(checksum_at), self._word(offset), identifier)
            self._put(checksum_at, 2, updated)
            self._put(offset, 2, identifier)

    # The packet quoted in an ICMP error. Each change is carried into the checksums of the quote, as
    # far as they are quoted, and into that of the error. A quoted SCTP checksum stays: it covers
    # a packet that is not at hand, and who gets the quote does not verify it.

    def set_quoted_src(self, address: int) -> None:
        """Write the source address of the quoted packet."""
        self._set_quoted_address(12, 8, address)

    def set_quoted_dst(self, address: int) -> None:
        """Write the destination address of the quoted packet."""
        self._set_quoted_address(16, 24, address)

    def set_quoted_l4_src(self, port: int) -> None:
        """Write the quoted source port of TCP, UDP or SCTP; of an echo its identifier."""
        self._set_quoted_port(0, port)

    def set_quoted_l4_dst(self, port: int) -> None:
        """Write the quoted destination port of TCP, UDP or SCTP; of an echo its identifier."""
        self._set_quoted_port(2, port)

    def _quote(self) -> Quote | None:
        """Return the quote where it is by now."""
        quote = find_quote(self._parsed)
        if quote is None or not self._shifted:
            return quote
        l4_offset = quote.l4_offset + self._shifted if quote.l4_offset else 0
        return quote._replace(
            l3_offset=quote.l3_offset + self._shifted,
            l4_offset=l4_offset,
            end=quote.end + self._shifted,
        )

    def _set_quoted_address(self, ipv4_field: int, ipv6_field: int, address: int) -> None:
        quote = self._quote()
        if quote is None:
            return
        is_ipv4 = self._eth_type == _IPV4
        size = 4 if is_ipv4 else 16
        offset = quote.l3_offset + (ipv4_field if is_ipv4 else ipv6_field)
        old = int.from_bytes(self._buffer[offset : offset + size], "big")
        if is_ipv4:
            checksum_at = quote.l3_offset + 10
            updated = updated_checksum(self._word(checksum_at), old, address, 32)
            self._put_quoted(checksum_at, 2, updated)
        self._put_quoted(offset, size, address)
        relative = _PSEUDO_HEADER_CHECKSUMS.get((self._eth_type, quote.protocol))
        if relative is not None:
            self._update_quoted_checksum(quote, relative, old, address, size * 8)

    def _set_quoted_port(self, field: int, port: int) -> None:
        quote = self._quote()
        if quote is None or quote.ports is None:
            return
        offset = quote.l4_offset + (4 if quote.is_echo else field)
        old = self._word(offset)
        self._put_quoted(offset, 2, port)
        relative = {_TCP: 16, _UDP: 6, _ICMP: 2, _ICMPV6: 2}.get(quote.protocol)
        if relative is not None:
            self._update_quoted_checksum(quote, relative, old, port, 16)

    def _update_quoted_checksum(
        self, quote: Quote, relative: int, old: int, new: int, bits: int
    ) -> None:
        checksum_at = quote.l4_offset + relative
        if quote.l4_offset and checksum_at + 2 <= quote.end:
            update = updated_udp_checksum if quote.protocol == _UDP else updated_checksum
            self._put_quoted(checksum_at, 2, update(self._word(checksum_at), old, new, bits))

    def _put_quoted(self, offset: int, size: int, value: int) -> None:
        """Write a field of the quote, at an even offset, and keep the error's checksum right."""
        old = int.from_bytes(self._buffer[offset : offset + size], "big")
        self._put(offset, size, value)
        checksum_at = self._l4 + 2
        self._put(checksum_at, 2, updated_checksum(self._word(checksum_at), old, value, size * 8))

    def _shift(self, amount: int) -> None:
        self._shifted += amount
        self._l3 += amount
        self._packet_end += amount
        if self._l4:
            self._l4 += amount

    def _word(self, offset: int) -> int:
        return self._buffer[offset] << 8 | self._buffer[offset + 1]

    def _put(self, offset: int, size: int, value: int) -> None:
        self._buffer[offset : offset + size] = value.to_bytes(size, "big")

    def _replace_ipv4_word(self, offset: int, new: int) -> None:
        checksum_at = self._l3 + 10
        updated = updated_checksum(self._word(checksum_at), self._word(offset), new)
        self._put(checksum_at, 2, updated)
        self._put(offset, 2, new)

    def _set_address(self, field: int, address: int) -> None:
        if self._eth_type == _IPV4:
            size = 4
        elif self._eth_type == _IPV6:
            size = 16
        else:
            return
        offset = self._l3 + field
        old = int.from_bytes(self._buffer[offset : offset + size], "big")
        if self._eth_type == _IPV4:
            checksum_at = self._l3 + 10
            updated = updated_checksum(self._word(checksum_at), old, address, 32)
            self._put(checksum_at, 2, updated)
        self._put(offset, size, address)
        relative = _PSEUDO_HEADER_CHECKSUMS.get((self._eth_type, self._protocol))
        if relative is not None and self._l4:
            self._update_transport_checksum(self._l4 + relative, old, address, size * 8)

    def _set_port(self, field: int, port: int) -> None:
        if not self._l4 or self._protocol not in (_TCP, _UDP, _SCTP):
            return
        offset = self._l4 + field
        old = self._word(offset)
        self._put(offset, 2, port)
        if self._protocol == _SCTP:
            self._update_sctp_checksum(offset, old ^ port)
        else:
            checksum_at = self._l4 + (16 if self._protocol == _TCP else 6)
            self._update_transport_checksum(checksum_at, old, port, 16)

    def _update_transport_checksum(self, offset: int, old: int, new: int, bits: int) -> None:
        update = updated_udp_checksum if self._protocol == IpProtocol.UDP else updated_checksum
        self._put(offset, 2, update(self._word(offset), old, new, bits))

    def _update_sctp_checksum(self, offset: int, difference: int) -> None:
        change = crc32c_change(difference.to_bytes(2, "big"), self._packet_end - offset - 2)
        checksum_at = self._l4 + 8
        old = int.from_bytes(self._buffer[checksum_at : checksum_at + 4], "little")
        self._buffer[checksum_at : checksum_at + 4] = (old ^ change).to_bytes(4, "little")
