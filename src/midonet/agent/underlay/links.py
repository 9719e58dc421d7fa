"""Links that the agent makes beside its datapath, each made only when it is missing.

Recognition rule: every link's name starts with `mn-`. Making one that is there as wanted
performs no operation; one that is there but different is made anew.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from midonet.errors import DatapathError

PREFIX = "mn-"


class Links:
    """Makes and removes the agent's own links in the current network namespace."""

    def __init__(self) -> None:
        self._netlink = AsyncIPRoute()

    async def __aenter__(self) -> Self:
        await self._netlink.setup_endpoint()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._netlink.close()

    async def _find(self, name: str) -> Any | None:
        try:
            found = [link async for link in await self._netlink.link("dump", ifname=name)]
        except NetlinkError as error:
            if error.code == 19:  # ENODEV
                return None
            raise
        return found[0] if found else None

    async def index_of(self, name: str) -> int | None:
        """Return the index of a link, or None."""
        link = await self._find(name)
        return None if link is None else int(link["index"])

    async def ensure_vxlan_socket(self, name: str, port: int) -> None:
        """Make a metadata-mode VXLAN device that owns UDP `port` when it is not there.

        No packet passes through the device. Its socket makes the kernel's GRO merge segments
        of our tunnels, and keeps the stack from answering them with port-unreachable.
        """
        link = await self._find(name)
        if link is not None:
            info = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA")
            if info is not None and info.get("IFLA_VXLAN_PORT") == port:
                await self.set_up(name)
                return
            await self.remove(name)
        await self._make(
            "add",
            ifname=name,
            kind="vxlan",
            vxlan_collect_metadata=True,
            vxlan_port=port,
            vxlan_learning=False,
        )
        await self.set_up(name)

    async def set_up(self, name: str) -> None:
        """Bring a link up. Raises DatapathError when it is missing."""
        link = await self._find(name)
        if link is None:
            raise DatapathError(f"interface {name} does not exist", errno=19)
        if not link["flags"] & 1:
            await self._make("set", index=link["index"], state="up")

    async def remove(self, name: str) -> None:
        """Remove a link; one that is gone already is fine. Raises DatapathError."""
        if not name.startswith(PREFIX):
            raise DatapathError(f"{name} is not a link of the agent's own")
        index = await self.index_of(name)
        if index is not None:
            await self._make("del", index=index)

    async def own(self) -> list[str]:
        """Return the names of the agent's own links that exist."""
        return sorted(
            [
                name
                async for link in await self._netlink.get_links()
                if (name := link.get("IFLA_IFNAME")).startswith(PREFIX)
            ]
        )

    async def _make(self, command: str, **arguments: Any) -> None:
        try:
            await self._netlink.link(command, **arguments)
        except NetlinkError as error:
            what = arguments.get("ifname", arguments.get("index"))
            raise DatapathError(
                f"cannot {command} link {what}: {error}", errno=int(error.code)
            ) from error
