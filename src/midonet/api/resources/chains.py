"""Chains and rules. The order of rules is that of their ranks."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import msgspec

from midonet.api.call import Call, Endpoint
from midonet.api.chain_orders import ChainOrder
from midonet.api.crud import PAGE, StoredResource, endpoints_of, nested_endpoints
from midonet.errors import UserError
from midonet.model.chains import Chain, Condition, Rule
from midonet.model.devices import Bridge, Port, Router
from midonet.model.ids import ObjectId
from midonet.model.ranks import between
from midonet.model.schema_chains import CHAIN, RULE
from midonet.model.schema_rules import RuleResource
from midonet.model.validation import invalid
from midonet.nsdb.store import Create, Operation, Store

CHAINS = StoredResource(
    schema=CHAIN,
    verbs=frozenset(("LIST", "GET", "POST", "DELETE")),
    missing_delete=404,
    filters={"tenant_id": "project_id"},
)


async def _plan_rule(call: Call, resource: RuleResource, rule: Rule) -> list[Operation]:
    """Insert at a position of the chain; the rules behind it move by one.

    No other object is written, so that rules of one chain do not get in each other's way.
    """
    order = await call.services.chain_orders.of(rule.chain_id)
    known = [one for one in order.neighbours(resource.position) if one is not None]
    if known:
        order = await _checked_order(call, rule.chain_id, order, known)
    if resource.position > len(order) + 1:
        raise UserError("Position exceeds number of rules in chain", field="position")
    low, high = map(order.rank_of, order.neighbours(resource.position))
    await require_referents(call.store, rule.condition)
    rank = between(low, high, random.getrandbits(64))
    return [Create(msgspec.structs.replace(rule, rank=rank))]


async def _checked_order(
    call: Call, chain_id: ObjectId, order: ChainOrder, rule_ids: Sequence[ObjectId]
) -> ChainOrder:
    """Return the order, read anew when these rules have other ranks than it says."""
    found = await call.store.get_many(Rule, rule_ids)
    if order.agrees([each.value for each in found.values()]):
        return order
    return await call.services.chain_orders.read_anew(chain_id)


async def require_referents(store: Store, condition: Condition, place: str = "") -> None:
    """Raise ValidationError when a condition names what does not exist.

    place: what is put before the names of properties.
    """
    for name, port_ids in (
        ("inPorts", condition.in_port_ids),
        ("outPorts", condition.out_port_ids),
    ):
        found = await store.get_many(Port, port_ids) if port_ids else {}
        for port_id in port_ids:
            if port_id not in found:
                raise invalid(place + name, f"There is no Port with ID {port_id}.")
    device_id = condition.traversed_device_id
    if device_id is not None and not await _is_device(store, device_id):
        rule = f"There is no Bridge, Router or Port with ID {device_id}."
        raise invalid(f"{place}traversedDevice", rule)


async def _is_device(store: Store, object_id: ObjectId) -> bool:
    for kind in (Bridge, Router, Port):
        if await store.get(kind, object_id) is not None:
            return True
    return False


async def _in_order(call: Call, chain_id: ObjectId, rule_ids: list[ObjectId]) -> list[ObjectId]:
    order = await call.services.chain_orders.of(chain_id)
    if len(order) <= PAGE:
        order = await _checked_order(call, chain_id, order, rule_ids)
    return list(order.rule_ids)


async def _present_rules(call: Call, rules: Sequence[Rule]) -> list[RuleResource]:
    """Show rules with their positions and the names of the chains they jump to."""
    positions: dict[ObjectId, Mapping[ObjectId, int]] = {}
    for chain_id in {rule.chain_id for rule in rules}:
        order = await call.services.chain_orders.of(chain_id)
        if not order.agrees([rule for rule in rules if rule.chain_id == chain_id]):
            order = await call.services.chain_orders.read_anew(chain_id)
        positions[chain_id] = order.positions
    target_ids = {rule.jump_chain_id for rule in rules if rule.jump_chain_id is not None}
    targets = await call.store.get_many(Chain, sorted(target_ids)) if target_ids else {}
    presented = []
    for rule in rules:
        target = None if rule.jump_chain_id is None else targets.get(rule.jump_chain_id)
        presented.append(
            msgspec.structs.replace(
                RULE.represented(rule),
                position=positions[rule.chain_id].get(rule.id, 1),
                jump_chain_name=None if target is None else target.value.name,
            )
        )
    return presented


RULES = StoredResource(
    schema=RULE,
    verbs=frozenset(("GET", "DELETE")),
    missing_delete=404,
    plan_create=_plan_rule,
    present=_present_rules,
    order=_in_order,
)


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    return [
        *endpoints_of(CHAINS),
        *endpoints_of(RULES),
        *nested_endpoints(CHAIN, "rules", RULES, "chain_id", "chain_id"),
    ]
