"""This host's place in the underlay: which interfaces lead to peers, and what the paths take.

For kernel datapaths. Follows the tunnels of the topology view, the kernel's routes and the
interfaces, and tells two things: the interfaces on which overlay packets may enter, and the
largest IP packet that every path to a known peer takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from midonet.agent.topology.view import TunnelRoute
from midonet.agent.underlay.prober import Prober
from midonet.agent.underlay.routes import RouteQueries, UnderlayPath
from midonet.model.ids import HostId
from midonet.packets.addresses import IpAddress

_log = structlog.get_logger("underlay")

_REFRESH_S = 1.0
"""Between two looks at what probes found; routes are looked up when tunnels or links change,
and every _ROUTES_EVERY looks."""

_ROUTES_EVERY = 10

_LOOKUPS_AT_ONCE = 64
"""Lookups (10 us each) between two turns of the event loop."""

Listener = Callable[[frozenset[str], int], None]


class HostNetwork:
    """Reports (underlay interface names, underlay MTU in bytes) whenever either changes.

    The MTU is 0 until there is a path to a peer.
    """

    def __init__(self, prober: Prober, on_change: Listener) -> None:
        self._prober = prober
        self._on_change = on_change
        self._tunnels: Mapping[HostId, TunnelRoute] = {}
        self._paths: dict[HostId, UnderlayPath] = {}
        self._looked_up: dict[HostId, IpAddress] = {}
        self._is_all_due = True
        self._reported: tuple[frozenset[str], int] | None = None
        self._look = asyncio.Event()

    def follow(self, tunnels: Mapping[HostId, TunnelRoute]) -> None:
        """Take in the present tunnels; call it with the same ones when an interface changed."""
        # The same tunnels once more: an interface has changed.
        self._is_all_due |= tunnels is self._tunnels
        self._tunnels = tunnels
        self._look.set()

    def overview(self) -> list[dict[str, object]]:
        """Return what is known of the way to each peer, for people to read."""
        found = []
        for host_id, path in sorted(self._paths.items()):
            state = self._prober.state(host_id)
            if state is not None and host_id in self._tunnels:
                found.append(
                    {
                        "hostId": str(host_id),
                        "address": str(self._tunnels[host_id].remote),
                        "interface": path.interface_name,
                        "reachable": state.is_reachable,
                        "mtuBytes": state.path_mtu_bytes or path.mtu_bytes,
                        "roundTripMs": round(state.round_trip_s * 1000, 3),
                    }
                )
        return found

    async def run(self) -> None:
        """Follow until cancelled."""
        self._prober.open()
        try:
            with RouteQueries() as routes:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._prober.run())
                    tasks.create_task(self._watch(routes))
        finally:
            self._prober.close()

    async def _watch(self, routes: RouteQueries) -> None:
        looks = 0
        while True:
            if self._look.is_set() or looks % _ROUTES_EVERY == 0:
                self._look.clear()
                if looks % _ROUTES_EVERY == 0:
                    self._is_all_due = True
                await self._find_paths(routes)
            looks += 1
            self._report()
            try:
                async with asyncio.timeout(_REFRESH_S):
                    await self._look.wait()
            except TimeoutError:
                continue

    async def _find_paths(self, routes: RouteQueries) -> None:
        """Look up peers that are new or elsewhere; all of them when links or routes may have
        changed."""
        tunnels = self._tunnels
        is_all, self._is_all_due = self._is_all_due, False
        if is_all:
            routes.forget_links()
        paths = {host_id: path for host_id, path in self._paths.items() if host_id in tunnels}
        due = [
            (host_id, tunnel.remote)
            for host_id, tunnel in tunnels.items()
            if is_all or self._looked_up.get(host_id) != tunnel.remote
        ]
        for number, (host_id, remote) in enumerate(due, 1):
            if number % _LOOKUPS_AT_ONCE == 0:
                await asyncio.sleep(0)
            path = routes.path(remote)
            if path is not None:
                paths[host_id] = path
                continue
            paths.pop(host_id, None)
            if is_all or host_id not in self._looked_up:
                _log.warning("no_route_to_peer", host_id=str(host_id), peer=str(remote))
        self._looked_up = {host_id: tunnel.remote for host_id, tunnel in tunnels.items()}
        if paths == self._paths and not due:
            return
        self._paths = paths
        self._prober.set_peers(
            {host_id: (tunnels[host_id].remote, path.mtu_bytes) for host_id, path in paths.items()}
        )

    def _report(self) -> None:
        names = frozenset(path.interface_name for path in self._paths.values())
        report = (names, self._smallest_mtu())
        if report != self._reported:
            self._reported = report
            self._on_change(*report)

    def _smallest_mtu(self) -> int:
        """Return the MTU that every path takes: what a probe proved, else the interface's."""
        sizes = []
        for host_id, path in self._paths.items():
            state = self._prober.state(host_id)
            is_proven = state is not None and state.is_reachable and state.path_mtu_bytes
            sizes.append(
                state.path_mtu_bytes if state is not None and is_proven else path.mtu_bytes
            )
        return min(sizes, default=0)
