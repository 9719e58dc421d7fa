"""Which interface leads to an underlay address, and the MTU of the way there.

Route-netlink requests on a socket of their own, answered by the kernel before `send` returns, so
a look takes some microseconds and nothing is kept between two of them. Message formats:
rtnetlink(7), include/uapi/linux/{rtnetlink,if_link}.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from midonet.packets.addresses import IpAddress, IpVersion

_RTM_GETLINK, _RTM_GETROUTE = 18, 26
_NLMSG_ERROR, _NLM_F_REQUEST = 2, 1
_RTA_DST, _RTA_OIF, _RTA_METRICS, _RTAX_MTU = 1, 4, 8, 2
_IFLA_IFNAME, _IFLA_MTU = 3, 4
_TYPE_MASK = 0x3FFF
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_TIMEOUT_S = 5.0
_LONGEST = 1 << 16


@dataclass(frozen=True, slots=True)
class UnderlayPath:
    """The kernel's present choice for a destination. mtu_bytes: of IP packets, 0 is unknown."""

    interface_name: str
    interface_index: int
    mtu_bytes: int


class RouteQueries:
    """Asks the kernel of this network namespace for routes and links. Raises OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._socket.settimeout(_TIMEOUT_S)
        self._sequence = 0
        self._links: dict[int, tuple[str, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def forget_links(self) -> None:
        """Look at interfaces anew: their names and MTUs may have changed."""
        self._links.clear()

    def path(self, remote: IpAddress) -> UnderlayPath | None:
        """Return how the kernel would reach `remote`; None when it would not.

        The MTU is that of the route or its exception (learnt by path MTU discovery, RFC 1191 and
        8201) when there is one, else of the interface.
        """
        is_ipv6 = remote.version is IpVersion.V6
        family, bits = (socket.AF_INET6, 128) if is_ipv6 else (socket.AF_INET, 32)
        address = struct.pack("=HH", 4 + bits // 8, _RTA_DST) + remote.value.to_bytes(
            bits // 8, "big"
        )
        answer = self._ask(_RTM_GETROUTE, _ROUTE.pack(family, bits, 0, 0, 0, 0, 0, 0, 0) + address)
        found = {} if answer is None else dict(_attributes(answer[_ROUTE.size :]))
        if _RTA_OIF not in found:
            return None
        (index,) = struct.unpack("=I", found[_RTA_OIF])
        link = self._links.get(index) or self._link(index)
        if link is None:
            return None
        metrics = dict(_attributes(found.get(_RTA_METRICS, b"")))
        route_mtu = struct.unpack("=I", metrics.get(_RTAX_MTU, bytes(4)))[0]
        return UnderlayPath(link[0], index, route_mtu or link[1])

    def _link(self, index: int) -> tuple[str, int] | None:
        answer = self._ask(_RTM_GETLINK, _LINK.pack(0, 0, index, 0, 0))
        if answer is None:
            return None
        found = dict(_attributes(answer[_LINK.size :]))
        name = found.get(_IFLA_IFNAME, b"").split(b"\0", 1)[0].decode(errors="replace")
        (mtu_bytes,) = struct.unpack("=I", found.get(_IFLA_MTU, bytes(4)))
        self._links[index] = (name, mtu_bytes)
        return name, mtu_bytes

    def _ask(self, kind: int, payload: bytes) -> bytes | None:
        """Return the payload of the answer, None when the kernel says no."""
        self._sequence = self._sequence + 1 & 0xFFFF_FFFF
        size = _HEADER.size + len(payload)
        self._socket.send(_HEADER.pack(size, kind, _NLM_F_REQUEST, self._sequence, 0) + payload)
        while True:
            data = self._socket.recv(_LONGEST)
            size, answer, _, sequence, _ = _HEADER.unpack_from(data)
            if sequence != self._sequence:
                continue  # of a question that timed out
            if answer == _NLMSG_ERROR:
                return None
            return data[_HEADER.size : size]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            return
        yield kind & _TYPE_MASK, data[at + 4 : at + size]
        at += size + -size % 4
