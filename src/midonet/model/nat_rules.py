"""What NAT rules must say, and what contradicts itself in them.

A rule whose targets nothing can be translated to would be passed over in silence, and packets
would leave with the addresses that it was to hide.
"""

from __future__ import annotations

from collections.abc import Iterator

from midonet.errors import DecodeError, Violation
from midonet.model.address_rules import unusable_host
from midonet.model.chains import FORWARD_NAT, NAT, RuleAction
from midonet.model.schema_rules import NatTargetResource, RuleResource
from midonet.model.validation import broken
from midonet.packets.addresses import IpAddress, IpVersion, parse_ip
from midonet.packets.protocols import EtherType

TARGETS_MAX = 64
"""Targets of one rule."""

_ETHER_TYPES = {IpVersion.V4: EtherType.IPV4, IpVersion.V6: EtherType.IPV6}


def nat_violations(action: RuleAction, resource: RuleResource) -> Iterator[Violation]:
    """Yield what is wrong with `flowAction` and `natTargets` of a rule of this type."""
    has_action = action in NAT or action is RuleAction.L2_TRANSFORM
    if has_action is (resource.flow_action is None):
        rule = f"is required for type {action}" if has_action else "must be null"
        yield Violation("flowAction", rule if has_action else f"{rule} for type {action}")
    targets = resource.nat_targets
    if action not in FORWARD_NAT:
        if targets:
            yield broken("natTargets", f"must be null for type {action}", targets)
        return
    if not targets:
        yield Violation("natTargets", f"is required for type {action}: one target at least")
    elif len(targets) > TARGETS_MAX:
        yield Violation("natTargets", f"must have at most {TARGETS_MAX} targets")
    else:
        yield from _of_targets(action, resource, targets)


def _of_targets(
    action: RuleAction, resource: RuleResource, targets: tuple[NatTargetResource, ...]
) -> Iterator[Violation]:
    versions = set()
    for target in targets:
        ends = []
        for name, text in (("addressFrom", target.address_from), ("addressTo", target.address_to)):
            address = _address(text)
            rule = "must be an IPv4 or IPv6 address" if address is None else unusable_host(address)
            if rule is not None:
                yield broken("natTargets", f"{name} {rule}", text)
            elif address is not None:
                ends.append(address)
                versions.add(address.version)
        if len(ends) == 2:
            yield from _of_range(*ends)
        yield from _of_ports(target)
    if len(versions) > 1:
        yield broken("natTargets", "must be of one IP version", targets)
    is_single = len(targets) == 1 and targets[0].address_from == targets[0].address_to
    if action is RuleAction.SNAT and not is_single and any(not one.port_to for one in targets):
        yield Violation(
            "natTargets", "portFrom and portTo are needed unless there is one single address"
        )
    if len(versions) == 1:
        yield from _of_condition(resource, versions.pop())


def _address(text: str) -> IpAddress | None:
    try:
        return parse_ip(text)
    except DecodeError:
        return None


def _of_range(first: IpAddress, last: IpAddress) -> Iterator[Violation]:
    if first.version is last.version and first.value > last.value:
        yield broken("natTargets", "addressFrom must not be above addressTo", str(first))


def _of_ports(target: NatTargetResource) -> Iterator[Violation]:
    if target.port_from > target.port_to:
        yield broken("natTargets", "portFrom must not be above portTo", target.port_from)
    elif target.port_to and not target.port_from:
        yield broken("natTargets", "portFrom must be from 1, or both ports 0", target.port_from)


def _of_condition(resource: RuleResource, version: IpVersion) -> Iterator[Violation]:
    """Yield what of the condition keeps packets of the targets' IP version from matching."""
    for name, text, is_inverted in (
        ("nwSrcAddress", resource.ip_src_address, resource.ip_src_inverted),
        ("nwDstAddress", resource.ip_dst_address, resource.ip_dst_inverted),
    ):
        if text is not None and not is_inverted and parse_ip(text).version is not version:
            yield broken("natTargets", f"must be of the IP version of {name}", text)
    kind = resource.eth_type
    if kind is not None and not resource.eth_type_inverted and kind != _ETHER_TYPES[version]:
        yield broken("natTargets", f"never act on frames of dlType {kind:#06x}", kind)
