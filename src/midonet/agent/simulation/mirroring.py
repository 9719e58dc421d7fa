"""Mirrors: copies of a packet, as it is at one point of its way, for who watches the network.

A mirror of a port, bridge or router copies what meets one of its conditions. The copy is a branch
of its own (`Walk.follow_copy`): it leaves by the mirror's port as everything that leaves there
does, counts one device more than the packet had passed, and meets mirrors like any other packet.
"""

from __future__ import annotations

from midonet.agent.flows.tags import device_tag
from midonet.agent.simulation.condition import Test, compile_condition
from midonet.agent.simulation.result import Await, LoadDevices
from midonet.agent.simulation.trace import Mirrored, MirrorPoint
from midonet.agent.simulation.walk import Walk
from midonet.agent.topology.view import MirrorView
from midonet.model.ids import MirrorId, ObjectId


def mirror(
    walk: Walk, point: MirrorPoint, owner_id: ObjectId, mirror_ids: tuple[MirrorId, ...]
) -> Await | None:
    """Put copies under way; the packet itself goes on, whatever becomes of them.

    owner_id: the port, bridge or router that names the mirrors. Return what has to be loaded
    first. A mirror that does not exist any more copies nothing.
    """
    view = walk.inputs.view
    for mirror_id in mirror_ids:
        walk.findings.tags.append(device_tag(mirror_id))
        found = view.mirrors.get(mirror_id)
        if found is None:
            if mirror_id in view.absent:
                continue
            return Await(LoadDevices((mirror_id,)))
        if not _is_meant(walk, found):
            continue
        if walk.findings.steps is not None:
            walk.step(Mirrored(point, owner_id, found.id, found.to_port_id))
        walk.follow_copy(found)
    return None


def _is_meant(walk: Walk, found: MirrorView) -> bool:
    """Tell whether the packet meets a condition. To ask for its connection begins none."""
    observation = walk.findings.observation
    matches = (found.compiled.form or _compile(found))(walk)
    walk.findings.observation = observation
    return bool(matches)


def _compile(found: MirrorView) -> Test:
    """Return the test of a mirror: any of its conditions. It is made once for each version."""
    tests = tuple(compile_condition(condition) for condition in found.conditions)

    def matches(walk: Walk) -> bool:
        # What cannot be resolved (None) shows nobody's packets to anybody.
        return any(test(walk) for test in tests)

    found.compiled.form = matches
    return matches
