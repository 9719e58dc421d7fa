"""Which hosts a connection concerns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from midonet.agent.flow_state.connection import Connection, ConnectionKey
from midonet.agent.topology.view import TopologyView
from midonet.model.ids import HostId, ObjectId, PortId

ASKED_MAX = 16
"""Hosts that are asked for one key."""


class Whom:
    """The hosts at the zones of connections, as one view has them."""

    def __init__(self, view: TopologyView) -> None:
        """Look at the ports of a view; `is_of` tells whether it still holds."""
        self._view = view
        self._members: dict[ObjectId, list[PortId]] = {}
        for port in view.ports.values():
            if port.stateful_group_id is not None:
                self._members.setdefault(port.stateful_group_id, []).append(port.id)

    def is_of(self, view: TopologyView) -> bool:
        """Tell whether places and groups of ports are in `view` what they were."""
        mine = self._view
        return (
            mine.ports is view.ports
            and mine.locations is view.locations
            and mine.tunnels is view.tunnels
        )

    def is_concerned(self, connection: Connection) -> list[HostId]:
        """Return the other hosts where packets of a connection enter, in ascending order.

        A port without a location, and a host without a tunnel, are left out: they ask when they
        come.
        """
        scopes = {key.zone.scope for key in connection.keys}
        return sorted(self._others(host for scope in scopes for host in self._hosts_at(scope)))

    def may_know(self, key: ConnectionKey) -> list[HostId]:
        """Return the hosts that may know a connection which is not known here, at most
        `ASKED_MAX`.

        Those of the other members of a stateful group first; then those of the ports that are
        near in the virtual network, as the view knows them: one of them began it.
        """
        group = self._others(self._hosts_at(key.zone.scope))
        near = self._others(place.host_id for place in self._view.locations.values())
        return [*sorted(group), *sorted(near - group)][:ASKED_MAX]

    def is_local(self, connection: Connection) -> bool:
        """Tell whether packets of a connection may enter at this host."""
        scopes = {key.zone.scope for key in connection.keys}
        return any(self._view.host_id in self._hosts_at(scope) for scope in scopes)

    def _hosts_at(self, scope: ObjectId) -> Iterator[HostId]:
        for port_id in self._members.get(scope, (PortId(scope),)):
            place = self._view.locations.get(port_id)
            port = self._view.ports.get(port_id)
            if place is not None:
                yield place.host_id
            elif port is not None and port.host_id is not None:
                yield port.host_id

    def _others(self, hosts: Iterable[HostId]) -> set[HostId]:
        mine, tunnels = self._view.host_id, self._view.tunnels
        return {host for host in hosts if host != mine and host in tunnels}
