"""A translated source for a connection that begins: chosen among what is free, reserved when the
packet leaves."""

from __future__ import annotations

from midonet.agent.flow_state.allocations import Allocation
from midonet.agent.flow_state.connection import Binding, Side
from midonet.agent.flow_state.effects import LeaseAhead, NoteExhaustion
from midonet.agent.flow_state.pool import NatPool
from midonet.agent.flow_state.source_choice import (
    LOW_WATER,
    Chosen,
    Exhausted,
    LeaseBlock,
    remote_of,
)
from midonet.agent.flow_state.translation import endpoint
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import SlowPathReason
from midonet.agent.simulation import rewriting
from midonet.agent.simulation.result import Await
from midonet.agent.simulation.walk import Dropped, Refusal, Walk
from midonet.model.ids import ObjectId
from midonet.packets.five_tuple import FiveTuple


def choose_source(
    walk: Walk, owner: ObjectId, pool: NatPool, now: FiveTuple, reason_id: ObjectId
) -> tuple[Binding, Chosen] | Refusal:
    """Return a binding of `owner` for the source of a packet, which the caller carries out.

    now: the packet's tuple as it is. reason_id: the rule or device that wants it, for people.
    """
    choice = walk.inputs.nat.choose_source(owner, pool, now, walk.inputs.view.hash_seed)
    if isinstance(choice, LeaseBlock):
        return Await(choice)
    if isinstance(choice, Exhausted):
        # As soon as one is freed the next packet gets it, so nothing is installed.
        rewriting.for_this_packet(walk, SlowPathReason.CONNECTION)
        walk.findings.effects.append(NoteExhaustion(owner, pool))
        return Dropped(DropReason.NAT_EXHAUSTED, object_id=reason_id)
    if choice.spare < LOW_WATER and choice.further is not None:
        walk.findings.effects.append(LeaseAhead(choice.further))
    reserved = Allocation(owner, now.protocol, choice.endpoint, remote_of(now))
    walk.branch.allocations = (*walk.branch.allocations, reserved)
    before = endpoint(now, at_source=True)
    return Binding(owner, Side.SOURCE, before, choice.endpoint), choice
