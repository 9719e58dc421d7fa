"""How long a connection without packets is remembered, in seconds: one list.

Beside each the least that the RFC asks of it. A NAT must keep to that, and a filter has no reason
to be stricter: a reply that comes too late looks like an attack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from midonet.agent.flow_state.connection import Connection, TcpState
from midonet.packets.protocols import IpProtocol

_TCP = int(IpProtocol.TCP)
_UDP = int(IpProtocol.UDP)
_ICMP = frozenset((int(IpProtocol.ICMP), int(IpProtocol.ICMPV6)))


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Idle times in seconds."""

    tcp_opening_s: float = 240.0  # RFC 5382 REQ-5: transitory, 240
    tcp_established_s: float = 7440.0  # RFC 5382 REQ-5: established, 7440 (2 h 4 min)
    tcp_closing_s: float = 240.0  # RFC 5382 REQ-5: transitory, 240
    tcp_closed_s: float = 240.0  # RFC 7857 section 2.2: after a reset, 240
    udp_unanswered_s: float = 120.0  # RFC 4787 REQ-5: 120
    udp_answered_s: float = 300.0  # RFC 4787 REQ-5: 120, and 300 recommended
    icmp_s: float = 60.0  # RFC 5508 REQ-2: 60
    other_s: float = 300.0  # SCTP: no RFC asks; ten of its heartbeats (RFC 9260 section 15)


DEFAULT_TIMEOUTS: Final = Timeouts()


def idle_lifetime_s(connection: Connection, timeouts: Timeouts = DEFAULT_TIMEOUTS) -> float:
    """Return how long (s) after its last packet a connection is over.

    A TCP connection is established only when both sides have been seen: whoever sends SYN and
    ACK without being answered holds nothing for two hours.
    """
    protocol = connection.forward.tuple.protocol
    if protocol == _TCP:
        return _tcp_lifetime_s(connection, timeouts)
    if protocol == _UDP:
        return timeouts.udp_answered_s if connection.is_answered else timeouts.udp_unanswered_s
    return timeouts.icmp_s if protocol in _ICMP else timeouts.other_s


def _tcp_lifetime_s(connection: Connection, timeouts: Timeouts) -> float:
    state = connection.tcp
    if state is TcpState.CLOSED:
        return timeouts.tcp_closed_s
    if state is TcpState.CLOSING:
        return timeouts.tcp_closing_s
    if state < TcpState.ESTABLISHED or not connection.is_answered:
        return timeouts.tcp_opening_s
    return timeouts.tcp_established_s
