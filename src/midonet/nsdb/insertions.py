"""Writes of L2 insertions, each with the rules that it comes to, in one transaction.

The records of the ports concerned are written every time, so that of two writers of one port's
insertions one is too late, and plans anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from midonet.errors import ConflictError, NotFoundError
from midonet.model.chains import Chain, Rule
from midonet.model.devices import Port
from midonet.model.ids import ChainId, ObjectId, PortId
from midonet.model.insertions import (
    L2Insertion,
    chains_of,
    inbound_chain_id,
    outbound_chain_id,
)
from midonet.nsdb.retrying import attempts
from midonet.nsdb.store import Create, Delete, Operation, Store, Update, Versioned

PATIENCE_S = 5.0
"""How long a removal is planned anew before the state counts as moving too fast."""

Planned = dict[ObjectId, L2Insertion]


async def of_port(store: Store, field: str, port_id: ObjectId) -> list[L2Insertion]:
    """Return the insertions of a port. field: `port_id` or `service_port_id`."""
    ids = await store.referrers(L2Insertion, field, port_id)
    found = await store.get_many(L2Insertion, ids) if ids else {}
    return [one.value for one in found.values()]


async def plan_ports(
    store: Store, port_ids: Iterable[PortId], written: Planned, gone: Collection[ObjectId] = ()
) -> list[Operation]:
    """Return the writes of ports, chains and rules once insertions are `written` and `gone`.

    port_ids: of all ports that these insertions name. Raises NotFoundError for one that is not
    there.
    """
    operations: list[Operation] = []
    for port_id in dict.fromkeys(port_ids):
        port = await store.get(Port, port_id)
        if port is None:
            raise NotFoundError("Port", port_id)
        operations += await _plan_port(store, port, written, gone)
    return operations


async def remove(store: Store, insertion_ids: Collection[ObjectId]) -> bool:
    """Delete insertions with the rules that they came to; False when there were none.

    Raises ConflictError when the ports went on changing for `PATIENCE_S`.
    """
    moved: Exception | None = None
    async for _ in attempts(PATIENCE_S):
        found = await store.get_many(L2Insertion, list(insertion_ids))
        if not found:
            return False
        ports = [
            port_id
            for one in found.values()
            for port_id in (one.value.port_id, one.value.service_port_id)
        ]
        try:
            operations = await plan_ports(store, ports, {}, set(found))
            operations += [Delete(L2Insertion, key, one.version) for key, one in found.items()]
            await store.transact(operations)
        except (ConflictError, NotFoundError) as error:
            moved = error
            continue
        return True
    raise ConflictError("L2 insertions could not be deleted: their ports keep changing.") from moved


async def _plan_port(
    store: Store, port: Versioned[Port], written: Planned, gone: Collection[ObjectId]
) -> list[Operation]:
    port_id = port.value.id
    chains = chains_of(
        port_id,
        await _insertions(store, "port_id", port_id, written, gone),
        serving := await _insertions(store, "service_port_id", port_id, written, gone),
    )
    inbound, outbound = inbound_chain_id(port_id), outbound_chain_id(port_id)
    updated = msgspec.structs.replace(
        port.value,
        insertion_inbound_filter_id=inbound if chains.inbound else None,
        insertion_outbound_filter_id=outbound if chains.outbound else None,
        is_service=bool(serving),
    )
    operations: list[Operation] = [Update(updated, port.version)]
    operations += await _plan_chain(store, inbound, f"InboundRedirect{port_id}", chains.inbound)
    operations += await _plan_chain(store, outbound, f"OutboundRedirect{port_id}", chains.outbound)
    return operations


async def _insertions(
    store: Store, field: str, port_id: PortId, written: Planned, gone: Collection[ObjectId]
) -> list[L2Insertion]:
    stored: Planned = {one.id: one for one in await of_port(store, field, port_id)}
    planned: Planned = {**stored, **written}
    return [
        one for one in planned.values() if one.id not in gone and getattr(one, field) == port_id
    ]


async def _plan_chain(
    store: Store, chain_id: ChainId, name: str, rules: Sequence[Rule]
) -> list[Operation]:
    """Return what makes a chain consist of these rules; without any there is no chain."""
    chain = await store.get(Chain, chain_id)
    stored_ids = await store.referrers(Rule, "chain_id", chain_id)
    stored = await store.get_many(Rule, stored_ids) if stored_ids else {}
    operations: list[Operation] = []
    if rules and chain is None:
        operations.append(Create(Chain(id=chain_id, name=name)))
    for rule in rules:
        old = stored.pop(rule.id, None)
        if old is None:
            operations.append(Create(rule))
        elif old.value != rule:
            operations.append(Update(rule, old.version))
    operations += [Delete(Rule, rule_id, old.version) for rule_id, old in stored.items()]
    if not rules and chain is not None:
        operations.append(Delete(Chain, chain_id, chain.version))
    return operations
