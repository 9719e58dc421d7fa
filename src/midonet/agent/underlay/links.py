"""Links that agents made, of whatever version: their names start with `mn-`."""

from __future__ import annotations

import errno
from types import TracebackType
from typing import Self

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from midonet.errors import DatapathError

PREFIX = "mn-"


class Links:
    """Finds and removes the agent's own links in the current network namespace."""

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

    async def remove(self, name: str) -> None:
        """Remove a link; one that is gone already is fine. Raises DatapathError."""
        if not name.startswith(PREFIX):
            raise DatapathError(f"{name} is not a link of the agent's own")
        try:
            await self._netlink.link("del", ifname=name)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise DatapathError(
                    f"cannot remove link {name}: {error}", errno=int(error.code)
                ) from error

    async def own(self) -> list[str]:
        """Return the names of the agent's own links that exist."""
        return sorted(
            [
                name
                async for link in await self._netlink.get_links()
                if (name := link.get("IFLA_IFNAME")).startswith(PREFIX)
            ]
        )
