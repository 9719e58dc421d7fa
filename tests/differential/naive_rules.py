"""What rules mean, written down as plainly as can be: the reference that compiled rules are
compared with.

Nothing here looks at a frame: `Facts` say what was sent. Nothing is fast, and nothing is shared
with the product but the types of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from uuid import UUID

from midonet.model.chains import Condition, FragmentPolicy, PortRange, RuleAction

WITH_PORTS = {4: (1, 6, 17, 132), 6: (58, 6, 17, 132)}
KINDS = {
    FragmentPolicy.ANY: ("none", "first", "later"),
    FragmentPolicy.NONHEADER: ("later",),
    FragmentPolicy.HEADER: ("none", "first"),
    FragmentPolicy.UNFRAGMENTED: ("none",),
}


@dataclass(frozen=True)
class Facts:
    """What was sent. source, destination: addresses as text; None in a frame that has none.

    protocol, tos: of IP only. ports: of a whole packet or first fragment; type and code of ICMP.
    fragment: none, first or later. quoted: addresses of the packet that an ICMP error is about.
    """

    eth_src: str
    eth_dst: str
    eth_type: int
    vlan: int = 0
    source: str | None = None
    destination: str | None = None
    protocol: int | None = None
    tos: int | None = None
    ports: tuple[int, int] | None = None
    fragment: str = "none"
    quoted: tuple[str, str] | None = None

    @property
    def version(self) -> int | None:
        """IP version of a packet; None when it is not one."""
        return {0x0800: 4, 0x86DD: 6}.get(self.eth_type)


@dataclass(frozen=True)
class Place:
    """Where a chain is evaluated, and what groups there are."""

    in_port: UUID
    out_port: UUID | None
    came_by: UUID
    passed: frozenset[UUID]
    port_groups: Mapping[UUID, frozenset[UUID]] = field(default_factory=dict)
    address_groups: Mapping[UUID, frozenset[str]] = field(default_factory=dict)


class MissingGroupError(Exception):
    """A group that does not exist is asked for."""


def holds(condition: Condition, facts: Facts, place: Place) -> bool:
    """Tell whether a condition matches. Raises MissingGroupError."""
    if facts.fragment not in KINDS[condition.fragment_policy]:
        return False
    return _all_hold(condition, facts, place) != condition.inverted


def _all_hold(condition: Condition, facts: Facts, place: Place) -> bool:
    c = condition
    tests = (
        lambda: not c.match_return_flow,
        lambda: not (c.no_vlan and facts.vlan),
        lambda: not c.vlan or facts.vlan == c.vlan,
        lambda: _in_ports(c.port_group_id, c.port_group_inverted, place.came_by, place),
        lambda: _in_ports(c.in_port_group_id, c.in_port_group_inverted, place.in_port, place),
        lambda: _in_ports(c.out_port_group_id, c.out_port_group_inverted, place.out_port, place),
        lambda: not c.in_port_ids or (place.in_port in c.in_port_ids) != c.in_ports_inverted,
        lambda: not c.out_port_ids or (place.out_port in c.out_port_ids) != c.out_ports_inverted,
        lambda: c.eth_type is None or (facts.eth_type == c.eth_type) != c.eth_type_inverted,
        lambda: _is_mac(c.eth_src, c.eth_src_mask, facts.eth_src, c.eth_src_inverted),
        lambda: _is_mac(c.eth_dst, c.eth_dst_mask, facts.eth_dst, c.eth_dst_inverted),
        lambda: c.ip_tos is None or (facts.tos == c.ip_tos) != c.ip_tos_inverted,
        lambda: c.ip_proto is None or (facts.protocol == c.ip_proto) != c.ip_proto_inverted,
        lambda: c.ip_src is None or _in_network(facts.source, c.ip_src) != c.ip_src_inverted,
        lambda: c.ip_dst is None or _in_network(facts.destination, c.ip_dst) != c.ip_dst_inverted,
        lambda: c.l4_src is None or _in_range(facts, 0, c.l4_src) != c.l4_src_inverted,
        lambda: c.l4_dst is None or _in_range(facts, 1, c.l4_dst) != c.l4_dst_inverted,
        lambda: _in_addresses(
            c.ip_address_group_src_id, c.ip_address_group_src_inverted, facts.source, place
        ),
        lambda: _in_addresses(
            c.ip_address_group_dst_id, c.ip_address_group_dst_inverted, facts.destination, place
        ),
        lambda: (
            c.traversed_device_id is None
            or (c.traversed_device_id in place.passed) != c.traversed_device_inverted
        ),
        lambda: _is_quoted(c.icmp_data_src, c.icmp_data_src_inverted, facts, 0),
        lambda: _is_quoted(c.icmp_data_dst, c.icmp_data_dst_inverted, facts, 1),
        lambda: not c.match_ip_dst_rewritten,
    )
    return all(test() for test in tests)


def _in_ports(group_id: UUID | None, inverted: bool, port: UUID | None, place: Place) -> bool:
    if group_id is None:
        return True
    if group_id not in place.port_groups:
        raise MissingGroupError
    return (port in place.port_groups[group_id]) != inverted


def _in_addresses(group_id: UUID | None, inverted: bool, address: str | None, place: Place) -> bool:
    if group_id is None:
        return True
    if group_id not in place.address_groups:
        raise MissingGroupError
    members = place.address_groups[group_id]
    return any(_in_network(address, member) for member in members) != inverted


def _is_mac(wanted: str | None, mask: int, given: str, inverted: bool) -> bool:
    if wanted is None:
        return True
    return (_bits(wanted) & mask == _bits(given) & mask) != inverted


def _bits(mac: str) -> int:
    return int(mac.replace(":", ""), 16)


def _in_network(address: str | None, network: str) -> bool:
    return address is not None and ip_address(address) in ip_network(network, strict=False)


def _in_range(facts: Facts, which: int, wanted: PortRange) -> bool:
    if facts.ports is None or facts.version is None:
        return False
    if facts.protocol not in WITH_PORTS[facts.version] or facts.fragment == "later":
        return False
    return wanted.start <= facts.ports[which] <= wanted.end


def _is_quoted(network: str | None, inverted: bool, facts: Facts, which: int) -> bool:
    if network is None:
        return True
    if facts.quoted is None:
        return inverted
    return _in_network(facts.quoted[which], network) != inverted


@dataclass(frozen=True)
class PlainRule:
    """A rule. jump: name of a chain."""

    action: RuleAction
    condition: Condition
    jump: str | None = None


def verdict(
    chains: Mapping[str, Sequence[PlainRule]], name: str, facts: Facts, place: Place
) -> str:
    """Return accept, drop, reject or missing: what a chain says in the end."""
    try:
        said = _evaluate(chains, name, facts, place, set())
    except MissingGroupError:
        return "missing"
    return said or "accept"


def _evaluate(
    chains: Mapping[str, Sequence[PlainRule]],
    name: str,
    facts: Facts,
    place: Place,
    visited: set[str],
) -> str | None:
    visited.add(name)
    for rule in chains[name]:
        if not holds(rule.condition, facts, place):
            continue
        if rule.action is RuleAction.RETURN:
            return None
        if rule.action is not RuleAction.JUMP:
            return rule.action.value
        assert rule.jump is not None
        if rule.jump not in visited:
            said = _evaluate(chains, rule.jump, facts, place, visited)
            if said is not None:
                return said
    return None
