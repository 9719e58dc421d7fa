"""What a filter of a port, a bridge or a router does to a packet."""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.simulation import answers
from midonet.agent.simulation.chain import Decision, evaluate_chain
from midonet.agent.simulation.walk import Dropped, Refusal, Walk
from midonet.model.ids import ChainId


def apply_filter(walk: Walk, chain_id: ChainId | None) -> Refusal | None:
    """Return why the chain refuses the packet, or None; the sender of a rejected one is told."""
    if chain_id is None:
        return None
    decision = evaluate_chain(walk, chain_id)
    if decision is Decision.ACCEPT:
        return None
    if isinstance(decision, Decision):
        answers.answer_reject(walk)
        return Dropped(DropReason.REJECTED)
    return decision
