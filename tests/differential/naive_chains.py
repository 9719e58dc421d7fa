"""What chains say of a packet, in the plainest way: no masks, no compiled tests, no view.

It knows a packet by what it was made from (`Draft`), an address by the standard library, and a
rule by its fields. Directions, groups and devices on the way are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from midonet.model.chains import FragmentPolicy, PortRange
from midonet.packets.addresses import IpVersion, parse_mac
from tests.differential.packets import ICMP, ICMPV6, SCTP, TCP, UDP, Draft

LEFT_OUT = frozenset(
    ("match_forward_flow", "match_return_flow", "traversed_device_id", "traversed_device_inverted")
)
"""Fields of conditions that are not looked at here."""

_FITTING = {
    FragmentPolicy.ANY: ("none", "first", "later"),
    FragmentPolicy.NONHEADER: ("later",),
    FragmentPolicy.HEADER: ("none", "first"),
    FragmentPolicy.UNFRAGMENTED: ("none",),
}


@dataclass(frozen=True)
class NaiveRule:
    """A rule by names. action: accept, drop, reject, return or jump."""

    action: str
    fields: Mapping[str, Any]
    jump: str | None = None


@dataclass(frozen=True)
class Place:
    """Where a packet is filtered."""

    in_port: str
    out_port: str | None = None


def verdict(
    chains: Mapping[str, list[NaiveRule]], top: str, draft: Draft, place: Place
) -> str | None:
    """Return accept, drop or reject; None when no rule decides."""
    visited: set[str] = set()

    def run(name: str) -> str | None:
        visited.add(name)
        for rule in chains[name]:
            if not matches(rule.fields, draft, place):
                continue
            if rule.action == "return":
                return None
            if rule.action != "jump":
                return rule.action
            assert rule.jump is not None
            if rule.jump not in visited:
                said = run(rule.jump)
                if said is not None:
                    return said
        return None

    return run(top)


def matches(fields: Mapping[str, Any], draft: Draft, place: Place) -> bool:
    """Tell whether a condition holds."""
    policy = fields.get("fragment_policy", FragmentPolicy.ANY)
    kind = ("none", "first", "later")[draft.fragment] if draft.kind == "ip" else "none"
    if kind not in _FITTING[policy]:
        return False
    holds = all(_holds(name, value, fields, draft, place) for name, value in fields.items())
    return holds != fields.get("inverted", False)


def _holds(name: str, value: Any, fields: Mapping[str, Any], draft: Draft, place: Place) -> bool:
    """Tell whether the test that a field stands for holds; true of fields that are none."""
    tag = (draft.vlan or 0) & 0xFFF
    match name:
        case "no_vlan":
            return not value or tag == 0
        case "vlan":
            return value in (0, tag)
        case "in_port_ids":
            return (place.in_port in value) != fields.get("in_ports_inverted", False)
        case "out_port_ids":
            return (place.out_port in value) != fields.get("out_ports_inverted", False)
        case "eth_type":
            return (_eth_type(draft) == value) != fields.get("eth_type_inverted", False)
        case "eth_src" | "eth_dst":
            mask = fields.get(f"{name}_mask", 0xFFFF_FFFF_FFFF)
            same = getattr(draft, name) & mask == parse_mac(value) & mask
            return same != fields.get(f"{name}_inverted", False)
        case "ip_tos":
            return (draft.kind == "ip" and draft.tos == value) != fields.get(
                "ip_tos_inverted", False
            )
        case "ip_proto":
            return (draft.kind == "ip" and draft.protocol == value) != fields.get(
                "ip_proto_inverted", False
            )
        case "ip_src" | "ip_dst":
            address = draft.source if name == "ip_src" else draft.destination
            inside = draft.kind == "ip" and ip_address(str(address)) in ip_network(
                value, strict=False
            )
            return inside != fields.get(f"{name}_inverted", False)
        case "l4_src" | "l4_dst":
            port = _ports(draft)
            inside = port is not None and _within(port[name == "l4_dst"], value)
            return inside != fields.get(f"{name}_inverted", False)
    return True


def _within(port: int, ports: PortRange) -> bool:
    return ports.start <= port <= ports.end


def _eth_type(draft: Draft) -> int:
    if draft.kind == "ip":
        return 0x0800 if draft.source.version is IpVersion.V4 else 0x86DD
    return draft.eth_type


def _ports(draft: Draft) -> tuple[int, int] | None:
    """Return ports, or type and code; None where there are none."""
    own_icmp = ICMP if draft.source.version is IpVersion.V4 else ICMPV6
    has_ports = draft.protocol in (TCP, UDP, SCTP, own_icmp)
    if draft.kind != "ip" or draft.fragment == 2 or not has_ports:
        return None
    if draft.protocol == own_icmp:
        return draft.l4[0] & 0xFF, draft.l4[1] & 0xFF
    return draft.l4
