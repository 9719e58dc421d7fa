"""DHCP at the bound ports of bridges (RFC 2131): the bridge answers its clients itself.

A request is looked at before anything else happens at the port: a machine gets its address
whatever the state and the filters of its port, and the answer leaves by that port past both.
Only clients with an entry are served; what others ask goes on as any frame, to whoever serves
them. A client is known by the MAC that its frames come from.

A message is a client's when it goes from port 68 to port 67 and to everybody or to the server
itself, so that what a client says to another server is left alone, and so that of other traffic
no more is recorded than that its destination is neither. Every message is decided on one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import SlowPathReason
from midonet.agent.flows.tags import device_tag, mac_tag
from midonet.agent.simulation.dhcp_v6_server import SERVER_MAC, serve_v6
from midonet.agent.simulation.header import (
    ETH_SRC,
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    IP_DST,
    IP_FRAG,
    IP_PROTO,
    IP_PROTO_UDP,
    L4_DST,
    L4_SRC,
)
from midonet.agent.simulation.result import GeneratedPacket
from midonet.agent.simulation.trace import Answered, LookedUpClient
from midonet.agent.simulation.walk import Dropped, Ended, Outcome, Walk
from midonet.agent.topology.dhcp_views import BridgeDhcp, DhcpLease, DhcpSubnetView
from midonet.agent.topology.view import PortView
from midonet.errors import DecodeError
from midonet.model.dhcp_options import NEXT_SERVER, classless_routes
from midonet.model.ids import BridgeId
from midonet.packets.addresses import (
    MAC_BROADCAST,
    IpAddress,
    IpPrefix,
    IpVersion,
    format_mac,
    prefix_mask,
)
from midonet.packets.build import Envelope, udp_frame
from midonet.packets.dhcpv4 import (
    BOOTREPLY,
    BOOTREQUEST,
    BROADCAST_FLAG,
    DHCP_CLIENT_PORT,
    DHCP_SERVER_PORT,
    SMALLEST_MESSAGE_BYTES,
    DhcpMessageType,
    DhcpOption,
    DhcpOptionCode,
    Dhcpv4Message,
    room_for_options,
    serialise_option,
)
from midonet.packets.flowkey import FragmentKind
from midonet.packets.udp import UDP_HEADER_SIZE

LEASE_TIME_S = 86_400
USUAL_MTU_BYTES = 1500
LEAST_MTU_BYTES = 68
"""A smaller MTU cannot be told (RFC 2132 section 5.1)."""

_BROADCAST = 0xFFFF_FFFF
_SMALLEST_CLIENT_BYTES = 576
"""IP packet that every client takes (RFC 2131 section 2)."""
_LARGEST_CLIENT_BYTES = 1500

_DEFAULT_ROUTE = IpPrefix(IpVersion.V4, 0, 0)
_SILENT = frozenset((DhcpMessageType.DECLINE, DhcpMessageType.RELEASE))
_ALWAYS = (
    DhcpOptionCode.MESSAGE_TYPE,
    DhcpOptionCode.SERVER_IDENTIFIER,
    DhcpOptionCode.LEASE_TIME,
)


def serve_dhcp(walk: Walk, port: PortView) -> Outcome | None:
    """Return what becomes of a packet of a DHCP client, None for any other packet."""
    if port.bridge_id is None or port.host_id is None:
        return None
    walk.findings.tags.append(device_tag(port.bridge_id))
    served = walk.inputs.view.dhcp.get(port.bridge_id)
    if served is None or walk.header.vlan_id():
        return None
    eth_type = walk.header.read(ETH_TYPE)
    if eth_type == ETH_TYPE_IPV4:
        return _serve_v4(walk, port, port.bridge_id, served)
    return serve_v6(walk, port, port.bridge_id, served) if eth_type == ETH_TYPE_IPV6 else None


def _serve_v4(
    walk: Walk, port: PortView, bridge_id: BridgeId, served: BridgeDhcp
) -> Outcome | None:
    header = walk.header
    mac = header.read(ETH_SRC)
    walk.findings.tags.append(mac_tag(bridge_id, 0, mac))
    found = served.v4.lease_of(mac)
    if found is None:
        _trace_unknown(walk, bridge_id, mac)
        return None
    subnet, lease = found
    if not _is_request(walk, subnet):
        return None
    # What is asked is no part of the flow key.
    walk.findings.slow_path = SlowPathReason.DHCP
    if walk.findings.steps is not None:
        address = IpAddress(IpVersion.V4, lease.address)
        walk.step(LookedUpClient(bridge_id, format_mac(mac), address))
    packet = walk.inputs.packet
    payload = packet.frame[
        packet.l4_offset + UDP_HEADER_SIZE : packet.l3_offset + packet.packet_length
    ]
    try:
        request = Dhcpv4Message.parse(payload)
        if packet.is_cut or request.operation != BOOTREQUEST or request.hardware_length != 6:
            return Dropped(DropReason.MALFORMED)
        return _answer(_Exchange(walk, port, request, subnet, lease))
    except DecodeError:
        return Dropped(DropReason.MALFORMED)


def _is_request(walk: Walk, subnet: DhcpSubnetView) -> bool:
    header = walk.header
    return (
        (header.within(IP_DST, _BROADCAST, 32, 32) or header.within(IP_DST, subnet.server, 32, 32))
        and header.read(IP_PROTO) == IP_PROTO_UDP
        and header.read(IP_FRAG) == FragmentKind.NONE
        and header.read(L4_DST) == DHCP_SERVER_PORT
        and header.read(L4_SRC) == DHCP_CLIENT_PORT
    )


def _trace_unknown(walk: Walk, bridge_id: BridgeId, mac: int) -> None:
    """Tell people that a client has no entry. Nothing is recorded: no bit of it mattered."""
    values = walk.header.values
    if (
        walk.findings.steps is not None
        and values[IP_PROTO] == IP_PROTO_UDP
        and (values[L4_SRC], values[L4_DST]) == (DHCP_CLIENT_PORT, DHCP_SERVER_PORT)
    ):
        walk.step(LookedUpClient(bridge_id, format_mac(mac), None))


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A request, and from what it is answered."""

    walk: Walk
    port: PortView
    request: Dhcpv4Message
    subnet: DhcpSubnetView
    lease: DhcpLease


def _answer(exchange: _Exchange) -> Outcome:
    """Answer a request. Raises DecodeError when an option that matters is malformed."""
    request = exchange.request
    kind = request.number(DhcpOptionCode.MESSAGE_TYPE, 1)
    if kind is None:
        return Dropped(DropReason.MALFORMED)
    if kind == DhcpMessageType.DISCOVER:
        _reply(exchange, DhcpMessageType.OFFER)
    elif kind == DhcpMessageType.REQUEST:
        is_agreed = _wanted(request) in (None, exchange.lease.address)
        _reply(exchange, DhcpMessageType.ACK if is_agreed else DhcpMessageType.NAK)
    elif kind == DhcpMessageType.INFORM:
        _reply(exchange, DhcpMessageType.ACK, is_informing=True)
    elif kind not in _SILENT:
        return Dropped(DropReason.DHCP_NOT_SERVED, object_id=exchange.port.bridge_id)
    return Ended.TAKEN


def _wanted(request: Dhcpv4Message) -> int | None:
    """Return the address that a client asks for, or has already; None when it names none.

    A client names the address that it has in `ciaddr` (RFC 2131 section 4.3.2).
    """
    requested = request.number(DhcpOptionCode.REQUESTED_ADDRESS, 4)
    return requested if requested is not None else request.client_address or None


def _reply(exchange: _Exchange, kind: DhcpMessageType, *, is_informing: bool = False) -> None:
    request, subnet, lease = exchange.request, exchange.subnet, exchange.lease
    is_refusal = kind is DhcpMessageType.NAK
    known: dict[int, bytes] = {
        DhcpOptionCode.MESSAGE_TYPE: bytes((kind,)),
        DhcpOptionCode.SERVER_IDENTIFIER: subnet.server.to_bytes(4, "big"),
    }
    if not is_refusal and not is_informing:
        known[DhcpOptionCode.LEASE_TIME] = LEASE_TIME_S.to_bytes(4, "big")
    extra = {} if is_refusal else {option.code: option.value for option in lease.options}
    next_server = extra.pop(NEXT_SERVER, bytes(4))
    if not is_refusal:
        known |= _configuration(exchange.walk, subnet) | extra
    reply = Dhcpv4Message(
        operation=BOOTREPLY,
        transaction_id=request.transaction_id,
        hardware_address=request.hardware_address,
        hardware_type=request.hardware_type,
        flags=request.flags,
        client_address=request.client_address if kind is DhcpMessageType.ACK else 0,
        your_address=0 if is_refusal or is_informing else lease.address,
        next_server=int.from_bytes(next_server, "big"),
        relay_address=request.relay_address,
        options=_fitting(request, known),
    )
    _send(exchange, reply, kind)


def _configuration(walk: Walk, subnet: DhcpSubnetView) -> dict[int, bytes]:
    """Return the options of a subnet by code."""
    prefix = subnet.prefix
    mask = prefix_mask(IpVersion.V4, prefix.length)
    values: dict[int, bytes] = {
        DhcpOptionCode.SUBNET_MASK: mask.to_bytes(4, "big"),
        DhcpOptionCode.BROADCAST_ADDRESS: (prefix.network | mask ^ _BROADCAST).to_bytes(4, "big"),
    }
    mtu_bytes = told_mtu(walk, subnet.mtu_bytes)
    if mtu_bytes is not None:
        values[DhcpOptionCode.MTU] = mtu_bytes.to_bytes(2, "big")
    if subnet.gateway is not None:
        values[DhcpOptionCode.ROUTERS] = subnet.gateway.to_bytes(4, "big")
    if subnet.dns:
        values[DhcpOptionCode.DNS_SERVERS] = b"".join(one.to_bytes(4, "big") for one in subnet.dns)
    routes = list(subnet.routes)
    if routes and subnet.gateway is not None:
        # A client that heeds option 121 ignores the router of option 3 (RFC 3442).
        routes.append((_DEFAULT_ROUTE, subnet.gateway))
    if routes:
        values[DhcpOptionCode.CLASSLESS_ROUTES] = classless_routes(routes)
    return values


def told_mtu(walk: Walk, configured_bytes: int) -> int | None:
    """Return the MTU that machines are told: no more than the overlay carries; None for none."""
    mtu_bytes = configured_bytes or USUAL_MTU_BYTES
    if walk.inputs.view.overlay_mtu_bytes:
        mtu_bytes = min(mtu_bytes, walk.inputs.view.overlay_mtu_bytes)
    return min(mtu_bytes, 0xFFFF) if mtu_bytes >= LEAST_MTU_BYTES else None


def _fitting(request: Dhcpv4Message, values: Mapping[int, bytes]) -> tuple[DhcpOption, ...]:
    """Return as many options as the client has room for: what it asks for comes first, in its
    order (RFC 2132 section 9.8)."""
    size = request.number(DhcpOptionCode.MAX_MESSAGE_SIZE, 2) or 0
    size = max(_SMALLEST_CLIENT_BYTES, min(size, _LARGEST_CLIENT_BYTES))
    room = room_for_options(size)
    requested = request.option(DhcpOptionCode.PARAMETER_LIST) or b""
    chosen = []
    for code in dict.fromkeys((*map(int, _ALWAYS), *requested, *values)):
        if code not in values:
            continue
        option = DhcpOption(code, values[code])
        length = len(serialise_option(option))
        if length <= room:
            chosen.append(option)
            room -= length
    return tuple(chosen)


def _send(exchange: _Exchange, reply: Dhcpv4Message, kind: DhcpMessageType) -> None:
    """Let a reply leave by the port where its request came in (RFC 2131 section 4.1)."""
    walk, request = exchange.walk, exchange.request
    eth_dst, ip_dst = walk.inputs.packet.key.eth_src, reply.your_address
    if request.relay_address:
        ip_dst = request.relay_address
    elif kind is DhcpMessageType.NAK or (
        not request.client_address and request.flags & BROADCAST_FLAG
    ):
        eth_dst, ip_dst = MAC_BROADCAST, _BROADCAST
    elif request.client_address:
        ip_dst = request.client_address
    envelope = Envelope(
        SERVER_MAC,
        eth_dst,
        IpAddress(IpVersion.V4, exchange.subnet.server),
        IpAddress(IpVersion.V4, ip_dst),
    )
    to_port = DHCP_SERVER_PORT if request.relay_address else DHCP_CLIENT_PORT
    payload = reply.serialise().ljust(SMALLEST_MESSAGE_BYTES, b"\0")
    frame = udp_frame(envelope, DHCP_SERVER_PORT, to_port, payload)
    walk.findings.generated.append(GeneratedPacket(exchange.port.id, frame, is_unfiltered=True))
    if walk.findings.steps is not None:
        address = IpAddress(IpVersion.V4, exchange.lease.address)
        walk.step(Answered(exchange.port.id, f"DHCP {kind.name}, the address is {address}"))
