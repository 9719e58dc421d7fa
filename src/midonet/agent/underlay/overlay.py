"""What the datapath must accept from other hosts, and how large a packet the underlay takes.

Both follow from the tunnels of the topology view, the interfaces of this host and, with a kernel
datapath, the paths to peers: the underlay interfaces are those that own a local tunnel address or
lead to a peer, and the size is what they, and probes along the paths, say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache

import structlog

from midonet.agent.datapath.protocol import Datapath, OverlayConfig
from midonet.agent.topology.view import TopologyView
from midonet.errors import DatapathError, DecodeError
from midonet.model.hosts import Interface, TunnelKind
from midonet.packets.addresses import IpAddress, IpVersion, parse_ip
from midonet.runtime.clock import Clock
from midonet.runtime.logging import Throttle

_log = structlog.get_logger("overlay")

_RETRY_S = 1.0
_VXLAN_OVERHEAD = {IpVersion.V4: 50, IpVersion.V6: 70}
"""Outer headers in bytes, the inner Ethernet header included: RFC 7348 section 5. GRE needs
less; one figure for both keeps what is published true for either."""


def overlay_config(
    view: TopologyView, interfaces: Mapping[str, Interface], *, vxlan_port: int
) -> OverlayConfig:
    """Return the end points and peers of the tunnels that a view knows."""
    tunnels = [route for route in view.tunnels.values() if route.kind is not TunnelKind.VTEP]
    local_addresses = frozenset(route.local for route in tunnels)
    return OverlayConfig(
        local_addresses=local_addresses,
        peers=frozenset(route.remote for route in tunnels),
        interface_names=frozenset(
            interface.name for interface in _owners(local_addresses, interfaces.values())
        ),
        vxlan_port=vxlan_port,
        host_addresses=view.underlay_addresses.all(),
    )


def underlay_mtu(config: OverlayConfig, interfaces: Mapping[str, Interface]) -> int | None:
    """Return the least MTU of the underlay interfaces in bytes, None when none is known."""
    sizes = [
        interface.mtu_bytes
        for name, interface in interfaces.items()
        if name in config.interface_names and interface.mtu_bytes
    ]
    return min(sizes, default=None)


def overlay_mtu(config: OverlayConfig, underlay_mtu_bytes: int) -> int:
    """Return the largest inner IP packet, in bytes, for an underlay of some MTU."""
    overhead = max(
        (_VXLAN_OVERHEAD[address.version] for address in config.local_addresses), default=50
    )
    return max(0, underlay_mtu_bytes - overhead)


class OverlayKeeper:
    """Keeps the datapath's overlay configuration in step."""

    def __init__(
        self,
        datapath: Datapath,
        clock: Clock,
        *,
        vxlan_port: int,
        on_mtu: Callable[[int], None],
    ) -> None:
        """`on_mtu` is called with the MTU of the underlay in bytes when it changes."""
        self._datapath = datapath
        self._clock = clock
        self._vxlan_port = vxlan_port
        self._on_mtu = on_mtu
        self._throttle = Throttle(clock)
        self._wanted = OverlayConfig(vxlan_port=vxlan_port)
        self._applied: OverlayConfig | None = None
        self._wake = asyncio.Event()
        self._underlay_mtu_bytes: int | None = None
        self._path_names: frozenset[str] = frozenset()
        self._path_mtu_bytes = 0
        self.overlay_mtu_bytes = 0

    def follow_paths(self, interface_names: frozenset[str], mtu_bytes: int) -> None:
        """Note the interfaces that lead to peers and the least path MTU, 0 while unknown; the
        next `update` takes them into effect."""
        self._path_names = interface_names
        self._path_mtu_bytes = mtu_bytes

    def update(self, view: TopologyView, interfaces: Mapping[str, Interface]) -> None:
        """Take the present tunnels and interfaces into effect."""
        config = overlay_config(view, interfaces, vxlan_port=self._vxlan_port)
        self._wanted = replace(config, interface_names=config.interface_names | self._path_names)
        self._apply()
        mtu_bytes = self._path_mtu_bytes or underlay_mtu(self._wanted, interfaces)
        if mtu_bytes is not None and mtu_bytes != self._underlay_mtu_bytes:
            self._underlay_mtu_bytes = mtu_bytes
            self.overlay_mtu_bytes = overlay_mtu(self._wanted, mtu_bytes)
            self._on_mtu(mtu_bytes)

    async def run(self) -> None:
        """Try again what the datapath refused, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._clock.sleep(_RETRY_S)
            self._apply()

    def _apply(self) -> None:
        if self._applied == self._wanted:
            return
        try:
            self._datapath.configure_overlay(self._wanted)
        except DatapathError as error:
            # Mostly an address that is not on this host yet.
            self._applied = None
            self._wake.set()
            held_back = self._throttle.allow("overlay_refused")
            if held_back is not None:
                _log.warning("overlay_refused", error=str(error), held_back=held_back)
        else:
            self._applied = self._wanted


def _owners(
    addresses: frozenset[IpAddress], interfaces: Iterable[Interface]
) -> Iterable[Interface]:
    return (
        interface
        for interface in interfaces
        if any(_address(text) in addresses for text in interface.addresses)
    )


@lru_cache(maxsize=4096)
def _address(text: str) -> IpAddress | None:
    try:
        return parse_ip(text.partition("/")[0])
    except DecodeError:
        return None
