"""Representations of rules and of what they consist of; `schema_chains` makes models of them.

What contradicts itself in them is said beside this: `condition_rules`, `nat_rules`,
`transform_rules`.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from msgspec import Meta, Struct, field

from midonet.model.chains import FlowAction, FragmentPolicy, RuleAction
from midonet.model.schema import (
    CREATE_ONLY,
    READ_ONLY,
    REQUIRED,
    UNSUPPORTED,
    link_to,
    one_of,
    text,
)
from midonet.model.validation import IP, MAC, MAC_MASK

L4Port = Annotated[int, Meta(ge=0, le=0xFFFF)]


class PortRangeResource(Struct, frozen=True, kw_only=True):
    """An inclusive range of transport ports, ICMP types or ICMP codes."""

    start: L4Port
    end: L4Port


class NatTargetResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """Addresses and ports that a rule of type dnat or snat translates to, both ends included."""

    address_from: str
    address_to: str
    port_from: L4Port = 0
    port_to: L4Port = 0


class ConditionResource(Struct, frozen=True, kw_only=True, rename="camel"):
    """What packets are meant; without any property, all of them.

    match_forward_flow: the packet begins a connection, belongs to the direction that began it, or
        to none.
    match_return_flow: the packet answers one that was begun the other way.
    in_ports_inverted: like every inversion, needs the property that it inverts.
    traversed_device_id: bridge, router or port that the packet has passed.
    port_group_id: group that has the bound port by which the packet came into the network.
    in_port_group_id: group that has the port by which it entered the device of the chain.
    out_port_group_id: group that has the port by which it leaves the device of the chain.
    ip_address_group_src_id: group that has the source of IPv4, IPv6 or ARP.
    ip_address_group_dst_id: group that has the destination of IPv4, IPv6 or ARP.
    vlan: 0 matches any; another value excludes `noVlan`.
    eth_src_mask: needs `dlSrc`.
    eth_dst_mask: needs `dlDst`.
    ip_tos: of IPv4 and IPv6 packets, so of no other dlType.
    ip_proto: of IPv4 and IPv6 packets, so of no other dlType.
    ip_src_address: of IPv4, IPv6 or ARP; must be able to occur in frames of `dlType`.
    ip_src_length: needs `nwSrcAddress`.
    ip_dst_address: of IPv4, IPv6 or ARP; must be able to occur in frames of `dlType`.
    ip_dst_length: needs `nwDstAddress`.
    l4_src: port of TCP, UDP or SCTP, or ICMP type (up to 255), so of no other nwProto.
    l4_dst: port of TCP, UDP or SCTP, or ICMP code (up to 255), so of no other nwProto.
    match_ip_dst_rewritten: the destination was translated since the packet entered the device.
    icmp_data_src_address: source of the packet that an ICMP error quotes.
    icmp_data_src_length: needs `icmpDataSrcIpAddress`.
    icmp_data_dst_address: destination of the packet that an ICMP error quotes.
    icmp_data_dst_length: needs `icmpDataDstIpAddress`.
    fragment_policy: any, nonheader, header or unfragmented; null means header when the rule
        matches on transport ports, or is dnat or snat other than 1:1, else any. Later fragments
        follow the first through a translation.
    """

    inverted: bool = field(default=False, name="condInvert")
    match_forward_flow: bool = False
    match_return_flow: bool = False
    in_port_ids: tuple[UUID, ...] = field(default=(), name="inPorts")
    in_ports_inverted: bool = field(default=False, name="invInPorts")
    out_port_ids: tuple[UUID, ...] = field(default=(), name="outPorts")
    out_ports_inverted: bool = field(default=False, name="invOutPorts")
    port_group_id: UUID | None = field(default=None, name="portGroup")
    port_group_inverted: bool = field(default=False, name="invPortGroup")
    in_port_group_id: UUID | None = field(default=None, name="inPortGroup")
    in_port_group_inverted: bool = field(default=False, name="invInPortGroup")
    out_port_group_id: UUID | None = field(default=None, name="outPortGroup")
    out_port_group_inverted: bool = field(default=False, name="invOutPortGroup")
    ip_address_group_src_id: UUID | None = field(default=None, name="ipAddrGroupSrc")
    ip_address_group_src_inverted: bool = field(default=False, name="invIpAddrGroupSrc")
    ip_address_group_dst_id: UUID | None = field(default=None, name="ipAddrGroupDst")
    ip_address_group_dst_inverted: bool = field(default=False, name="invIpAddrGroupDst")
    traversed_device_id: UUID | None = field(default=None, name="traversedDevice")
    traversed_device_inverted: bool = field(default=False, name="invTraversedDevice")
    no_vlan: bool = False
    vlan: Annotated[int, Meta(ge=0, le=4094)] = 0
    eth_type: Annotated[int, Meta(ge=0x0600, le=0xFFFF)] | None = field(default=None, name="dlType")
    eth_type_inverted: bool = field(default=False, name="invDlType")
    eth_src: Annotated[str | None, text(MAC)] = field(default=None, name="dlSrc")
    eth_src_mask: Annotated[str | None, text(MAC_MASK)] = field(default=None, name="dlSrcMask")
    eth_src_inverted: bool = field(default=False, name="invDlSrc")
    eth_dst: Annotated[str | None, text(MAC)] = field(default=None, name="dlDst")
    eth_dst_mask: Annotated[str | None, text(MAC_MASK)] = field(default=None, name="dlDstMask")
    eth_dst_inverted: bool = field(default=False, name="invDlDst")
    ip_tos: Annotated[int, Meta(ge=0, le=255)] | None = field(default=None, name="nwTos")
    ip_tos_inverted: bool = field(default=False, name="invNwTos")
    ip_proto: Annotated[int, Meta(ge=0, le=255)] | None = field(default=None, name="nwProto")
    ip_proto_inverted: bool = field(default=False, name="invNwProto")
    ip_src_address: Annotated[str | None, text(IP)] = field(default=None, name="nwSrcAddress")
    ip_src_length: Annotated[int, Meta(ge=0, le=128)] | None = field(
        default=None, name="nwSrcLength"
    )
    ip_src_inverted: bool = field(default=False, name="invNwSrc")
    ip_dst_address: Annotated[str | None, text(IP)] = field(default=None, name="nwDstAddress")
    ip_dst_length: Annotated[int, Meta(ge=0, le=128)] | None = field(
        default=None, name="nwDstLength"
    )
    ip_dst_inverted: bool = field(default=False, name="invNwDst")
    match_ip_dst_rewritten: bool = field(default=False, name="matchNwDstRewritten")
    fragment_policy: FragmentPolicy | None = None
    l4_src: PortRangeResource | None = field(default=None, name="tpSrc")
    l4_src_inverted: bool = field(default=False, name="invTpSrc")
    l4_dst: PortRangeResource | None = field(default=None, name="tpDst")
    l4_dst_inverted: bool = field(default=False, name="invTpDst")
    icmp_data_src_address: Annotated[str | None, text(IP)] = field(
        default=None, name="icmpDataSrcIpAddress"
    )
    icmp_data_src_length: Annotated[int, Meta(ge=0, le=128)] | None = field(
        default=None, name="icmpDataSrcIpLength"
    )
    icmp_data_src_inverted: bool = field(default=False, name="invIcmpDataSrcIp")
    icmp_data_dst_address: Annotated[str | None, text(IP)] = field(
        default=None, name="icmpDataDstIpAddress"
    )
    icmp_data_dst_length: Annotated[int, Meta(ge=0, le=128)] | None = field(
        default=None, name="icmpDataDstIpLength"
    )
    icmp_data_dst_inverted: bool = field(default=False, name="invIcmpDataDstIp")


class RuleResource(ConditionResource, frozen=True, kw_only=True, rename="camel"):
    """One rule of a chain. An absent condition matches everything.

    kind: accept, drop, reject, return, jump, dnat, snat, rev_dnat, rev_snat or l2_transform.
    position: place in the chain, from 1; the rules behind it move by one.
    jump_chain_id: required for jump, and only for it; another chain than the rule's own.
    flow_action: required for dnat, snat, rev_dnat and rev_snat: accept, continue or return once the
        rule has translated; a rule that cannot translate is passed over. Required for
        l2_transform: accept or redirect. Null for others.
    nat_targets: required for dnat and snat, and only for them; of one IP version, in the order in
        which they are tried. A single address without ports is 1:1 translation, which keeps no
        state; other targets of snat need portFrom and portTo, those of dnat without ports
        keep the port.
    pop_vlan: l2_transform only, as the rest: the outermost tag is removed, if there is one and it
        hides no other.
    push_vlan: then a tag with this TCI (priority and VLAN) is pushed; 0 for none. A frame has room
        for one.
    target_port_id: required for redirect, and only for it; a rule that loses its port drops.
    ingress: the frame enters by the port; else it leaves by it, past its outbound filter.
    fail_open: what cannot leave by the port, which is down or inactive, enters by it instead.
    """

    id: Annotated[UUID | None, CREATE_ONLY] = None
    uri: Annotated[str | None, link_to("/rules/{id}")] = None
    chain_id: Annotated[UUID | None, READ_ONLY] = None
    kind: Annotated[str, REQUIRED, one_of(*RuleAction)] = field(default="", name="type")
    position: Annotated[int, Meta(ge=1, le=0x7FFF_FFFF)] = 1
    meter_name: Annotated[str | None, UNSUPPORTED] = None
    jump_chain_id: UUID | None = None
    jump_chain_name: Annotated[str | None, READ_ONLY] = None
    flow_action: FlowAction | None = None
    nat_targets: tuple[NatTargetResource, ...] | None = None
    pop_vlan: bool = False
    push_vlan: Annotated[int, Meta(ge=0, le=0xFFFF)] = 0
    target_port_id: UUID | None = None
    ingress: bool = False
    fail_open: bool = False
    chain: Annotated[str | None, link_to("/chains/{chain_id}")] = None
    jump_chain: Annotated[str | None, link_to("/chains/{jump_chain_id}")] = None
