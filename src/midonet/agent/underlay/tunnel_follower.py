"""From the tunnels of the view to the overlay: what is accepted, which paths are watched, the MTU.

Looks at the view and the interfaces whenever one of them, or a path to a peer, has changed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from midonet.agent.datapath.protocol import Datapath
from midonet.agent.topology.view import TopologyView
from midonet.agent.underlay.host_network import HostNetwork
from midonet.agent.underlay.overlay import OverlayKeeper
from midonet.agent.underlay.prober import Prober
from midonet.model.hosts import Interface
from midonet.runtime.clock import Clock


class TunnelFollower:
    """Keeps the datapath's overlay and the probes of paths in step with the view.

    network: the paths to peers; None where the datapath has none of its own.
    """

    def __init__(
        self,
        datapath: Datapath,
        clock: Clock,
        *,
        vxlan_port: int,
        prober: Prober | None,
        view: Callable[[], TopologyView],
        interfaces: Callable[[], Mapping[str, Interface]],
        on_mtu: Callable[[int], None],
    ) -> None:
        """`view` and `interfaces` return the present ones. prober: None for a datapath without
        paths of its own. `on_mtu` is called from `follow_mtu` with the underlay's MTU in bytes."""
        self.network = None if prober is None else HostNetwork(prober, self._paths_changed)
        self._overlay = OverlayKeeper(
            datapath, clock, vxlan_port=vxlan_port, on_mtu=self._underlay_mtu_changed
        )
        self._view = view
        self._interfaces = interfaces
        self._on_mtu = on_mtu
        self._has_begun = False
        self._mtu_bytes = 0
        self._mtu_changed = asyncio.Event()

    @property
    def overlay_mtu_bytes(self) -> int:
        """Return the largest inner IP packet, 0 while the underlay is not known."""
        return self._overlay.overlay_mtu_bytes

    def begin(self) -> None:
        """Follow from now on: the view knows all peers.

        Until then a persistent datapath keeps those from before the restart.
        """
        self._has_begun = True
        self.update()

    def update(self) -> None:
        """Take the present tunnels and interfaces into effect."""
        if self._has_begun:
            if self.network is not None:
                self.network.follow(self._view().tunnels)
            self._overlay.update(self._view(), self._interfaces())

    async def run(self) -> None:
        """Try again what the datapath refused, until cancelled."""
        await self._overlay.run()

    async def follow_mtu(self) -> None:
        """Report the underlay's MTU, until cancelled.

        In a task of its own: a new MTU makes a new view, and is found while one is taken into
        effect.
        """
        while True:
            await self._mtu_changed.wait()
            self._mtu_changed.clear()
            self._on_mtu(self._mtu_bytes)

    def _underlay_mtu_changed(self, mtu_bytes: int) -> None:
        self._mtu_bytes = mtu_bytes
        self._mtu_changed.set()

    def _paths_changed(self, interface_names: frozenset[str], mtu_bytes: int) -> None:
        self._overlay.follow_paths(interface_names, mtu_bytes)
        self.update()
