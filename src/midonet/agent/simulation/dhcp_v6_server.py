"""DHCPv6 at the bound ports of bridges (RFC 8415): the bridge answers its clients itself.

Clients with an entry are given its address; which they are is told by their DUID, or by the MAC
that their frames come from. To those without an entry a bridge with a subnet gives what needs no
address (information request); all else that they ask goes on as any frame, to whoever serves
them. As with DHCP, neither the state nor the filters of the port are asked, both ways.

The client's DUID is no part of the flow key, so where DHCPv6 is served every message of a client
is looked at, whether it is answered or not.
"""

from __future__ import annotations

from dataclasses import dataclass

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import SlowPathReason
from midonet.agent.simulation.header import (
    IP_DST,
    IP_FRAG,
    IP_PROTO,
    IP_PROTO_UDP,
    L4_DST,
    L4_SRC,
)
from midonet.agent.simulation.link_local import link_local_address
from midonet.agent.simulation.result import GeneratedPacket
from midonet.agent.simulation.trace import Answered, LookedUpClient
from midonet.agent.simulation.walk import Dropped, Ended, Outcome, Walk
from midonet.agent.topology.dhcp_views import BridgeDhcp, DhcpV6Lease, DhcpV6SubnetView
from midonet.agent.topology.view import PortView
from midonet.errors import DecodeError
from midonet.model.ids import BridgeId
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.packets.build import Envelope, udp_frame
from midonet.packets.dhcpv6 import (
    ALL_DHCP_AGENTS,
    DHCP6_CLIENT_PORT,
    DHCP6_SERVER_PORT,
    Dhcpv6Message,
    Dhcpv6MessageType,
    Dhcpv6Option,
    Dhcpv6OptionCode,
    Dhcpv6Status,
    IaAddress,
    IdentityAssociation,
    find_option,
)
from midonet.packets.domain_names import domain_names
from midonet.packets.flowkey import FragmentKind
from midonet.packets.udp import UDP_HEADER_SIZE

SERVER_MAC = 0x02A8_9CDE_3927
"""Source of what a bridge answers as a server, the same on every bridge."""

SERVER_DUID = bytes((0, 3, 0, 1)) + SERVER_MAC.to_bytes(6, "big")
"""DUID-LL of Ethernet (RFC 8415 section 11.4), the same on every bridge."""

LEASE_TIME_S = 86_400
RENEW_TIME_S = LEASE_TIME_S // 2
REBIND_TIME_S = LEASE_TIME_S * 4 // 5
"""T1 and T2 as RFC 8415 section 21.4 recommends."""

_HIGHEST_PREFERENCE = b"\xff"
_FOR_US = frozenset(
    (
        Dhcpv6MessageType.REQUEST,
        Dhcpv6MessageType.RENEW,
        Dhcpv6MessageType.RELEASE,
        Dhcpv6MessageType.DECLINE,
    )
)
"""Messages that name the server they are for."""
_FOR_ANY = frozenset(
    (Dhcpv6MessageType.SOLICIT, Dhcpv6MessageType.CONFIRM, Dhcpv6MessageType.REBIND)
)
_Options = tuple[Dhcpv6Option, ...]


def serve_v6(walk: Walk, port: PortView, bridge_id: BridgeId, served: BridgeDhcp) -> Outcome | None:
    """Return what becomes of a message of a DHCPv6 client, None for any other packet."""
    subnets = [subnet for subnet in served.v6.subnets.values() if subnet.is_enabled]
    if not subnets or not _is_message(walk):
        return None
    walk.findings.slow_path = SlowPathReason.DHCP
    packet = walk.inputs.packet
    payload = packet.frame[
        packet.l4_offset + UDP_HEADER_SIZE : packet.l3_offset + packet.packet_length
    ]
    try:
        message = Dhcpv6Message.parse(payload)
        client = find_option(message.options, Dhcpv6OptionCode.CLIENT_ID)
        server = find_option(message.options, Dhcpv6OptionCode.SERVER_ID)
        if packet.is_cut:
            return Dropped(DropReason.MALFORMED)
        if server not in (None, SERVER_DUID):
            return None
        asked = _Asked(walk, port, message, client)
        if message.kind == Dhcpv6MessageType.INFORMATION_REQUEST:
            return _inform(asked, subnets)
        if message.kind not in _FOR_US | _FOR_ANY:
            return Dropped(DropReason.DHCP_NOT_SERVED, object_id=bridge_id)
        if client is None or (server is None) is (message.kind in _FOR_US):
            return Dropped(DropReason.MALFORMED)
        found = served.v6.lease_of(client) or served.v6.lease_of(
            packet.key.eth_src.to_bytes(6, "big")
        )
        _trace_client(walk, bridge_id, client, found[1] if found else None)
        if found is None:
            return None
        return _Exchange(asked, *found).answer()
    except DecodeError:
        return Dropped(DropReason.MALFORMED)


def _is_message(walk: Walk) -> bool:
    header = walk.header
    return (
        header.within(IP_DST, ALL_DHCP_AGENTS, 128, 128)
        and header.read(IP_PROTO) == IP_PROTO_UDP
        and header.read(IP_FRAG) == FragmentKind.NONE
        and header.read(L4_DST) == DHCP6_SERVER_PORT
        and header.read(L4_SRC) == DHCP6_CLIENT_PORT
    )


def _trace_client(
    walk: Walk, bridge_id: BridgeId, client: bytes, lease: DhcpV6Lease | None
) -> None:
    if walk.findings.steps is not None:
        address = None if lease is None else IpAddress(IpVersion.V6, lease.address)
        walk.step(LookedUpClient(bridge_id, client.hex(":"), address))


@dataclass(frozen=True, slots=True)
class _Asked:
    """A message that came in at a port. client: its DUID, None when it does not tell."""

    walk: Walk
    port: PortView
    message: Dhcpv6Message
    client: bytes | None

    def reply(self, kind: Dhcpv6MessageType, options: _Options) -> Outcome:
        """Let an answer leave by the port where the message came in."""
        names = [Dhcpv6Option(Dhcpv6OptionCode.SERVER_ID, SERVER_DUID)]
        if self.client is not None:
            names.insert(0, Dhcpv6Option(Dhcpv6OptionCode.CLIENT_ID, self.client))
        answer = Dhcpv6Message(kind, self.message.transaction_id, (*names, *options))
        key, findings = self.walk.inputs.packet.key, self.walk.findings
        envelope = Envelope(
            SERVER_MAC,
            key.eth_src,
            IpAddress(IpVersion.V6, link_local_address(SERVER_MAC)),
            IpAddress(IpVersion.V6, key.ip_src),
        )
        frame = udp_frame(envelope, DHCP6_SERVER_PORT, DHCP6_CLIENT_PORT, answer.serialise())
        findings.generated.append(GeneratedPacket(self.port.id, frame, is_unfiltered=True))
        if findings.steps is not None:
            self.walk.step(Answered(self.port.id, f"DHCPv6 {kind.name}"))
        return Ended.TAKEN


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A message of a client with an entry, and from what it is answered."""

    asked: _Asked
    subnet: DhcpV6SubnetView
    lease: DhcpV6Lease

    def answer(self) -> Outcome:
        """Answer it. Raises DecodeError when an option that matters is malformed."""
        kind = self.asked.message.kind
        if kind == Dhcpv6MessageType.CONFIRM:
            return self._confirm()
        if kind in (Dhcpv6MessageType.RELEASE, Dhcpv6MessageType.DECLINE):
            # The entry stays the operator's; that the message has come is all there is to say.
            return self.asked.reply(Dhcpv6MessageType.REPLY, (_status(Dhcpv6Status.SUCCESS),))
        associations, is_given = self._associations()
        options = associations + _configuration([self.subnet])
        if kind != Dhcpv6MessageType.SOLICIT:
            return self.asked.reply(Dhcpv6MessageType.REPLY, options)
        if not is_given:
            # Nobody asks for an address: only that is told (RFC 8415 section 18.3.9).
            options = (_status(Dhcpv6Status.NO_ADDRS_AVAIL),)
            return self.asked.reply(Dhcpv6MessageType.ADVERTISE, options)
        if find_option(self.asked.message.options, Dhcpv6OptionCode.RAPID_COMMIT) is not None:
            rapid = Dhcpv6Option(Dhcpv6OptionCode.RAPID_COMMIT)
            return self.asked.reply(Dhcpv6MessageType.REPLY, (rapid, *options))
        preference = Dhcpv6Option(Dhcpv6OptionCode.PREFERENCE, _HIGHEST_PREFERENCE)
        return self.asked.reply(Dhcpv6MessageType.ADVERTISE, (preference, *options))

    def _associations(self) -> tuple[_Options, bool]:
        """Return an answer to each association of the message, and whether an address is given.

        The first one is given the address; what else a client has is taken from it (lifetime 0).
        """
        answers: list[Dhcpv6Option] = []
        is_given = False
        for option in self.asked.message.options:
            if option.code == Dhcpv6OptionCode.IA_NA:
                answers.append(self._association(option.value, is_first=not is_given))
                is_given = True
            elif option.code == Dhcpv6OptionCode.IA_TA:
                status = _status(Dhcpv6Status.NO_ADDRS_AVAIL).serialise()
                answers.append(Dhcpv6Option(option.code, _identity(option.value) + status))
            elif option.code == Dhcpv6OptionCode.IA_PD:
                status = _status(Dhcpv6Status.NO_PREFIX_AVAIL).serialise()
                times = bytes(8)
                answers.append(Dhcpv6Option(option.code, _identity(option.value) + times + status))
        return tuple(answers), is_given

    def _association(self, value: bytes, *, is_first: bool) -> Dhcpv6Option:
        asked = IdentityAssociation.parse(value)
        options = [
            Dhcpv6Option(Dhcpv6OptionCode.IA_ADDRESS, IaAddress(address).serialise())
            for address in dict.fromkeys(asked.addresses)
            if not is_first or address != self.lease.address
        ]
        if not is_first:
            options.append(_status(Dhcpv6Status.NO_ADDRS_AVAIL))
            given = IdentityAssociation(asked.identity, options=tuple(options))
            return Dhcpv6Option(Dhcpv6OptionCode.IA_NA, given.serialise())
        address = IaAddress(self.lease.address, LEASE_TIME_S, LEASE_TIME_S)
        options.insert(0, Dhcpv6Option(Dhcpv6OptionCode.IA_ADDRESS, address.serialise()))
        given = IdentityAssociation(asked.identity, RENEW_TIME_S, REBIND_TIME_S, tuple(options))
        return Dhcpv6Option(Dhcpv6OptionCode.IA_NA, given.serialise())

    def _confirm(self) -> Outcome:
        """Tell whether a client's addresses are on this link (RFC 8415 section 18.3.3)."""
        addresses = [
            address
            for option in self.asked.message.options
            if option.code == Dhcpv6OptionCode.IA_NA
            for address in IdentityAssociation.parse(option.value).addresses
        ]
        if not addresses:
            return Dropped(DropReason.MALFORMED)
        prefix = self.subnet.prefix
        is_on_link = all(prefix.contains(IpAddress(IpVersion.V6, one)) for one in addresses)
        status = Dhcpv6Status.SUCCESS if is_on_link else Dhcpv6Status.NOT_ON_LINK
        return self.asked.reply(Dhcpv6MessageType.REPLY, (_status(status),))


def _inform(asked: _Asked, subnets: list[DhcpV6SubnetView]) -> Outcome:
    """Answer who wants no address (RFC 8415 section 18.3.6)."""
    if any(
        option.code in (Dhcpv6OptionCode.IA_NA, Dhcpv6OptionCode.IA_TA, Dhcpv6OptionCode.IA_PD)
        for option in asked.message.options
    ):
        return Dropped(DropReason.MALFORMED)
    options = _configuration(sorted(subnets, key=lambda one: one.prefix))
    return asked.reply(Dhcpv6MessageType.REPLY, options)


def _configuration(subnets: list[DhcpV6SubnetView]) -> _Options:
    """Return the options of subnets together."""
    servers = dict.fromkeys(address for subnet in subnets for address in subnet.dns)
    domains = dict.fromkeys(name for subnet in subnets for name in subnet.domains)
    options = []
    if servers:
        value = b"".join(address.to_bytes(16, "big") for address in servers)
        options.append(Dhcpv6Option(Dhcpv6OptionCode.DNS_SERVERS, value))
    if domains:
        options.append(Dhcpv6Option(Dhcpv6OptionCode.DOMAIN_LIST, domain_names(domains)))
    return tuple(options)


def _identity(value: bytes) -> bytes:
    """Return the IAID of an association of any kind. Raises DecodeError when truncated."""
    if len(value) < 4:
        raise DecodeError("DHCPv6 identity association truncated")
    return value[:4]


def _status(status: Dhcpv6Status) -> Dhcpv6Option:
    return Dhcpv6Option(Dhcpv6OptionCode.STATUS_CODE, status.to_bytes(2, "big"))
