"""MAC learning: which MACs were seen at ports of this host, and when traffic last used them.

The first sight of a MAC puts it into the bridge's shared table as this host's entry. Traffic
keeps it there: every packet that comes up with that source, and every program with it that the
datapath reports as used. After 15 s without either it is removed.
"""

from __future__ import annotations

from midonet.agent.flows.program import LearnedMac
from midonet.agent.flows.tags import FlowTag
from midonet.agent.soft_state.replica import SoftStateReplica
from midonet.model.ids import PortId
from midonet.runtime.clock import Clock

MAC_EXPIRY_S = 15.0
"""Time after its last use until a MAC is forgotten."""


class MacLearning:
    """The MACs that this host holds in bridges' tables."""

    def __init__(self, soft_state: SoftStateReplica, clock: Clock) -> None:
        self._soft_state = soft_state
        self._clock = clock
        self._last_used_s: dict[LearnedMac, float] = {}

    def __len__(self) -> int:
        return len(self._last_used_s)

    def learn(self, seen: LearnedMac) -> frozenset[FlowTag]:
        """Note that a MAC sent through a port; return the tags of facts that changed."""
        place = self._soft_state.mac_port(seen.bridge_id, seen.vlan, seen.mac)
        is_held = seen in self._last_used_s
        self._last_used_s[seen] = self._clock.now_s()
        if is_held and place == seen.port_id:
            return frozenset()
        return self._soft_state.learn_mac(seen.bridge_id, seen.vlan, seen.mac, seen.port_id)

    def keep_alive(self, used: LearnedMac, last_used_s: float) -> None:
        """Note that traffic used a MAC at a time that may lie in the past."""
        known_s = self._last_used_s.get(used)
        if known_s is not None and last_used_s > known_s:
            self._last_used_s[used] = last_used_s

    def expire(self) -> frozenset[FlowTag]:
        """Forget what has not been used for MAC_EXPIRY_S.

        Entries of this host from before a restart get that time anew.
        """
        now_s = self._clock.now_s()
        for own in self._soft_state.own_macs():
            self._last_used_s.setdefault(own, now_s)
        limit_s = now_s - MAC_EXPIRY_S
        return self._forget([seen for seen, used in self._last_used_s.items() if used <= limit_s])

    def forget_port(self, port_id: PortId) -> frozenset[FlowTag]:
        """Forget the MACs behind a port that is gone from this host."""
        return self._forget([seen for seen in self._last_used_s if seen.port_id == port_id])

    def _forget(self, gone: list[LearnedMac]) -> frozenset[FlowTag]:
        tags: set[FlowTag] = set()
        for seen in gone:
            del self._last_used_s[seen]
            place = self._soft_state.mac_port(seen.bridge_id, seen.vlan, seen.mac)
            if place == seen.port_id:
                tags |= self._soft_state.forget_mac(seen.bridge_id, seen.vlan, seen.mac)
        return frozenset(tags)
