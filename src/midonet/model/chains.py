"""Chains, rules and the condition language.

The order of evaluation and the meaning of every field are those of the reference behaviour:
an absent field matches whatever its inversion flag says; a present field is `inverted XOR
match`; the fragment policy is tested first and outside `inverted`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Literal

import msgspec

from midonet.model.ids import ChainId, IpAddressGroupId, ObjectId, PortGroupId, PortId, RuleId

BY_RANK: Final = "by rank"


class Chain(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An ordered list of rules: those that refer to it, by `Rule.rank` and then by id.

    order: always `BY_RANK`. Up to schema 2 a chain was stored with its rules' ids under this
        name; a process that knows only that cannot read the chain, and drops what it filters,
        where it would take a chain without ids for one that accepts everything.
    """

    id: ChainId
    project_id: str | None = None
    name: str | None = None
    order: Literal["by rank"] = msgspec.field(default_factory=lambda: BY_RANK, name="rule_ids")


class RuleAction(StrEnum):
    """What a matching rule does. The words are those of the REST `type` field."""

    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    RETURN = "return"
    JUMP = "jump"
    DNAT = "dnat"
    SNAT = "snat"
    REV_DNAT = "rev_dnat"
    REV_SNAT = "rev_snat"
    L2_TRANSFORM = "l2_transform"


FORWARD_NAT: Final = frozenset((RuleAction.DNAT, RuleAction.SNAT))
"""Rules that choose a translation from their targets."""

REVERSE_NAT: Final = frozenset((RuleAction.REV_DNAT, RuleAction.REV_SNAT))
"""Rules that undo on the way back what their device has chosen."""

NAT: Final = FORWARD_NAT | REVERSE_NAT


class FlowAction(StrEnum):
    """What comes after a rule of NAT or an L2_TRANSFORM rule that has acted.

    A rule of NAT that could not act is passed over. Only L2_TRANSFORM rules redirect.
    """

    ACCEPT = "accept"
    CONTINUE = "continue"
    RETURN = "return"
    REDIRECT = "redirect"


class L2Transform(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an L2_TRANSFORM rule does before it accepts or redirects.

    pop_vlan: remove the outermost tag if there is one. push_vlan: then push a tag with this
        16-bit TCI (PCP and VID), 0 for none.
    ingress: the frame enters by the target port; else it leaves by it, past its outbound filter.
    fail_open: a frame that cannot leave by the port enters by it, as if it had come back.
    """

    pop_vlan: bool = False
    push_vlan: int = 0
    ingress: bool = False
    fail_open: bool = False


class NatTarget(msgspec.Struct, frozen=True, omit_defaults=True):
    """An inclusive range of addresses, of one version, with an inclusive range of ports.

    port_from, port_to: both 0 keep the port that the packet has.
    """

    address_from: str
    address_to: str
    port_from: int = 0
    port_to: int = 0


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
    """A conjunction of tests on a packet and its place in the topology.

    vlan: VID of the outermost tag, 0 for any; with priority bits (13 to 15) set, those must be
        the tag's too.
    """

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
    icmp_data_src: str | None = None
    icmp_data_src_inverted: bool = False
    icmp_data_dst: str | None = None
    icmp_data_dst_inverted: bool = False
    match_ip_dst_rewritten: bool = False
    fragment_policy: FragmentPolicy = FragmentPolicy.ANY


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rule of a chain.

    rank: its place among the rules of the chain (`midonet.model.ranks`); it never changes.
    jump_chain_id: set exactly when `action` is JUMP.
    nat_targets: at least one exactly when `action` is DNAT or SNAT, in the order in which they are
        tried. One single address without ports is static translation, which keeps no state.
    flow_action: set exactly when `action` is one of NAT, or L2_TRANSFORM (accept or redirect).
    transform: set exactly when `action` is L2_TRANSFORM.
    target_port_id: where such a rule redirects to; a rule that lost its port drops.
    """

    id: RuleId
    chain_id: ChainId
    rank: str = ""
    action: RuleAction
    condition: Condition = Condition()
    jump_chain_id: ChainId | None = None
    nat_targets: tuple[NatTarget, ...] = ()
    flow_action: FlowAction | None = None
    transform: L2Transform | None = None
    target_port_id: PortId | None = None


def is_static(targets: tuple[NatTarget, ...]) -> bool:
    """Tell whether targets name one single address and leave ports alone: 1:1 translation."""
    if len(targets) != 1:
        return False
    (only,) = targets
    return only.address_from == only.address_to and not only.port_from and not only.port_to


def port_groups_of(condition: Condition) -> tuple[PortGroupId, ...]:
    """Return the port groups that a condition names."""
    legacy, ingress, egress = (
        condition.port_group_id,
        condition.in_port_group_id,
        condition.out_port_group_id,
    )
    if legacy is None and ingress is None and egress is None:
        return ()  # as nearly all are; chains of thousands of rules are gone through here
    return tuple(one for one in (legacy, ingress, egress) if one is not None)


def address_groups_of(condition: Condition) -> tuple[IpAddressGroupId, ...]:
    """Return the IP address groups that a condition names."""
    source, destination = condition.ip_address_group_src_id, condition.ip_address_group_dst_id
    if source is None and destination is None:
        return ()
    return tuple(one for one in (source, destination) if one is not None)


def naming_groups(conditions: Iterable[Condition]) -> list[Condition]:
    """Return those of the conditions that name a group: quickly, for chains of thousands."""
    return [
        one
        for one in conditions
        if one.ip_address_group_src_id
        or one.ip_address_group_dst_id
        or one.in_port_group_id
        or one.out_port_group_id
        or one.port_group_id
    ]


def evaluation_order(rule: Rule) -> tuple[str, RuleId]:
    """Return the key by which the rules of a chain are ordered."""
    return (rule.rank, rule.id)
