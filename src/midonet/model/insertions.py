"""L2 insertions: services that frames of a port pass before they enter or leave it.

An insertion is carried out by rules, in chains of the ports concerned:

    protected port  inbound   came from the last service: accept
                              came back from a service: to the next one, or in by this port
                              from the machine's MAC: out by the first service's port
                    outbound  the same towards the machine's MAC; in the end out by this port
    service port    inbound   by MAC and tag into the chains of the protected port

Frames have a tag on their way through services: the insertion's VID, and a priority that says in
which direction they go. A service returns them with it. An insertion without VID is told by MAC
alone, so its service port serves one protected port only. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid5

import msgspec

from midonet.model.chains import Condition, FlowAction, L2Transform, Rule, RuleAction
from midonet.model.ids import ChainId, L2InsertionId, PortId, RuleId
from midonet.model.ranks import spread

_INBOUND_TAG = 1 << 13
_OUTBOUND_TAG = 2 << 13


class L2Insertion(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Frames of a protected port, from and to its MAC, pass the service behind another port.

    mac: of the machine at the protected port. vlan: VID that tells the service whose frames these
        are; 0 for no tag. position: services of a port are passed in ascending order.
    fail_open: frames pass the service by while its port is down or inactive.
    """

    id: L2InsertionId
    port_id: PortId
    service_port_id: PortId
    mac: str
    vlan: int = 0
    position: int = 0
    fail_open: bool = False


@dataclass(frozen=True, slots=True)
class PortChains:
    """Rules of the chains of one port, in order; an empty list needs no chain."""

    inbound: tuple[Rule, ...] = ()
    outbound: tuple[Rule, ...] = ()


def inbound_chain_id(port_id: UUID) -> ChainId:
    """Return the id of a port's chain for what enters by it."""
    return ChainId(uuid5(port_id, "InboundRedirect"))


def outbound_chain_id(port_id: UUID) -> ChainId:
    """Return the id of a port's chain for what leaves by it."""
    return ChainId(uuid5(port_id, "OutboundRedirect"))


def chains_of(
    port_id: PortId, protecting: Iterable[L2Insertion], serving: Iterable[L2Insertion]
) -> PortChains:
    """Return the rules of a port. protecting: its insertions; serving: those that it serves."""
    by_mac: dict[str, list[L2Insertion]] = {}
    for insertion in sorted(protecting, key=_order):
        by_mac.setdefault(insertion.mac, []).append(insertion)
    inbound, outbound = inbound_chain_id(port_id), outbound_chain_id(port_id)
    entering = [rule for row in by_mac.values() for rule in _entering(inbound, port_id, row)]
    leaving = [rule for row in by_mac.values() for rule in _leaving(outbound, port_id, row)]
    entering += [rule for one in sorted(serving, key=_order) for rule in _returning(inbound, one)]
    return PortChains(_ranked(entering), _ranked(leaving))


def _order(insertion: L2Insertion) -> tuple[int, int, int]:
    return (insertion.position, insertion.port_id.int, insertion.service_port_id.int)


def _ranked(rules: Sequence[Rule]) -> tuple[Rule, ...]:
    ranks = spread(len(rules))
    return tuple(
        msgspec.structs.replace(rule, rank=rank) for rule, rank in zip(rules, ranks, strict=True)
    )


def _entering(chain_id: ChainId, port_id: PortId, row: Sequence[L2Insertion]) -> Iterator[Rule]:
    """Yield the rules for frames from a MAC, which pass the services of a row."""
    last = row[-1]
    yield Rule(
        id=_id(last, "passed"),
        chain_id=chain_id,
        action=RuleAction.ACCEPT,
        condition=Condition(
            in_port_ids=(port_id,), eth_src=last.mac, traversed_device_id=last.service_port_id
        ),
    )
    for one, following in zip(row, [*row[1:], None], strict=True):
        condition = Condition(
            in_port_ids=(one.service_port_id,), eth_src=one.mac, vlan=_tag(one, _INBOUND_TAG)
        )
        rule_id = _id(one, "back inbound")
        if following is None:
            transform = L2Transform(pop_vlan=bool(one.vlan), ingress=True)
            yield _redirect(rule_id, chain_id, condition, transform, port_id)
        else:
            transform = _to_service(following, _INBOUND_TAG, pop=bool(one.vlan))
            target = following.service_port_id
            yield _redirect(rule_id, chain_id, condition, transform, target)
    first = row[0]
    condition = Condition(in_port_ids=(port_id,), eth_src=first.mac)
    transform = _to_service(first, _INBOUND_TAG, pop=False)
    yield _redirect(
        _id(first, "first inbound"), chain_id, condition, transform, first.service_port_id
    )


def _leaving(chain_id: ChainId, port_id: PortId, row: Sequence[L2Insertion]) -> Iterator[Rule]:
    """Yield the rules for frames to a MAC, which pass the services of a row."""
    for one, following in zip(row, [*row[1:], None], strict=True):
        condition = Condition(
            in_port_ids=(one.service_port_id,), eth_dst=one.mac, vlan=_tag(one, _OUTBOUND_TAG)
        )
        rule_id = _id(one, "back outbound")
        if following is None:
            transform = L2Transform(pop_vlan=bool(one.vlan))
            yield _redirect(rule_id, chain_id, condition, transform, port_id)
        else:
            transform = _to_service(following, _OUTBOUND_TAG, pop=bool(one.vlan))
            target = following.service_port_id
            yield _redirect(rule_id, chain_id, condition, transform, target)
    first = row[0]
    condition = Condition(out_port_ids=(port_id,), eth_dst=first.mac)
    transform = _to_service(first, _OUTBOUND_TAG, pop=False)
    yield _redirect(
        _id(first, "first outbound"), chain_id, condition, transform, first.service_port_id
    )


def _returning(chain_id: ChainId, insertion: L2Insertion) -> Iterator[Rule]:
    """Yield the rules by which frames that come back from a service find their chain."""
    yield Rule(
        id=_id(insertion, "jump inbound"),
        chain_id=chain_id,
        action=RuleAction.JUMP,
        condition=Condition(eth_src=insertion.mac, vlan=_tag(insertion, _INBOUND_TAG)),
        jump_chain_id=inbound_chain_id(insertion.port_id),
    )
    yield Rule(
        id=_id(insertion, "jump outbound"),
        chain_id=chain_id,
        action=RuleAction.JUMP,
        condition=Condition(eth_dst=insertion.mac, vlan=_tag(insertion, _OUTBOUND_TAG)),
        jump_chain_id=outbound_chain_id(insertion.port_id),
    )


def _tag(insertion: L2Insertion, marker: int) -> int:
    """Return the tag of frames of an insertion; without a VID they have none.

    A priority alone would not do: receivers, ourselves among them, take such tags away.
    """
    return insertion.vlan | marker if insertion.vlan else 0


def _to_service(insertion: L2Insertion, tag: int, *, pop: bool) -> L2Transform:
    return L2Transform(pop_vlan=pop, push_vlan=_tag(insertion, tag), fail_open=insertion.fail_open)


def _redirect(
    rule_id: RuleId,
    chain_id: ChainId,
    condition: Condition,
    transform: L2Transform,
    target_port_id: PortId,
) -> Rule:
    return Rule(
        id=rule_id,
        chain_id=chain_id,
        action=RuleAction.L2_TRANSFORM,
        condition=condition,
        flow_action=FlowAction.REDIRECT,
        transform=transform,
        target_port_id=target_port_id,
    )


def _id(insertion: L2Insertion, role: str) -> RuleId:
    return RuleId(uuid5(insertion.id, role))
