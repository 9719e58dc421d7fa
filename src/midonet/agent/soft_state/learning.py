"""MAC learning: which MACs were seen at ports of this host, and when traffic last used them.

The first sight of a MAC puts it into the bridge's shared table as this host's entry. Traffic
keeps it there: every packet that comes up with that source, and every program with it that the
datapath reports as used; so does a router that holds it as the MAC of a neighbour. Without any
of them it is removed after the bridge's ageing time. How many there are is bounded
(`midonet.agent.soft_state.holdings`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from midonet.agent.flows.program import LearnedMac
from midonet.agent.flows.tags import FlowTag
from midonet.agent.soft_state.holdings import DEFAULT_LIMITS, HoldingLimits, Holdings
from midonet.agent.soft_state.replica import SoftStateReplica
from midonet.model.coordination import MAC_AGEING_S
from midonet.model.ids import BridgeId, ObjectId, PortId
from midonet.runtime.clock import Clock


class Learnt(NamedTuple):
    """Tags of facts that changed. evicted: of entries that gave way; programs that depend on
    them go, so that traffic teaches them again."""

    tags: frozenset[FlowTag]
    evicted: frozenset[FlowTag] = frozenset()


_NOTHING = Learnt(frozenset())


def default_ageing(_: BridgeId) -> float:
    """Return the ageing time of a bridge without settings, in s."""
    return float(MAC_AGEING_S)


class MacLearning:
    """The MACs that this host holds in bridges' tables."""

    def __init__(
        self,
        soft_state: SoftStateReplica,
        clock: Clock,
        *,
        limits: HoldingLimits = DEFAULT_LIMITS,
        ageing_s: Callable[[BridgeId], float] = default_ageing,
        needed: Callable[[BridgeId], AbstractSet[int]] = lambda _: frozenset(),
        is_elsewhere: Callable[[PortId], bool] = lambda _: False,
    ) -> None:
        """ageing_s: of a bridge, in s. needed: the MACs of a bridge that routers send to.
        `is_elsewhere` tells that no traffic of a port enters at this host any more."""
        self.holdings: Holdings[LearnedMac] = Holdings(limits)
        self._soft_state = soft_state
        self._clock = clock
        self._ageing_s = ageing_s
        self._needed = needed
        self._is_elsewhere = is_elsewhere
        self._present: dict[tuple[BridgeId, int, int], LearnedMac] = {}

    def __len__(self) -> int:
        return len(self.holdings)

    def learn(self, seen: LearnedMac, source: PortId | None = None) -> Learnt:
        """Note that a MAC sent through a bridge's port.

        source: the port of this host where the packet came in, to which the entry counts; the
            bridge's port when it is None.
        """
        place = self._soft_state.mac_port(seen.bridge_id, seen.vlan, seen.mac)
        is_held = seen in self.holdings
        evicted = self._hold(seen, source or seen.port_id)
        if is_held and place == seen.port_id and not evicted:
            return _NOTHING
        tags: frozenset[FlowTag] = frozenset()
        if not is_held or place != seen.port_id:
            tags = self._soft_state.learn_mac(seen.bridge_id, seen.vlan, seen.mac, seen.port_id)
        return Learnt(tags, self._withdraw(evicted))

    def keep_alive(self, used: LearnedMac, last_used_s: float) -> None:
        """Note that traffic used a MAC at a time that may lie in the past."""
        self.holdings.use(used, last_used_s)

    def expire(self) -> frozenset[FlowTag]:
        """Forget what has not been used for the ageing time of its bridge.

        Entries of this host from before a restart get that time anew.
        """
        now_s = self._clock.now_s()
        tags: set[FlowTag] = set()
        for own in self._soft_state.take_found_macs():
            if self._is_elsewhere(own.port_id):
                tags |= self._withdraw([own])
            else:
                tags |= self._withdraw(self._hold(own, own.port_id))
        tags |= self._forget(self._displaced())
        idle = []
        needed: dict[BridgeId, AbstractSet[int]] = {}
        for seen in self.holdings.idle(
            lambda bridge_id: now_s - self._ageing_s(BridgeId(bridge_id))
        ):
            if seen.bridge_id not in needed:
                needed[seen.bridge_id] = self._needed(seen.bridge_id)
            if seen.mac in needed[seen.bridge_id]:
                self.holdings.use(seen, now_s)
            else:
                idle.append(seen)
        return frozenset(tags | self._forget(idle))

    def forget_port(self, port_id: PortId) -> frozenset[FlowTag]:
        """Forget the MACs behind a port that is gone from this host."""
        return self._forget(self.holdings.of_port(port_id))

    def _hold(self, seen: LearnedMac, source: PortId) -> list[LearnedMac]:
        key = (seen.bridge_id, seen.vlan, seen.mac)
        before = self._present.get(key)
        if before is not None and before != seen:
            self.holdings.discard(before)
        self._present[key] = seen
        device_id: ObjectId = seen.bridge_id
        return self.holdings.hold(seen, (source, device_id), self._clock.now_s())

    def _displaced(self) -> list[LearnedMac]:
        """Return the MACs that moved to another host. Our entry would win again with its end."""
        found = []
        for key in self._soft_state.take_displaced_macs():
            seen = self._present.get(key)
            if seen is not None and self._soft_state.mac_port(*key) != seen.port_id:
                found.append(seen)
        return found

    def _forget(self, gone: Iterable[LearnedMac]) -> frozenset[FlowTag]:
        gone = list(gone)
        for seen in gone:
            self.holdings.discard(seen)
        return self._withdraw(gone)

    def _withdraw(self, gone: Iterable[LearnedMac]) -> frozenset[FlowTag]:
        """Take entries that are held no more out of the shared tables."""
        tags: set[FlowTag] = set()
        for seen in gone:
            self._present.pop((seen.bridge_id, seen.vlan, seen.mac), None)
            tags |= self._soft_state.forget_mac(seen.bridge_id, seen.vlan, seen.mac)
        return frozenset(tags)
