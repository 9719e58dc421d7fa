"""Chains and rules. The order of rules is the chain's `rule_ids`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from midonet.api.call import Call, Endpoint
from midonet.api.crud import StoredResource, endpoints_of, nested_endpoints
from midonet.errors import NotFoundError, UserError
from midonet.model.chains import Chain, Condition, Rule
from midonet.model.devices import Bridge, Port, Router
from midonet.model.ids import ObjectId
from midonet.model.schema_chains import CHAIN, RULE, RuleResource
from midonet.model.validation import invalid
from midonet.nsdb.store import Create, Operation, Store, Update

CHAINS = StoredResource(
    schema=CHAIN,
    verbs=frozenset(("LIST", "GET", "POST", "DELETE")),
    missing_delete=404,
    filters={"tenant_id": "project_id"},
)


async def _plan_rule(call: Call, resource: RuleResource, rule: Rule) -> list[Operation]:
    """Insert at a position of the chain; the rules behind it move by one."""
    chain = await call.store.get(Chain, rule.chain_id)
    if chain is None:
        raise NotFoundError("Chain", rule.chain_id)
    rule_ids = list(chain.value.rule_ids)
    if resource.position > len(rule_ids) + 1:
        raise UserError("Position exceeds number of rules in chain", field="position")
    await _require_referents(call.store, rule.condition)
    rule_ids.insert(resource.position - 1, rule.id)
    longer = msgspec.structs.replace(chain.value, rule_ids=tuple(rule_ids))
    return [Create(rule), Update(longer, chain.version)]


async def _require_referents(store: Store, condition: Condition) -> None:
    """Raise ValidationError when a condition names what does not exist."""
    for name, port_ids in (
        ("inPorts", condition.in_port_ids),
        ("outPorts", condition.out_port_ids),
    ):
        found = await store.get_many(Port, port_ids) if port_ids else {}
        for port_id in port_ids:
            if port_id not in found:
                raise invalid(name, f"There is no Port with ID {port_id}.")
    device_id = condition.traversed_device_id
    if device_id is not None and not await _is_device(store, device_id):
        rule = f"There is no Bridge, Router or Port with ID {device_id}."
        raise invalid("traversedDevice", rule)


async def _is_device(store: Store, object_id: ObjectId) -> bool:
    for kind in (Bridge, Router, Port):
        if await store.get(kind, object_id) is not None:
            return True
    return False


async def _present_rules(call: Call, rules: Sequence[Rule]) -> list[RuleResource]:
    """Show rules with their positions, in the order of their chain."""
    chain_ids = {rule.chain_id for rule in rules}
    chain_ids.update(rule.jump_chain_id for rule in rules if rule.jump_chain_id is not None)
    chains = await call.store.get_many(Chain, sorted(chain_ids))
    places = {
        rule_id: index + 1
        for chain in chains.values()
        for index, rule_id in enumerate(chain.value.rule_ids)
    }
    presented = []
    for rule in sorted(rules, key=lambda one: places.get(one.id, 1)):
        target = None if rule.jump_chain_id is None else chains.get(rule.jump_chain_id)
        presented.append(
            msgspec.structs.replace(
                RULE.represented(rule),
                position=places.get(rule.id, 1),
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
)


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    return [
        *endpoints_of(CHAINS),
        *endpoints_of(RULES),
        *nested_endpoints(CHAIN, "rules", RULES, "chain_id", "chain_id"),
    ]
