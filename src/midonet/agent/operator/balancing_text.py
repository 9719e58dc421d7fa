"""What load balancers did to a packet, in the words that people read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import assert_never
from uuid import UUID

from midonet.agent.flow_state.selection import BUCKETS
from midonet.agent.operator.connection_text import format_endpoint
from midonet.agent.simulation.trace import ChoseMember, HidClient, KeptMember, RestoredVip

Balancing = ChoseMember | KeptMember | RestoredVip | HidClient
BALANCING = (ChoseMember, KeptMember, RestoredVip, HidClient)

Names = Mapping[UUID, str]


def describe_balancing(event: Balancing, names: Names) -> str:
    """Return an event in words. names: what objects are called, those that have a name."""
    name = partial(_called, names)
    match event:
        case ChoseMember():
            return _choice(event, names)
        case KeptMember(_, vip_id, pool_id, None):
            return f"VIP {name(vip_id)}: its member is not in pool {name(pool_id)} any more"
        case KeptMember(_, vip_id, pool_id, member_id, is_kept, is_draining):
            state = "takes no new connections" if is_draining else "is up"
            end = "goes on there" if is_kept else "may not go on there"
            member = f"member {name(member_id)} of pool {name(pool_id)}"
            return f"VIP {name(vip_id)}: the connection is at {member}, which {state}: it {end}"
        case RestoredVip(_, vip_id, member, vip):
            answer = f"{format_endpoint(*member)} becomes {format_endpoint(*vip)}"
            return f"VIP {name(vip_id)}: answer of {answer}"
        case HidClient(balancer_id, client, stand_in, is_undone):
            pair = [format_endpoint(*one) for one in (client, stand_in)]
            if is_undone:
                return f"load balancer {name(balancer_id)}: {pair[1]} was {pair[0]}"
            why = "so that the member answers by the router"
            return f"load balancer {name(balancer_id)}: {pair[0]} becomes {pair[1]}, {why}"
        case _:
            assert_never(event)


def _called(names: Names, object_id: UUID | None) -> str:
    if object_id is None:
        return "nothing"
    name = names.get(object_id)
    return str(object_id) if name is None else f"{name} ({object_id})"


def _choice(event: ChoseMember, names: Names) -> str:
    name = partial(_called, names)
    of_what = "client's address" if event.by_client else "tuple"
    share = f"weight {event.weight} of {event.total_weight}, {event.candidates} members"
    return (
        f"VIP {name(event.vip_id)}: bucket {event.bucket} of {BUCKETS}, by the {of_what}, is of"
        f" member {name(event.member_id)} of pool {name(event.pool_id)} ({share})"
    )
