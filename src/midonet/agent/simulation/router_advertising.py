"""Router advertisements (RFC 4861 section 6.2, RFC 8106): what router ports say of themselves.

Who solicits is answered by unicast, at once: it alone sees the answer, so no rate of answers to
everybody has to be kept (section 6.2.6). A solicitation without a source address is answered to
all nodes in a frame for the asker (RFC 6085). Bridges answer for the routers attached to them, out
of the port where the question came in, and pass the question on to other machines, which may be
routers too; the routers learn who asked.
"""

from __future__ import annotations

from midonet.agent.simulation.answers import packet_as_seen
from midonet.agent.simulation.link_local import link_local_address
from midonet.agent.simulation.neighbour_learning import learn_sender
from midonet.agent.simulation.result import Await, GeneratedPacket
from midonet.agent.simulation.trace import Answered
from midonet.agent.simulation.walk import Walk
from midonet.agent.topology.view import (
    AdvertisingView,
    BridgeView,
    PortView,
    RouterView,
    TopologyView,
)
from midonet.model.ids import PortId, RouterId
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.packets.build import frame_tag
from midonet.packets.nd import (
    NdOption,
    NdOptionKind,
    RouterAdvertisement,
    dns_search_option,
    dns_servers_option,
    link_address_option,
    mtu_option,
    prefix_option,
)
from midonet.packets.neighbour import ALL_NODES, router_advertisement, router_solicitation

MAX_ANSWERED = 8
"""Routers on a bridge that answer one solicitation; a machine needs no more of them."""

USUAL_MTU_BYTES = 1500
LEAST_MTU_BYTES = 1280
"""IPv6 has no smaller one (RFC 8200 section 5)."""

PREFIX_VALID_S = 2_592_000
PREFIX_PREFERRED_S = 604_800
"""Lifetimes of addresses that machines make, as RFC 4861 section 6.2.1 has them by default."""

_DNS_INTERVALS = 3
"""Name servers are known for so many intervals (RFC 8106 section 5.1)."""

_HOP_LIMIT = 64
_MANAGED, _OTHER = 0x80, 0x40


def advertisement(
    view: TopologyView, port: PortView, advertising: AdvertisingView, *, is_last: bool = False
) -> RouterAdvertisement:
    """Return what a router port says. is_last: that the router is none any more (6.2.5)."""
    options: list[NdOption] = [link_address_option(NdOptionKind.SOURCE_LINK_ADDRESS, port.mac)]
    mtu_bytes = view.overlay_mtu_bytes or USUAL_MTU_BYTES
    if mtu_bytes >= LEAST_MTU_BYTES:
        options.append(mtu_option(min(mtu_bytes, USUAL_MTU_BYTES)))
    options += [
        prefix_option(
            prefix,
            is_autonomous=advertising.is_autonomous,
            valid_s=PREFIX_VALID_S,
            preferred_s=PREFIX_PREFERRED_S,
        )
        for prefix in port.addresses
        if prefix.version is IpVersion.V6
    ]
    known_s = advertising.interval_s * _DNS_INTERVALS
    if advertising.dns:
        options.append(dns_servers_option(advertising.dns, known_s))
    if advertising.domains:
        options.append(dns_search_option(advertising.domains, known_s))
    flags = (_MANAGED if advertising.is_managed else 0) | (_OTHER if advertising.has_other else 0)
    lifetime_s = 0 if is_last else advertising.lifetime_s
    return RouterAdvertisement(_HOP_LIMIT, flags, lifetime_s, options=tuple(options))


def unsolicited_frame(
    view: TopologyView, port: PortView, advertising: AdvertisingView, *, is_last: bool = False
) -> bytes:
    """Return the frame with which a router port tells everybody on its link."""
    message = advertisement(view, port, advertising, is_last=is_last)
    return router_advertisement(message, port.mac, link_local_address(port.mac))


def answer_solicitation(walk: Walk, router_id: RouterId, port: PortView, egress: PortId) -> bool:
    """Answer a router solicitation for a router port out of `egress`; False for one that is not
    valid or where the port does not advertise."""
    asked = packet_as_seen(walk, walk.header)
    solicitation = router_solicitation(asked)
    advertising = port.advertising
    if solicitation is None or advertising is None:
        return False
    source = asked.key.ip_src
    learn_sender(walk, router_id, port, IpAddress(IpVersion.V6, source), solicitation.link_address)
    frame = router_advertisement(
        advertisement(walk.inputs.view, port, advertising),
        port.mac,
        link_local_address(port.mac),
        eth_dst=asked.key.eth_src,
        ip_dst=source or ALL_NODES,
        vlan_tci=frame_tag(asked),
    )
    walk.findings.generated.append(GeneratedPacket(egress, frame))
    if walk.findings.steps is not None:
        walk.step(Answered(egress, "router advertisement"))
    return True


def answer_for_attached_routers(
    walk: Walk, bridge: BridgeView, port: PortView, vlan: int
) -> Await | bool:
    """Answer a router solicitation for the routers on a bridge; tell whether any did.

    vlan: where it is asked; 0 is none. Routers in a VLAN see what is flooded there and answer it
    themselves.
    """
    if vlan or walk.header.vlan_id():
        return False
    answers = 0
    for (tag, _), attachment in bridge.attachments.items():
        if tag or not attachment.is_advertising or answers >= MAX_ANSWERED:
            continue
        router_port = walk.port(attachment.router_port_id)
        router = walk.router(attachment.router_id)
        for found in (router_port, router):
            if isinstance(found, Await):
                return found
        if (
            isinstance(router_port, PortView)
            and isinstance(router, RouterView)
            and router_port.admin_state_up
            and router.admin_state_up
        ):
            answers += answer_solicitation(walk, router.id, router_port, port.id)
    return answers > 0
