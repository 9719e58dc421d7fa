"""The pure step function from store changes to views.

changes -> Tracker (facts, references) -> Visibility (consistent versions) -> ViewDraft
               |                                                                  |
          watch keys                                                      view and delta
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from midonet.agent.topology.closure import TRACKED_KINDS
from midonet.agent.topology.draft import ViewDraft
from midonet.agent.topology.tracker import Dirty, Tracker
from midonet.agent.topology.view import TopologyView, ViewDelta
from midonet.agent.topology.visibility import Visibility
from midonet.model.ids import HostId, ObjectId
from midonet.nsdb.store import Change, WatchKey


@dataclass(frozen=True, slots=True)
class Step:
    """What one step leads to. Stop watching `removed` keys, then watch `added` ones.

    delta: None when nothing visible changed; `view` is then the one before.
    """

    view: TopologyView
    delta: ViewDelta | None
    added: tuple[WatchKey, ...]
    removed: tuple[WatchKey, ...]


class TopologyAssembler:
    """Makes the view of one host out of store changes, one step at a time. No I/O, no clock.

    underlay_mtu_bytes: largest outer IP packet that this host's underlay takes.
    hash_seed: see `TopologyView`.
    """

    def __init__(
        self, host_id: HostId, *, underlay_mtu_bytes: int = 1500, hash_seed: int = 0
    ) -> None:
        self._tracker = Tracker(host_id)
        self._draft = ViewDraft(host_id, hash_seed)
        self._visibility = Visibility(self._tracker, self._draft, underlay_mtu_bytes)
        self._view = TopologyView(0, host_id, hash_seed=hash_seed)

    @property
    def view(self) -> TopologyView:
        """Return the present view."""
        return self._view

    @property
    def is_holding(self) -> bool:
        """Tell whether a change is held back until what it refers to is known."""
        return self._visibility.is_holding

    @property
    def is_in_sync(self) -> bool:
        """Tell whether every watched fact is known and visible."""
        return self._tracker.facts.is_complete and not self.is_holding

    @property
    def undecodable(self) -> Mapping[ObjectId, str]:
        """Return the objects that cannot be understood and count as missing, with the reason."""
        if not self._tracker.malformed:
            return self._visibility.undecodable
        return {**self._visibility.undecodable, **self._tracker.malformed}

    def apply(self, changes: Iterable[Change] = ()) -> Step:
        """Take store changes in."""
        self._tracker.absorb(changes)
        return self._step(settle=False)

    def request(self, object_ids: Iterable[ObjectId]) -> Step:
        """Load objects, of whatever kind, with their closure."""
        self._tracker.request(object_ids)
        return self._step(settle=False)

    def is_loaded(self, object_id: ObjectId) -> bool:
        """Tell whether simulation would find the object, or find that it does not exist.

        A port is loaded together with its device.
        """
        view = self._view
        if object_id in view.absent:
            return True
        port = view.ports.get(object_id)  # type: ignore[call-overload]
        if port is not None:
            device_id = port.bridge_id or port.router_id
            return (
                device_id in view.bridges or device_id in view.routers or (device_id in view.absent)
            )
        if object_id in view.balancers or object_id in view.qos_policies:
            return True
        kinds = (view.bridges, view.routers, view.chains, view.mirrors)
        return any(object_id in objects for objects in kinds)

    def settle(self) -> Step:
        """Stop waiting for referents that are known not to exist; what needs them fails closed."""
        return self._step(settle=True)

    def set_underlay_mtu(self, mtu_bytes: int) -> Step:
        """Change the MTU of the underlay, in bytes."""
        self._visibility.underlay_mtu_bytes = mtu_bytes
        self._tracker.dirty.tunnels = True
        return self._step(settle=False)

    def collect(self, keep: Iterable[ObjectId]) -> Step:
        """Forget all that neither the ports bound here nor the objects in `keep` lead to.

        Does nothing while a change is held back: what the visible versions refer to stays.
        """
        if self.is_holding:
            return self._step(settle=False)
        self._visibility.forget(self._tracker.collect(keep))
        return self._step(settle=False)

    @property
    def tracked_count(self) -> int:
        """Return the number of tracked objects."""
        return sum(len(self._tracker.tracked[kind]) for kind in TRACKED_KINDS)

    def _step(self, *, settle: bool) -> Step:
        dirty, self._tracker.dirty = self._tracker.dirty, Dirty()
        self._visibility.advance(dirty, settle=settle)
        published = self._draft.publish(self._view)
        delta = None
        if published is not None:
            self._view, delta = published
        added, removed = self._tracker.facts.take_watch_changes()
        return Step(self._view, delta, added, removed)
