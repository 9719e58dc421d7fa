"""Chains, rules and the condition language.

The order of evaluation and the meaning of every field are those of the reference behaviour:
an absent field matches whatever its inversion flag says; a present field is `inverted XOR
match`; the fragment policy is tested first and outside `inverted`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from midonet.model.ids import ChainId, IpAddressGroupId, ObjectId, PortGroupId, PortId, RuleId


class Chain(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An ordered list of rules. `rule_ids` is the evaluation order."""

    id: ChainId
    project_id: str | None = None
    name: str | None = None
    rule_ids: tuple[RuleId, ...] = ()


class RuleAction(StrEnum):
    """What a matching literal or jump rule does. The words are those of the REST `type` field."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    RETURN = "return"
    JUMP = "jump"


class FragmentPolicy(StrEnum):
    """Which fragments a condition may match."""

    ANY = "any"
    NONHEADER = "nonheader"
    HEADER = "header"
    UNFRAGMENTED = "unfragmented"


class PortRange(msgspec.Struct, frozen=True, omit_defaults=True):
    """An inclusive range of transport ports (or ICMP types or codes)."""

    start: int
    end: int


class Condition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A conjunction of tests on a packet and its place in the topology."""

    inverted: bool = False
    match_forward_flow: bool = False
    match_return_flow: bool = False
    no_vlan: bool = False
    vlan: int = 0
    port_group_id: PortGroupId | None = None
    port_group_inverted: bool = False
    in_port_group_id: PortGroupId | None = None
    in_port_group_inverted: bool = False
    out_port_group_id: PortGroupId | None = None
    out_port_group_inverted: bool = False
    in_port_ids: tuple[PortId, ...] = ()
    in_ports_inverted: bool = False
    out_port_ids: tuple[PortId, ...] = ()
    out_ports_inverted: bool = False
    eth_type: int | None = None
    eth_type_inverted: bool = False
    eth_src: str | None = None
    eth_src_mask: int = 0xFFFF_FFFF_FFFF
    eth_src_inverted: bool = False
    eth_dst: str | None = None
    eth_dst_mask: int = 0xFFFF_FFFF_FFFF
    eth_dst_inverted: bool = False
    ip_tos: int | None = None
    ip_tos_inverted: bool = False
    ip_proto: int | None = None
    ip_proto_inverted: bool = False
    ip_src: str | None = None
    ip_src_inverted: bool = False
    ip_dst: str | None = None
    ip_dst_inverted: bool = False
    l4_src: PortRange | None = None
    l4_src_inverted: bool = False
    l4_dst: PortRange | None = None
    l4_dst_inverted: bool = False
    ip_address_group_src_id: IpAddressGroupId | None = None
    ip_address_group_src_inverted: bool = False
    ip_address_group_dst_id: IpAddressGroupId | None = None
    ip_address_group_dst_inverted: bool = False
    traversed_device_id: ObjectId | None = None
    traversed_device_inverted: bool = False
    fragment_policy: FragmentPolicy = FragmentPolicy.ANY


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rule of a chain. Its place is its index in the chain's `rule_ids`.

    jump_chain_id: set exactly when `action` is JUMP.
    """

    id: RuleId
    chain_id: ChainId
    action: RuleAction
    condition: Condition = Condition()
    jump_chain_id: ChainId | None = None
