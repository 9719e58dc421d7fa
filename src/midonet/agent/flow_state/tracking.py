"""What a packet is to the connection that is found for it, and what may begin one. Pure."""

from __future__ import annotations

from midonet.agent.flow_state.connection import Connection, TcpState
from midonet.agent.flow_state.sight import Standing
from midonet.agent.flow_state.tcp_table import is_pure_syn
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import ParsedFrame
from midonet.packets.icmpv4 import Icmpv4Type
from midonet.packets.icmpv6 import Icmpv6Type
from midonet.packets.protocols import IpProtocol
from midonet.packets.tcp import TcpFlag

_TCP = int(IpProtocol.TCP)
_ICMP, _ICMPV6 = int(IpProtocol.ICMP), int(IpProtocol.ICMPV6)
_ECHO_REPLIES = {_ICMP: int(Icmpv4Type.ECHO_REPLY), _ICMPV6: int(Icmpv6Type.ECHO_REPLY)}
_ERRORS = {
    (IpVersion.V4, _ICMP): frozenset((3, 4, 5, 11, 12)),
    (IpVersion.V6, _ICMPV6): frozenset((1, 2, 3, 4)),
}
_RESET = int(TcpFlag.RST)


def is_echo_reply(packet: ParsedFrame) -> bool:
    """Tell whether a packet that has a five-tuple is an ICMP echo reply."""
    return _ECHO_REPLIES.get(packet.key.ip_proto) == packet.key.l4_src


def is_icmp_error(packet: ParsedFrame) -> bool:
    """Tell whether a packet is an ICMP or ICMPv6 error, which is about another packet."""
    version = packet.ip_version
    if version is None or packet.key.ip_frag == FragmentKind.LATER:
        return False
    return packet.key.l4_src in _ERRORS.get((version, packet.key.ip_proto), ())


def standing(found: Connection | None, packet: ParsedFrame) -> Standing:
    """Return the standing of a packet with a five-tuple, by the connection that has its key.

    A SYN on a connection that is over begins another one. TCP in mid-stream and an echo reply
    without connection may belong to one that another host knows.
    """
    is_tcp = packet.key.ip_proto == _TCP
    opens = is_tcp and is_pure_syn(packet.tcp_flags)
    if found is not None:
        is_over = opens and found.tcp >= TcpState.CLOSING
        return Standing.NEW if is_over else Standing.KNOWN
    if (is_tcp and not opens) or is_echo_reply(packet):
        return Standing.UNKNOWN
    return Standing.NEW


def may_begin(key: FiveTuple | None, packet: ParsedFrame) -> bool:
    """Tell whether a packet with this five-tuple may begin a connection.

    Not what has no tuple (a later fragment, an ICMP error), nor an answer: an echo reply, a reset.
    """
    if key is None or is_echo_reply(packet):
        return False
    return key.protocol != _TCP or not packet.tcp_flags & _RESET
