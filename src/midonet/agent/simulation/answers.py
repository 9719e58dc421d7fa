"""What the sender of a refused packet is told: ICMP and ICMPv6 errors, TCP resets.

Errors come from the router that the packet entered last, out of the port by which it entered,
and quote the packet as that router received it. Without a router on the way a refused TCP or
UDP packet is answered in the name of its addressee; bridges have no address for more.

No error answers (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4 e): an error; a packet to a
group, to a broadcast address or in a group frame; a packet whose source names no single host;
a later IPv4 fragment. Such a packet is dropped silently, and what was looked at is recorded.
Nothing answers the copies of mirrors: their senders do not know of them.
"""

from __future__ import annotations

from midonet.agent.flow_state.connection import Connection, Direction
from midonet.agent.flow_state.sight import Sight, Standing
from midonet.agent.flows.apply import apply_rewrite
from midonet.agent.flows.program import NO_REWRITE, SlowPathReason
from midonet.agent.simulation.header import (
    ETH_DST,
    ETH_TYPE,
    IP_DST,
    IP_FRAG,
    IP_PROTO,
    IP_PROTO_ICMP,
    IP_PROTO_ICMPV6,
    IP_PROTO_TCP,
    IP_PROTO_UDP,
    IP_SRC,
    L4_SRC,
    Header,
)
from midonet.agent.simulation.link_local import is_link_local, link_local_address
from midonet.agent.simulation.port_networks import is_subnet_broadcast
from midonet.agent.simulation.result import GeneratedPacket
from midonet.agent.simulation.trace import Answered
from midonet.agent.simulation.walk import MAX_GENERATED, Walk
from midonet.agent.topology.view import PortView
from midonet.model.ids import PortId
from midonet.packets.address_kinds import AddressKind, address_kind
from midonet.packets.addresses import IpAddress, IpVersion, is_multicast_mac
from midonet.packets.build import answering
from midonet.packets.flowkey import FragmentKind
from midonet.packets.frame import ParsedFrame, parse_frame
from midonet.packets.icmp_error import IcmpError, icmp_error
from midonet.packets.tcp import TcpFlag
from midonet.packets.tcp_reset import tcp_reset

_EXAMINED = (ETH_DST, ETH_TYPE, IP_PROTO, IP_FRAG, IP_SRC, IP_DST, L4_SRC)
_ICMPV4_ERRORS = frozenset((3, 4, 5, 11, 12))
_ICMPV6_REDIRECT = 137
_HOSTS = frozenset((AddressKind.HOST, AddressKind.LINK_LOCAL))


def packet_as_seen(walk: Walk, header: Header) -> ParsedFrame:
    """Return the packet as it looked at the place on its way where it had `header`."""
    packet, rewrite = walk.inputs.packet, header.rewrite()
    if rewrite == NO_REWRITE:
        return packet
    frame = apply_rewrite(packet.frame, rewrite)
    length = packet.length + len(frame) - len(packet.frame)
    return parse_frame(frame, length=length, gso_size=packet.gso_size)


def packet_as_received(walk: Walk) -> ParsedFrame:
    """Return the packet as the last router on the way received it."""
    visit = walk.branch.router
    return packet_as_seen(walk, visit.header) if visit else walk.inputs.packet


def is_error(header: Header) -> bool:
    """Tell whether an IPv4 packet is an ICMP error, the first of its fragments if it has any."""
    return (
        header.read(IP_PROTO) == IP_PROTO_ICMP
        and header.read(IP_FRAG) != FragmentKind.LATER
        and header.read(L4_SRC) in _ICMPV4_ERRORS
    )


def answer_prohibited(walk: Walk) -> None:
    """Tell that the way is closed by an administrator."""
    _answer(walk, IcmpError.PROHIBITED)


def answer_no_route(walk: Walk) -> None:
    """Tell that there is no route."""
    _answer(walk, IcmpError.NO_ROUTE)


def answer_unreachable(walk: Walk) -> None:
    """Tell that the next hop does not answer."""
    _answer(walk, IcmpError.ADDRESS_UNREACHABLE)


def answer_time_exceeded(walk: Walk) -> None:
    """Tell that the TTL or hop limit ran out."""
    _answer(walk, IcmpError.TIME_EXCEEDED)


def answer_too_big(walk: Walk, mtu_bytes: int) -> None:
    """Tell which size would pass."""
    _answer(walk, IcmpError.TOO_BIG, mtu_bytes)


def answer_reject(walk: Walk) -> None:
    """Refuse as a closed port would: reset for TCP, port unreachable for UDP.

    Other protocols, and later fragments, are told that it is prohibited.
    """
    protocol = _transport_protocol(walk)
    if protocol == IP_PROTO_TCP:
        _reset(walk)
    elif protocol == IP_PROTO_UDP:
        _answer(walk, IcmpError.PORT_UNREACHABLE)
    else:
        _answer(walk, IcmpError.PROHIBITED)


def answer_not_served(walk: Walk) -> None:
    """Refuse a packet to the router itself. Nothing is said about other protocols."""
    protocol = _transport_protocol(walk)
    if protocol == IP_PROTO_TCP:
        _reset(walk)
    elif protocol == IP_PROTO_UDP:
        _answer(walk, IcmpError.PORT_UNREACHABLE)


def _transport_protocol(walk: Walk) -> int:
    """Return the protocol of a packet with a transport header that can be answered, else 0."""
    header = walk.header
    version = header.ip_version()
    if version is None or header.read(IP_FRAG) == FragmentKind.LATER:
        return 0
    return header.read(IP_PROTO)


def _answer(walk: Walk, error: IcmpError, mtu_bytes: int = 0) -> None:
    if walk.branch.copy:
        return
    visit = walk.branch.router
    _record_examined(walk)
    if walk.inputs.packet.ip_version is None:
        return
    if visit is None:
        _answer_for_addressee(walk, error)
        return
    offending = packet_as_seen(walk, visit.header)
    source = _source_address(visit.port, offending)
    if source is None or not _may_answer(offending, error, visit.port):
        return
    frame = icmp_error(error, offending, answering(offending, ip_src=source), mtu_bytes=mtu_bytes)
    _generate(walk, visit.port.id, frame, error.value)


def _record_examined(walk: Walk) -> None:
    visit = walk.branch.router
    header = visit.header if visit else walk.header
    for field in _EXAMINED:
        header.read(field)


def _answer_for_addressee(walk: Walk, error: IcmpError) -> None:
    """Answer without a router on the way. The addressee itself would say no more than this."""
    if walk.inputs.is_generated or error is not IcmpError.PORT_UNREACHABLE:
        return
    if not _may_answer(walk.inputs.packet, error, None):
        return
    frame = icmp_error(error, walk.inputs.packet, answering(walk.inputs.packet))
    _generate(walk, walk.inputs.ingress, frame, error.value)


def _reset(walk: Walk) -> None:
    if walk.branch.copy:
        return
    visit = walk.branch.router
    _record_examined(walk)
    segment = packet_as_received(walk)
    # The flags are no part of the flow key, so no outcome of this may be installed.
    walk.findings.slow_path = walk.findings.slow_path or SlowPathReason.ANSWERED
    # What a device made has no sender behind its first port.
    if walk.inputs.is_generated and visit is None:
        return
    if segment.key.ip_frag != FragmentKind.NONE or segment.tcp_flags & TcpFlag.RST:
        return
    if not _names_one_host(segment):
        return
    frame = tcp_reset(segment)
    if frame is not None:
        _generate(walk, visit.port.id if visit else walk.inputs.ingress, frame, "tcp_reset")


def _generate(walk: Walk, port_id: PortId, frame: bytes, answer: str) -> None:
    walk.findings.slow_path = walk.findings.slow_path or SlowPathReason.ANSWERED
    if len(walk.findings.generated) >= MAX_GENERATED:
        return
    refusal = GeneratedPacket(port_id, frame, sight=_back(walk), is_refusal=True)
    walk.findings.generated.append(refusal)
    if walk.findings.steps is not None:
        walk.step(Answered(port_id, answer))


def _back(walk: Walk) -> Sight | None:
    """Return what an answer to a packet is that would have begun a connection, and has been
    translated on its way for that: it goes back through the same translations."""
    observed, bindings = walk.findings.observation, walk.branch.bindings
    if not bindings or observed is None or observed.key is None:
        return None
    if observed.sight.standing in (Standing.KNOWN, Standing.RELATED):
        return None  # the connection is there
    unborn = Connection(observed.key, (), walk.inputs.ingress, bindings)
    return Sight(Standing.RELATED, Direction.RETURN, unborn)


def _source_address(port: PortView, offending: ParsedFrame) -> IpAddress | None:
    """Return the address of the port to answer from: on the sender's network if there is one."""
    version = offending.ip_version
    prefixes = [prefix for prefix in port.addresses if prefix.version == version]
    if version is None or not prefixes:
        return None
    sender = IpAddress(version, offending.key.ip_src)
    for prefix in prefixes:
        if prefix.contains(sender):
            return prefix.address
    if version is IpVersion.V6 and is_link_local(sender.value):
        return IpAddress(version, link_local_address(port.mac))
    return prefixes[0].address


def _names_one_host(packet: ParsedFrame) -> bool:
    """Tell whether source and destination are single hosts, in a frame to a single station."""
    key = packet.key
    version = IpVersion.V6 if packet.ip_version is IpVersion.V6 else IpVersion.V4
    return (
        not is_multicast_mac(key.eth_dst)
        and address_kind(version, key.ip_src) in _HOSTS
        and address_kind(version, key.ip_dst) in _HOSTS
    )


def _may_answer(packet: ParsedFrame, error: IcmpError, port: PortView | None) -> bool:
    key = packet.key
    if packet.ip_version is IpVersion.V6:
        if key.ip_proto == IP_PROTO_ICMPV6 and (
            key.ip_frag == FragmentKind.LATER or key.l4_src < 128 or key.l4_src == _ICMPV6_REDIRECT
        ):
            return False
        if error is IcmpError.TOO_BIG:
            return address_kind(IpVersion.V6, key.ip_src) in _HOSTS
        return _names_one_host(packet)
    if key.ip_frag == FragmentKind.LATER:
        return False
    if key.ip_proto == IP_PROTO_ICMP and key.l4_src in _ICMPV4_ERRORS:
        return False
    if port is not None and is_subnet_broadcast(port, key.ip_dst):
        return False
    return _names_one_host(packet)
