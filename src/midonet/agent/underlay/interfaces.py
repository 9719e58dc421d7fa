"""The interface scanner: what links this network namespace has, kept current by notifications.

One dump at start, then rtnetlink link and address messages applied one by one. A lost message
(the socket's buffer overran) is repaired by a new dump.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from socket import AF_UNSPEC
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.rtnl import RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_LINK

from midonet.model.hosts import Interface

IFF_UP = 0x1
IFF_LOOPBACK = 0x8
IFF_LOWER_UP = 0x10000
"""Interface flags, include/uapi/linux/if.h."""

_TUNNEL_KINDS = frozenset({"vxlan", "gre", "gretap", "geneve", "ip6gre", "ip6gretap"})
_VIRTUAL_KINDS = frozenset({"veth", "tun", "bridge", "dummy", "netkit", "macvlan", "ipvlan"})


@dataclass(slots=True)
class _Link:
    index: int
    name: str
    flags: int
    mtu_bytes: int
    mac: str | None
    kind: str | None
    addresses: dict[str, int] = field(default_factory=dict)  # text -> prefix length
    picture: Interface | None = field(default=None, compare=False)

    def interface(self) -> Interface:
        """Return the model's picture of this link."""
        if self.picture is None:
            self.picture = self._draw()
        return self.picture

    def _draw(self) -> Interface:
        return Interface(
            name=self.name,
            mac=self.mac,
            mtu_bytes=self.mtu_bytes,
            kind=_interface_kind(self),
            endpoint=_endpoint(self),
            port_type="NetDev",
            addresses=tuple(sorted(self.addresses)),
            is_up=bool(self.flags & IFF_UP),
            has_link=bool(self.flags & IFF_LOWER_UP),
        )


def _interface_kind(link: _Link) -> str:
    if link.kind in _TUNNEL_KINDS:
        return "Tunnel"
    if link.kind in _VIRTUAL_KINDS or link.flags & IFF_LOOPBACK:
        return "Virtual"
    return "Physical"


def _endpoint(link: _Link) -> str:
    if link.flags & IFF_LOOPBACK:
        return "LOCALHOST"
    if link.kind == "tun":
        return "TUNTAP"
    return "PHYSICAL" if link.kind is None else "UNKNOWN"


class KernelInterfaces:
    """The interfaces of the namespace this process is in, by name."""

    def __init__(self) -> None:
        self._netlink: AsyncIPRoute | None = None
        self._links: dict[int, _Link] = {}
        self._changed = asyncio.Event()

    async def open(self) -> None:
        """Subscribe, then read everything once (in this order nothing is missed)."""
        self._netlink = AsyncIPRoute()
        await self._netlink.bind(groups=RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR)
        await self._resync()

    async def close(self) -> None:
        """Stop listening."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None

    def snapshot(self) -> Mapping[str, Interface]:
        """Return the interfaces as last seen, by name."""
        return {link.name: link.interface() for link in self._links.values()}

    def index_of(self, name: str) -> int | None:
        """Return the kernel's index of an interface, or None."""
        for link in self._links.values():
            if link.name == name:
                return link.index
        return None

    async def changes(self) -> None:
        """Wait until something changed since the last call, and take it in.

        Raises OSError when the kernel refuses a socket; the next call tries again.
        """
        while not self._changed.is_set():
            if self._netlink is None:
                await self.open()
                continue
            try:
                async for message in self._netlink.get():
                    self._apply(message, self._links)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # The kernel had more to tell than the socket holds: what was lost is not known.
                # The library goes on failing on such a socket.
                await self.close()
        self._changed.clear()

    async def _resync(self) -> None:
        """Read everything anew; what was seen last stands until then."""
        assert self._netlink is not None
        links: dict[int, _Link] = {}
        async for message in await self._netlink.get_links():
            self._apply(message, links)
        async for message in await self._netlink.get_addr():
            self._apply(message, links)
        self._links = links
        self._changed.set()

    def _apply(self, message: Any, links: dict[int, _Link]) -> None:
        event = message["event"]
        if event in ("RTM_NEWLINK", "RTM_DELLINK") and message["family"] != AF_UNSPEC:
            return  # a bridge speaks of one of its ports
        if event == "RTM_NEWLINK":
            self._put_link(message, links)
        elif event == "RTM_DELLINK":
            if links.pop(message["index"], None) is not None:
                self._changed.set()
        elif event in ("RTM_NEWADDR", "RTM_DELADDR"):
            self._put_address(message, links, present=event == "RTM_NEWADDR")

    def _put_link(self, message: Any, links: dict[int, _Link]) -> None:
        info = message.get("IFLA_LINKINFO")
        old = links.get(message["index"])
        link = _Link(
            index=message["index"],
            name=message.get("IFLA_IFNAME"),
            flags=message["flags"],
            mtu_bytes=message.get("IFLA_MTU") or 0,
            mac=message.get("IFLA_ADDRESS"),
            kind=info.get("IFLA_INFO_KIND") if info is not None else None,
            addresses=old.addresses if old is not None else {},
        )
        if link != old:
            links[link.index] = link
            self._changed.set()

    def _put_address(self, message: Any, links: dict[int, _Link], *, present: bool) -> None:
        link = links.get(message["index"])
        text = message.get("IFA_LOCAL") or message.get("IFA_ADDRESS")
        if link is None or text is None:
            return
        if present:
            link.addresses[text] = message["prefixlen"]
        else:
            link.addresses.pop(text, None)
        link.picture = None
        self._changed.set()
