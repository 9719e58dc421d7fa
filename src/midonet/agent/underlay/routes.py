"""Which interface leads to an underlay address, and the MTU of the way there."""

from __future__ import annotations

from dataclasses import dataclass

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from midonet.packets.addresses import IpAddress


@dataclass(frozen=True, slots=True)
class UnderlayPath:
    """The kernel's present choice for a destination. mtu_bytes: of IP packets, 0 is unknown."""

    interface_name: str
    interface_index: int
    mtu_bytes: int


async def underlay_path(netlink: AsyncIPRoute, remote: IpAddress) -> UnderlayPath | None:
    """Ask the kernel how it would reach `remote`; None when it would not.

    The MTU is that of the route exception (learnt by path MTU discovery, RFC 1191 and 8201)
    when there is one, else of the interface.
    """
    try:
        answer = await netlink.route("get", dst=str(remote))
    except NetlinkError:
        return None
    routes = [route for route in answer if route.get("RTA_OIF")]
    if not routes:
        return None
    index = routes[0].get("RTA_OIF")
    metrics = routes[0].get("RTA_METRICS")
    links = await netlink.get_links(index)
    async for link in links:
        mtu = (metrics.get("RTAX_MTU") if metrics is not None else None) or link.get("IFLA_MTU")
        return UnderlayPath(link.get("IFLA_IFNAME"), int(index), int(mtu or 0))
    return None
