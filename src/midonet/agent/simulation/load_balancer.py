"""Load balancers, at the router that names them.

On the way to a VIP the packet gets the address and port of a member before the router's inbound
filter, which is not asked then; on the way back the VIP's own before its outbound filter, which
is not asked either. What was chosen for a connection is its binding, owned by the load balancer:
it is followed as long as the member may keep what it has, whoever else comes or goes.

A member would answer a client of its own subnet directly, from an address that this has never
heard of. Such a client's packets leave with an end point of the router's, so that the answers
come back; that is the second binding of the connection.
"""

from __future__ import annotations

from enum import Enum

from midonet.agent.flow_state.connection import Binding, Connection, Direction, Endpoint, Side
from midonet.agent.flow_state.effects import KillConnection
from midonet.agent.flow_state.pool import EndpointRange, NatPool
from midonet.agent.flow_state.sight import Standing
from midonet.agent.flow_state.translation import change, endpoint, translate
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import SlowPathReason
from midonet.agent.flows.tags import RouteRegion, pool_member_tag
from midonet.agent.simulation import answers, rewriting
from midonet.agent.simulation.header import (
    IP_DST,
    IP_FRAG,
    IP_PROTO,
    IP_PROTO_ICMP,
    IP_PROTO_ICMPV6,
    IP_PROTO_TCP,
    IP_PROTO_UDP,
    IP_SRC,
    L4_DST,
    L4_SRC,
)
from midonet.agent.simulation.member_choice import choose_member, pool_of, skip_choice
from midonet.agent.simulation.source_binding import choose_source
from midonet.agent.simulation.trace import HidClient, KeptMember, RestoredVip
from midonet.agent.simulation.walk import Dropped, Refusal, Walk
from midonet.agent.topology.address_set import AddressSet
from midonet.agent.topology.balancing import LoadBalancerView, MemberView, VipView
from midonet.agent.topology.view import PortView, RouterView
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.flowkey import FragmentKind
from midonet.packets.icmp_quote import is_icmp_error

_BALANCED = frozenset((IP_PROTO_TCP, IP_PROTO_UDP))
_ICMP = frozenset((IP_PROTO_ICMP, IP_PROTO_ICMPV6))
_HIDING_PORTS = (1024, 0xFFFF)
_FOLLOWED = frozenset((Standing.KNOWN, Standing.RELATED))


class Passage(Enum):
    """What a load balancer has to do with a packet."""

    ASIDE = "aside"  # nothing that the router's filter should not be asked about
    BALANCED = "balanced"  # it is the load balancer's; the router's filter is not asked


def balance_inbound(walk: Walk, router: RouterView, version: IpVersion) -> Passage | Refusal:
    """Take a packet that enters the router to a member, if it is to a VIP."""
    balancer = _balancer_of(walk, router)
    if not isinstance(balancer, LoadBalancerView):
        return balancer
    known = _answered(walk, balancer, version)
    if known is not None:
        _show_client(walk, balancer, known)
        return Passage.ASIDE
    if not balancer.admin_state_up or not _is_among(
        walk, balancer, IP_DST, balancer.addresses, version
    ):
        return Passage.ASIDE
    protocol = walk.header.read(IP_PROTO)
    if protocol in _ICMP and _is_error(walk):
        return _error_to_member(walk, balancer)
    if protocol not in _BALANCED:
        return Passage.ASIDE
    vip = _vip_for(walk, balancer, version)
    if not isinstance(vip, VipView):
        return vip
    return _to_member(walk, balancer, vip)


def balance_outbound(walk: Walk, router: RouterView, version: IpVersion) -> Passage | Refusal:
    """Give a packet that leaves the router the VIP's address, if it answers one to a VIP."""
    balancer = _balancer_of(walk, router)
    if not isinstance(balancer, LoadBalancerView):
        return balancer
    known = _answered(walk, balancer, version)
    binding = None if known is None else _own(known, balancer, Side.DESTINATION)
    if known is None or binding is None or not _acts(walk, binding, Direction.RETURN):
        return Passage.ASIDE
    vip = _vip_of(walk, balancer, known, binding.before)
    if vip is None or not _may_keep(walk, balancer, vip, binding):
        return _end(walk, known, balancer)
    _carry_out(walk, binding, Direction.RETURN)
    if walk.findings.steps is not None:
        walk.step(RestoredVip(balancer.id, vip.id, binding.after, binding.before))
    return Passage.BALANCED


def hide_client(
    walk: Walk, router: RouterView, port: PortView, version: IpVersion
) -> Refusal | None:
    """Put the router's end point in the client's place where the member would pass it over.

    The packet has been given to a member, and leaves by `port`.
    """
    balancer = _balancer_of(walk, router)
    if not isinstance(balancer, LoadBalancerView):
        return None if isinstance(balancer, Passage) else balancer
    client = IpAddress(version, walk.header.read(IP_SRC))
    own = next((one for one in port.addresses if one.contains(client)), None)
    now = rewriting.tuple_now(walk)
    if own is None or now is None or own.address == client:
        return None
    binding = _stand_in(walk, balancer, own.address, now)
    if not isinstance(binding, Binding):
        return binding
    walk.branch.bindings = (*walk.branch.bindings, binding)
    rewriting.translate_header(walk, binding, Direction.FORWARD)
    if walk.findings.steps is not None:
        walk.step(HidClient(balancer.id, binding.before, binding.after, is_undone=False))
    return None


def _balancer_of(walk: Walk, router: RouterView) -> LoadBalancerView | Passage | Refusal:
    if router.load_balancer_id is None:
        return Passage.ASIDE
    return walk.balancer(router.load_balancer_id)


# Which packets are a load balancer's.


def _is_among(
    walk: Walk, balancer: LoadBalancerView, field: int, addresses: AddressSet, version: IpVersion
) -> bool:
    """Tell whether an address of the header is among those of the load balancer; record why."""
    header, bits = walk.header, version.bits
    value = header.values[field]
    is_among, proof = addresses.lookup(version, value)
    header.record_prefix(field, proof, bits)
    network = value >> (bits - proof) << (bits - proof)
    walk.findings.regions.append(RouteRegion(balancer.id, version, network, proof))
    return is_among


def _is_error(walk: Walk) -> bool:
    header = walk.header
    if header.read(IP_FRAG) == FragmentKind.LATER:
        return False
    header.read(L4_SRC)
    return is_icmp_error(walk.inputs.packet)


def _vip_for(
    walk: Walk, balancer: LoadBalancerView, version: IpVersion
) -> VipView | Passage | Refusal:
    header = walk.header
    address = IpAddress(version, header.values[IP_DST])
    protocol = header.values[IP_PROTO]
    if header.read(IP_FRAG) != FragmentKind.LATER:
        found = balancer.vips.get((address, protocol, header.read(L4_DST)))
        return Passage.ASIDE if found is None else found
    if not any(key[:2] == (address, protocol) for key in balancer.vips):
        return Passage.ASIDE
    walk.sight()
    now = rewriting.tuple_now(walk)
    if now is None:
        return Dropped(DropReason.FRAGMENT_UNKNOWN)
    return balancer.vips.get((address, protocol, now.destination_port), Passage.ASIDE)


def _answered(walk: Walk, balancer: LoadBalancerView, version: IpVersion) -> Connection | None:
    """Return the connection that a packet travels back in, if it comes from where members are.

    Errors come from anywhere. Once something else has asked for the connection it costs nothing.
    """
    header, observed = walk.header, walk.findings.observation
    if observed is None:
        is_served = _is_among(walk, balancer, IP_SRC, balancer.served, version)
        protocol = header.read(IP_PROTO)
        if protocol in _ICMP:
            if not _is_error(walk):
                return None
        elif not is_served or protocol not in _BALANCED:
            return None
        elif header.read(IP_FRAG) != FragmentKind.LATER:
            address = IpAddress(version, header.read(IP_SRC))
            if not balancer.serves(address, header.read(L4_SRC)):
                return None
    sight = walk.sight()
    is_followed = sight.is_return and sight.standing in _FOLLOWED
    return sight.connection if is_followed else None


def _vip_of(
    walk: Walk, balancer: LoadBalancerView, known: Connection, place: Endpoint
) -> VipView | None:
    """Return the VIP that a connection went to; None when it is gone, or not up."""
    version, address, port = place
    walk.findings.regions.append(RouteRegion(balancer.id, version, address, version.bits))
    if not balancer.admin_state_up:
        return None
    protocol = known.forward.tuple.protocol
    return balancer.vips.get((IpAddress(version, address), protocol, port))


# Bindings.


def _own(known: Connection, balancer: LoadBalancerView, side: Side) -> Binding | None:
    return next(
        (one for one in known.bindings if one.owner == balancer.id and one.side is side), None
    )


def _acts(walk: Walk, binding: Binding, direction: Direction) -> bool:
    """Tell whether a binding is about the packet as it is here."""
    if is_icmp_error(walk.inputs.packet):
        quoted = rewriting.quote_now(walk)
        return quoted is not None and translate(quoted, binding, direction, quoted=True) is not None
    now = rewriting.tuple_now(walk)
    return now is not None and translate(now, binding, direction) is not None


def _carry_out(walk: Walk, binding: Binding, direction: Direction) -> None:
    if is_icmp_error(walk.inputs.packet):
        rewriting.translate_error(walk, binding, direction)
        return
    rewriting.translate_header(walk, binding, direction)


def _give_to(walk: Walk, binding: Binding) -> Passage:
    """Send a packet to the member of a binding."""
    walk.branch.bindings = (*walk.branch.bindings, binding)
    walk.branch.dst_rewritten = True
    rewriting.translate_header(walk, binding, Direction.FORWARD)
    return Passage.BALANCED


# To the member.


def _to_member(walk: Walk, balancer: LoadBalancerView, vip: VipView) -> Passage | Refusal:
    sight = walk.sight()
    known = sight.connection if sight.standing in _FOLLOWED else None
    if sight.is_return:
        return Passage.ASIDE
    if known is None:
        observed = walk.findings.observation
        if sight.standing is not Standing.NEW or observed is None or not observed.may_begin:
            # As an end point says that it knows of no connection (RFC 9293 section 3.10.7.1).
            answers.answer_reject(walk)
            return Dropped(DropReason.CONNECTION_UNKNOWN, object_id=vip.id)
        return _begin(walk, balancer, vip)
    binding = _own(known, balancer, Side.DESTINATION)
    is_tcp = known.forward.tuple.protocol == IP_PROTO_TCP
    if binding is not None and _acts(walk, binding, Direction.FORWARD):
        if _may_keep(walk, balancer, vip, binding):
            skip_choice(walk)
            return _give_to(walk, binding)
        if is_tcp or sight.standing is not Standing.KNOWN:
            return _end(walk, known, balancer)
    elif is_tcp or known.is_answered or sight.standing is not Standing.KNOWN:
        return Passage.ASIDE  # it began before there was this VIP, and goes on as it began
    # Only a packet begins a connection anew, so nothing may stand for it.
    rewriting.for_this_packet(walk, SlowPathReason.CONNECTION)
    return _begin(walk, balancer, vip)


def _begin(walk: Walk, balancer: LoadBalancerView, vip: VipView) -> Passage | Refusal:
    member = choose_member(walk, balancer, vip)
    if not isinstance(member, MemberView):
        return member
    now = rewriting.tuple_now(walk)
    assert now is not None
    after = Endpoint(member.address.version, member.address.value, member.port or vip.port)
    before = endpoint(now, at_source=False)
    return _give_to(walk, Binding(balancer.id, Side.DESTINATION, before, after))


def _may_keep(walk: Walk, balancer: LoadBalancerView, vip: VipView, binding: Binding) -> bool:
    """Tell whether a connection may stay at the member where it is."""
    pool = pool_of(walk, balancer, vip)
    version, address, port = binding.after
    # A member that is set at this address later is told by it.
    walk.findings.regions.append(RouteRegion(balancer.id, version, address, version.bits))
    at_address = pool.by_address.get(IpAddress(version, address), ())
    member = next((one for one in at_address if (one.port or vip.port) == port), None)
    is_sticky = vip.is_sticky or pool.is_sticky
    if member is None:
        is_kept = False
    elif is_sticky:
        is_kept = member.is_up and pool.admin_state_up
    else:
        is_kept = member.is_up or member.is_draining
    if member is not None:
        walk.findings.tags.append(pool_member_tag(pool.id, member.id))
    if walk.findings.steps is not None:
        member_id = None if member is None else member.id
        is_draining = member is not None and not member.is_up
        walk.step(KeptMember(balancer.id, vip.id, pool.id, member_id, is_kept, is_draining))
    return is_kept


def _end(walk: Walk, known: Connection, balancer: LoadBalancerView) -> Dropped:
    """End a connection that may not stay where it is; a client that sends is told."""
    sight = walk.sight()
    if sight.standing is Standing.KNOWN:
        walk.findings.effects.append(KillConnection(known))
        if not sight.is_return:
            answers.answer_reject(walk)
    return Dropped(DropReason.BALANCING_ENDED, object_id=balancer.id)


def _error_to_member(walk: Walk, balancer: LoadBalancerView) -> Passage:
    """Take an error about an answer of a member to that member."""
    sight = walk.sight()
    known = sight.connection
    binding = None if known is None else _own(known, balancer, Side.DESTINATION)
    if sight.standing is not Standing.RELATED or sight.is_return or binding is None:
        return Passage.ASIDE
    is_done = rewriting.translate_error(walk, binding, Direction.FORWARD)
    return Passage.BALANCED if is_done else Passage.ASIDE


# Clients on a member's own subnet.


def _show_client(walk: Walk, balancer: LoadBalancerView, known: Connection) -> None:
    """Give an answer to a hidden client the client's address."""
    binding = _own(known, balancer, Side.SOURCE)
    if binding is None or not _acts(walk, binding, Direction.RETURN):
        return
    _carry_out(walk, binding, Direction.RETURN)
    if walk.findings.steps is not None:
        walk.step(HidClient(balancer.id, binding.before, binding.after, is_undone=True))


def _stand_in(
    walk: Walk, balancer: LoadBalancerView, address: IpAddress, now: FiveTuple
) -> Binding | Refusal:
    """Return the binding of a hidden client: that of its connection, or one that is free."""
    sight = walk.sight()
    known = sight.connection if sight.standing in _FOLLOWED else None
    before = endpoint(now, at_source=True)
    binding = None if known is None else _own(known, balancer, Side.SOURCE)
    if binding is not None and change(binding, Direction.FORWARD)[0] == before:
        return binding
    ranges = EndpointRange(address.version, address.value, address.value, *_HIDING_PORTS)
    chosen = choose_source(walk, balancer.id, NatPool((ranges,)), now, balancer.id)
    return chosen[0] if isinstance(chosen, tuple) else chosen
