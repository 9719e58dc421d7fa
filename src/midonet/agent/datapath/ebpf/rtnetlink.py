"""The few route-netlink requests that the datapath itself needs, synchronous and in order.

Links by name, the agent's own links, the way to an underlay address, and news about both.
Message formats: rtnetlink(7), include/uapi/linux/{rtnetlink,if_link}.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from midonet.errors import DatapathError
from midonet.packets.addresses import IpAddress, IpVersion

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_GETROUTE = 16, 17, 18, 26
_NLMSG_ERROR, _NLMSG_DONE, _NLM_F_DUMP = 2, 3, 0x300
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE = 1, 4, 0x200, 0x400
_RTMGRP_LINK, _RTMGRP_IPV4_ROUTE, _RTMGRP_IPV6_ROUTE = 1, 0x40, 0x400
_IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_IFALIAS = 3, 4, 18, 20
_IFLA_ADDRESS, _IFLA_MASTER, _IFLA_AF_SPEC, _IFLA_LINK_NETNSID = 1, 10, 26, 37
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFLA_INFO_SLAVE_KIND, _IFLA_INFO_SLAVE_DATA, _IFLA_BRPORT_GROUP_FWD_MASK = 4, 5, 31
_ALL_GROUPS = 0xFFFD
"""Link-local groups that a bridge treats as any other frame: all but that of pause frames, which it
always drops. Those it does not forward it would hand to the slave's own stack, up or down."""
_IFLA_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1
_IFLA_VXLAN_LEARNING, _IFLA_VXLAN_PORT, _IFLA_VXLAN_COLLECT_METADATA = 7, 15, 25
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_MULTIPATH = 1, 4, 5, 9
_RTA_VIA, _RTA_ENCAP, _RTA_NH_ID = 18, 22, 30
_RTM_F_FIB_MATCH, _RTN_UNICAST, _ROUTE_TYPE = 0x2000, 1, 0
_IFF_UP, _IFF_NOARP = 0x1, 0x80
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface.

    peer_is_foreign: the other end of a veth is in another namespace. vxlan_port: the UDP port of
    a VXLAN device that takes every tunnel key, else 0. master: index of the bridge, bond or other
    link that it is a slave of, else 0.
    """

    ifindex: int
    name: str
    kind: str
    alias: str
    peer_is_foreign: bool
    vxlan_port: int = 0
    is_up: bool = False
    master: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """The way to an address. ifindex: of the interface, 0 without a route. next_hop: the neighbour
    there; None when only the kernel can tell, packet by packet (several paths, say)."""

    ifindex: int
    next_hop: IpAddress | None = None


NO_ROUTE = Route(0)


@dataclass(frozen=True, slots=True)
class News:
    """What happened. gone, changed: interface indices. has_changed: some link or route came,
    went or changed, or news were lost."""

    gone: frozenset[int]
    changed: frozenset[int]
    has_changed: bool


def _attribute(kind: int, payload: bytes) -> bytes:
    size = 4 + len(payload)
    return struct.pack("=HH", size, kind) + payload + bytes(-size % 4)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + size]
        at += size + -size % 4


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="replace")


def _parse_link(data: bytes) -> Link:
    _, _, ifindex, flags, _ = _LINK.unpack_from(data)
    found = dict(_attributes(data[_LINK.size :]))
    info = dict(_attributes(found.get(_IFLA_LINKINFO, b"")))
    kind = _text(info.get(_IFLA_INFO_KIND, b""))
    return Link(
        ifindex,
        _text(found.get(_IFLA_IFNAME, b"")),
        kind,
        _text(found.get(_IFLA_IFALIAS, b"")),
        kind == "veth" and _IFLA_LINK_NETNSID in found,
        _vxlan_port(info) if kind == "vxlan" else 0,
        bool(flags & _IFF_UP),
        int.from_bytes(found.get(_IFLA_MASTER, b""), sys.byteorder),
    )


def _vxlan_port(info: dict[int, bytes]) -> int:
    found = dict(_attributes(info.get(_IFLA_INFO_DATA, b"")))
    takes_all = any(found.get(_IFLA_VXLAN_COLLECT_METADATA, b""))
    return int.from_bytes(found.get(_IFLA_VXLAN_PORT, b""), "big") if takes_all else 0


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (type, sequence, payload) of each netlink message."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size:
            return
        yield kind, sequence, data[at + _HEADER.size : at + size]
        at += size + -size % 4


class RouteNetlink:
    """A request socket and a socket for news, in the network namespace of the caller."""

    def __init__(self) -> None:
        self._requests = self._bind(0)
        self._requests.settimeout(_TIMEOUT_S)
        self._news = self._bind(_RTMGRP_LINK | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV6_ROUTE)
        self._news.setblocking(False)
        self._sequence = 0

    @staticmethod
    def _bind(groups: int) -> socket.socket:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        made.bind((0, groups))
        return made

    def close(self) -> None:
        """Close both sockets."""
        self._requests.close()
        self._news.close()

    @property
    def news_fd(self) -> int:
        """Descriptor that is readable when `news` has something to say."""
        return self._news.fileno()

    def news(self) -> News:
        """Return what changed since the last call; never waits."""
        gone: set[int] = set()
        changed: set[int] = set()
        has_changed = False
        while True:
            try:
                data = self._news.recv(1 << 16)
            except BlockingIOError:
                return News(frozenset(gone), frozenset(changed), has_changed)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                has_changed = True  # some news were lost: look at everything again
                continue
            for kind, _, payload in _messages(data):
                has_changed = True
                if kind not in (_RTM_DELLINK, _RTM_NEWLINK):
                    continue
                family, _, ifindex, _, _ = _LINK.unpack_from(payload)
                if kind == _RTM_NEWLINK:
                    changed.add(ifindex)
                elif family == socket.AF_UNSPEC:
                    gone.add(ifindex)
                else:  # it left a bridge
                    changed.add(ifindex)

    def _request(self, kind: int, flags: int, payload: bytes) -> bytes:
        """Send a request; return the payload of the answer, empty for a mere acknowledgement.

        Raises OSError with the errno of the kernel.
        """
        self._sequence += 1
        sequence = self._sequence
        size = _HEADER.size + len(payload)
        self._requests.send(_HEADER.pack(size, kind, flags | _NLM_F_REQUEST, sequence, 0) + payload)
        while True:
            for answer, number, data in _messages(self._requests.recv(1 << 16)):
                if number != sequence:
                    continue
                if answer != _NLMSG_ERROR:
                    return data
                (code,) = struct.unpack_from("=i", data)
                if code:
                    raise OSError(-code, os.strerror(-code))
                return b""

    def link(self, name: str) -> Link | None:
        """Return the link with a name, None when there is none."""
        wanted = _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, name.encode() + b"\0")
        try:
            return _parse_link(self._request(_RTM_GETLINK, 0, wanted))
        except OSError as error:
            # ERANGE, EINVAL: a name that no interface can have.
            if error.errno in (errno.ENODEV, errno.ERANGE, errno.EINVAL):
                return None
            raise

    def link_at(self, ifindex: int) -> Link | None:
        """Return the link with an index, None when there is none."""
        try:
            return _parse_link(self._request(_RTM_GETLINK, 0, _LINK.pack(0, 0, ifindex, 0, 0)))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def slaves(self, master: int) -> list[Link]:
        """Return the links whose master has an index."""
        wanted = _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_MASTER, struct.pack("=I", master))
        links = map(_parse_link, self._dump(_RTM_GETLINK, wanted))
        return [link for link in links if link.master == master]

    def _dump(self, kind: int, payload: bytes) -> list[bytes]:
        """Return the payloads of all answers to a request. Raises OSError."""
        self._sequence += 1
        size = _HEADER.size + len(payload)
        header = _HEADER.pack(size, kind, _NLM_F_REQUEST | _NLM_F_DUMP, self._sequence, 0)
        self._requests.send(header + payload)
        found: list[bytes] = []
        while True:
            for answer, number, data in _messages(self._requests.recv(1 << 16)):
                if number != self._sequence:
                    continue
                if answer == _NLMSG_DONE:
                    return found
                if answer == _NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", data)
                    raise OSError(-code, os.strerror(-code))
                found.append(data)

    def create_bridge(self, name: str, *, alias: str, mac: bytes) -> None:
        """Make a bridge that is down. mac: 6 bytes. Raises DatapathError."""
        request = (
            _LINK.pack(0, 0, 0, 0, 0)
            + _attribute(_IFLA_IFNAME, name.encode() + b"\0")
            + _attribute(_IFLA_ADDRESS, mac)
            + _attribute(_IFLA_LINKINFO | _NESTED, _attribute(_IFLA_INFO_KIND, b"bridge"))
        )
        try:
            self._request(_RTM_NEWLINK, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL, request)
            self._set(name, _attribute(_IFLA_IFALIAS, alias.encode()))
            self._silence_ipv6(name)
        except OSError as error:
            reason = (
                "the kernel lacks the bridge module" if error.errno == errno.EOPNOTSUPP else error
            )
            raise DatapathError(
                f"cannot make interface {name}: {reason}", errno=error.errno or 0
            ) from error

    def enslave(self, name: str, bridge: int) -> None:
        """Make a link a slave of a bridge, which then takes link-local groups too.

        Raises DatapathError when the kernel does not let it be one.
        """
        groups = _attribute(_IFLA_BRPORT_GROUP_FWD_MASK, struct.pack("=H", _ALL_GROUPS))
        info = _attribute(_IFLA_INFO_SLAVE_KIND, b"bridge")
        info += _attribute(_IFLA_INFO_SLAVE_DATA | _NESTED, groups)
        try:
            self._set(name, _attribute(_IFLA_MASTER, struct.pack("=I", bridge)))
            self._set(name, _attribute(_IFLA_LINKINFO | _NESTED, info))
        except OSError as error:
            raise DatapathError(
                f"interface {name} cannot be a slave of a bridge: {error}", errno=error.errno or 0
            ) from error

    def set_down(self, name: str) -> None:
        """Bring a link down. Raises DatapathError when it is missing."""
        try:
            self._set(name, b"", 0, _IFF_UP)
        except OSError as error:
            raise DatapathError(
                f"cannot bring interface {name} down: {error}", errno=error.errno or 0
            ) from error

    def create_veth(self, name: str, peer_name: str, *, alias: str, mtu_bytes: int) -> None:
        """Make a veth pair, both ends up, without ARP and IPv6 addresses. Raises DatapathError."""

        def end(own_name: str) -> bytes:
            return (
                _LINK.pack(0, 0, 0, _IFF_NOARP, _IFF_NOARP)
                + _attribute(_IFLA_IFNAME, own_name.encode() + b"\0")
                + _attribute(_IFLA_MTU, struct.pack("=I", mtu_bytes))
            )

        peer = _attribute(_VETH_INFO_PEER | _NESTED, end(peer_name))
        info = _attribute(_IFLA_INFO_KIND, b"veth") + _attribute(_IFLA_INFO_DATA | _NESTED, peer)
        request = end(name) + _attribute(_IFLA_LINKINFO | _NESTED, info)
        try:
            self._request(_RTM_NEWLINK, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL, request)
            self._set(name, _attribute(_IFLA_IFALIAS, alias.encode()))
            for each in (name, peer_name):
                self._silence_ipv6(each)
                self._set(each, b"", _IFF_UP | _IFF_NOARP)
        except OSError as error:
            raise DatapathError(
                f"cannot make interface {name}: {error}", errno=error.errno or 0
            ) from error

    def create_vxlan(self, name: str, port: int) -> None:
        """Make a VXLAN device, down, that takes every tunnel key at a UDP port.

        It has no IPv6 address of its own. Raises DatapathError.
        """
        data = (
            _attribute(_IFLA_VXLAN_COLLECT_METADATA, b"\1")
            + _attribute(_IFLA_VXLAN_LEARNING, b"\0")
            + _attribute(_IFLA_VXLAN_PORT, port.to_bytes(2, "big"))
        )
        info = _attribute(_IFLA_INFO_KIND, b"vxlan") + _attribute(_IFLA_INFO_DATA | _NESTED, data)
        request = (
            _LINK.pack(0, 0, 0, 0, 0)
            + _attribute(_IFLA_IFNAME, name.encode() + b"\0")
            + _attribute(_IFLA_LINKINFO | _NESTED, info)
        )
        try:
            self._request(_RTM_NEWLINK, _NLM_F_ACK | _NLM_F_CREATE | _NLM_F_EXCL, request)
        except OSError as error:
            raise DatapathError(
                f"cannot make interface {name}: {error}", errno=error.errno or 0
            ) from error
        self._silence_ipv6(name)

    def set_up(self, name: str) -> None:
        """Bring a link up. Raises DatapathError: EADDRINUSE when its UDP port is taken, say."""
        try:
            self._set(name, b"", _IFF_UP)
        except OSError as error:
            raise DatapathError(
                f"cannot bring interface {name} up: {error}", errno=error.errno or 0
            ) from error

    def _silence_ipv6(self, name: str) -> None:
        """Keep IPv6 from giving the link an address of its own. Without IPv6 there is no need."""
        mode = _attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes((_ADDR_GEN_NONE,)))
        with suppress(OSError):
            self._set(name, _attribute(_IFLA_AF_SPEC, _attribute(socket.AF_INET6, mode)))

    def _set(self, name: str, attributes: bytes, flags: int = 0, changes: int = 0) -> None:
        request = (
            _LINK.pack(0, 0, 0, flags, flags | changes)
            + _attribute(_IFLA_IFNAME, name.encode() + b"\0")
            + attributes
        )
        self._request(_RTM_NEWLINK, _NLM_F_ACK, request)

    def delete_link(self, name: str) -> None:
        """Remove a link; one that is gone is fine."""
        wanted = _LINK.pack(0, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, name.encode() + b"\0")
        try:
            self._request(_RTM_DELLINK, _NLM_F_ACK, wanted)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def route_towards(self, remote: IpAddress) -> Route:
        """Return the way to `remote`."""
        try:
            chosen = self._route(remote, 0)
        except OSError:
            return NO_ROUTE
        (ifindex,) = struct.unpack("=I", chosen.get(_RTA_OIF, bytes(4)))
        try:
            entry = self._route(remote, _RTM_F_FIB_MATCH)
        except OSError:
            return Route(ifindex)
        return Route(ifindex, _next_hop(remote, ifindex, entry))

    def _route(self, remote: IpAddress, flags: int) -> dict[int, bytes]:
        """Return the attributes of a route, and its type as attribute 0. Raises OSError."""
        is_ipv6 = remote.version == IpVersion.V6
        family, bits = (socket.AF_INET6, 128) if is_ipv6 else (socket.AF_INET, 32)
        request = struct.pack("=BBBBBBBBI", family, bits, 0, 0, 0, 0, 0, 0, flags)
        request += _attribute(_RTA_DST, remote.value.to_bytes(bits // 8, "big"))
        answer = self._request(_RTM_GETROUTE, 0, request)
        return {_ROUTE_TYPE: answer[7:8], **dict(_attributes(answer[12:]))}


def _next_hop(remote: IpAddress, ifindex: int, entry: dict[int, bytes]) -> IpAddress | None:
    """Return the one neighbour that a routing table's entry leads to."""
    (found,) = struct.unpack("=I", entry.get(_RTA_OIF, bytes(4)))
    is_plain = entry[_ROUTE_TYPE] == bytes((_RTN_UNICAST,)) and entry.keys().isdisjoint(
        (_RTA_MULTIPATH, _RTA_VIA, _RTA_ENCAP, _RTA_NH_ID)
    )
    if not is_plain or found != ifindex:
        return None
    gateway = entry.get(_RTA_GATEWAY)
    return IpAddress(remote.version, int.from_bytes(gateway, "big")) if gateway else remote
