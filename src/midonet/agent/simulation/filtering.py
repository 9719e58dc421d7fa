"""What a filter of a port, a bridge or a router does to a packet."""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.simulation import answers
from midonet.agent.simulation.chain import Decision, evaluate_chain
from midonet.agent.simulation.trace import BeganFilter, Hook
from midonet.agent.simulation.walk import Dropped, HookOutcome, Walk
from midonet.model.ids import ChainId, ObjectId, PortId


def apply_filter(
    walk: Walk, hook: Hook, owner_id: ObjectId, chain_id: ChainId | None
) -> HookOutcome:
    """Return what the chain makes of the packet; the sender of a rejected one is told.

    owner_id: the port, bridge or router whose filter it is.
    """
    if chain_id is None:
        return None
    if walk.findings.steps is not None:
        walk.step(BeganFilter(hook, owner_id, chain_id))
    walk.branch.device_id = _device_of(walk, owner_id)
    decision = evaluate_chain(walk, chain_id)
    if decision is Decision.ACCEPT:
        return None
    if isinstance(decision, Decision):
        answers.answer_reject(walk)
        return Dropped(DropReason.REJECTED)
    return decision


def _device_of(walk: Walk, owner_id: ObjectId) -> ObjectId:
    """Return the device that owns what rules of this filter translate: that of a port."""
    port = walk.inputs.view.ports.get(PortId(owner_id))
    return owner_id if port is None else port.bridge_id or port.router_id or owner_id
