"""DHCP subnets and clients put together bridge by bridge, so that a client costs one client. Pure.

They are of bridges with a port bound here, and visible as soon as they are read: a client whose
entry is not known yet asks again in a few seconds. What cannot be understood counts as missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from midonet.agent.topology.assembly import name_servers
from midonet.agent.topology.dhcp_views import (
    BridgeDhcp,
    DhcpLease,
    DhcpSubnetView,
    DhcpV6Lease,
    DhcpV6SubnetView,
    Served,
)
from midonet.agent.topology.draft import ViewDraft
from midonet.agent.topology.facts import Facts, dhcp_clients_of
from midonet.errors import DecodeError
from midonet.model.dhcp import DhcpHost, DhcpSubnet, DhcpV6Host, DhcpV6Subnet
from midonet.model.dhcp_options import encode_option
from midonet.model.ids import BridgeId, ObjectId
from midonet.packets.addresses import (
    IpAddress,
    IpPrefix,
    IpVersion,
    parse_ip,
    parse_mac,
    parse_prefix,
)
from midonet.packets.domain_names import parse_search_list

L = TypeVar("L", bound=DhcpLease | DhcpV6Lease)

DHCP_KINDS: tuple[type[msgspec.Struct], ...] = (DhcpSubnet, DhcpHost, DhcpV6Subnet, DhcpV6Host)
_CLIENTS: dict[type[msgspec.Struct], type[Any]] = {DhcpSubnet: DhcpHost, DhcpV6Subnet: DhcpV6Host}


def subnet_view(subnet: DhcpSubnet) -> DhcpSubnetView:
    """Return a subnet as the view holds it. Raises DecodeError."""
    server = subnet.server_address or subnet.gateway
    return DhcpSubnetView(
        prefix=_prefix(subnet.prefix, IpVersion.V4),
        server=_address(server, IpVersion.V4) if server else 0,
        gateway=_address(subnet.gateway, IpVersion.V4) if subnet.gateway else None,
        dns=tuple(_address(text, IpVersion.V4) for text in subnet.dns_addresses),
        mtu_bytes=subnet.mtu_bytes,
        routes=tuple(
            (_prefix(route.destination, IpVersion.V4), _address(route.gateway, IpVersion.V4))
            for route in subnet.routes
        ),
        is_enabled=subnet.is_enabled,
    )


def subnet_v6_view(subnet: DhcpV6Subnet) -> DhcpV6SubnetView:
    """Return a subnet as the view holds it. Raises DecodeError."""
    return DhcpV6SubnetView(
        prefix=_prefix(subnet.prefix, IpVersion.V6),
        dns=name_servers(subnet.dns_addresses),
        domains=parse_search_list(subnet.domains),
        is_enabled=subnet.is_enabled,
    )


def lease(host: DhcpHost) -> tuple[int, DhcpLease] | None:
    """Return a client's MAC and lease, None for one that is given nothing. Raises DecodeError."""
    if host.address is None:
        return None
    options = tuple(encode_option(option.name, option.value) for option in host.options)
    address = _address(host.address, IpVersion.V4)
    return parse_mac(host.mac), DhcpLease(host.subnet_id, address, options)


def lease_v6(host: DhcpV6Host) -> tuple[bytes, DhcpV6Lease] | None:
    """Return a client's id and lease, None for one that is given nothing. Raises DecodeError."""
    if host.address is None:
        return None
    try:
        client = bytes.fromhex(host.client_id.replace(":", ""))
    except ValueError:
        raise DecodeError(f"not a client id: {host.client_id!r}") from None
    return client, DhcpV6Lease(host.subnet_id, _address(host.address, IpVersion.V6))


def _address(text: str, version: IpVersion) -> int:
    address: IpAddress = parse_ip(text)
    if address.version is not version:
        raise DecodeError(f"an address of another IP version: {text!r}")
    return address.value


def _prefix(text: str, version: IpVersion) -> IpPrefix:
    prefix = parse_prefix(text)
    if prefix.version is not version:
        raise DecodeError(f"a prefix of another IP version: {text!r}")
    return prefix


@dataclass(slots=True)
class _Family(Generic[L]):
    """What one bridge serves in one IP version.

    clients: key and lease of each entry. frozen: as it was published last, None when that is old.
    """

    subnets: dict[ObjectId, Any] = field(default_factory=dict)
    clients: dict[ObjectId, tuple[Any, L]] = field(default_factory=dict)
    leases: dict[Any, tuple[L, ...]] = field(default_factory=dict)
    frozen: Served[Any, Any, L] | None = None

    def put_subnet(self, subnet_id: ObjectId, view: Any | None) -> None:
        """Set a subnet, or take it out with None."""
        self.frozen = None
        if view is None:
            self.subnets.pop(subnet_id, None)
        else:
            self.subnets[subnet_id] = view

    def put_client(self, host_id: ObjectId, entry: tuple[Any, L] | None) -> None:
        """Set the entry of a client, or take it out with None."""
        self.frozen = None
        old = self.clients.pop(host_id, None)
        if old is not None:
            left = tuple(one for one in self.leases[old[0]] if one is not old[1])
            if left:
                self.leases[old[0]] = left
            else:
                del self.leases[old[0]]
        if entry is not None:
            self.clients[host_id] = entry
            leases = (*self.leases.get(entry[0], ()), entry[1])
            self.leases[entry[0]] = tuple(sorted(leases, key=lambda one: one.subnet_id.int))

    def freeze(self, before: Served[Any, Any, L]) -> Served[Any, Any, L]:
        """Return what is served now."""
        if self.frozen is None:
            subnets = before.subnets if before.subnets == self.subnets else dict(self.subnets)
            self.frozen = Served(subnets, dict(self.leases))
        return self.frozen


@dataclass(slots=True)
class _Bridge:
    v4: _Family[DhcpLease] = field(default_factory=_Family)
    v6: _Family[DhcpV6Lease] = field(default_factory=_Family)

    def family(self, kind: type[msgspec.Struct]) -> _Family[Any]:
        """Return the part that objects of a kind belong to."""
        return self.v4 if kind in (DhcpSubnet, DhcpHost) else self.v6


class VisibleDhcp:
    """Puts what bridges serve into the draft.

    undecodable: objects that cannot be understood, with the reason; those of here are added.
    """

    def __init__(self, facts: Facts, draft: ViewDraft, undecodable: dict[ObjectId, str]) -> None:
        self._facts = facts
        self._draft = draft
        self._undecodable = undecodable
        self._bridges: dict[BridgeId, _Bridge] = {}
        self._places: dict[ObjectId, tuple[type[msgspec.Struct], BridgeId]] = {}
        self._changed: set[BridgeId] = set()

    def advance(self, dirty: Iterable[tuple[type[msgspec.Struct], ObjectId]]) -> None:
        """Take over objects that changed, whether they are there or gone."""
        for kind, object_id in dirty:
            value = self._facts.get(kind, object_id)
            self._take_out(object_id)
            if isinstance(value, DhcpSubnet | DhcpV6Subnet):
                self._put_subnet(value)
            elif isinstance(value, DhcpHost | DhcpV6Host):
                self._put_client(value)
        self._publish()

    def forget_unwatched(self) -> None:
        """Take out what is not followed any more."""
        for object_id, (kind, _) in list(self._places.items()):
            if not self._facts.is_answered(kind, object_id):
                self._take_out(object_id)
        self._publish()

    def _put_subnet(self, subnet: DhcpSubnet | DhcpV6Subnet) -> None:
        kind, bridge_id = type(subnet), subnet.bridge_id
        parse: Callable[[Any], Any] = subnet_view if kind is DhcpSubnet else subnet_v6_view
        view = self._parsed(subnet.id, parse, subnet)
        self._place(kind, subnet.id, bridge_id).put_subnet(subnet.id, view)
        # Clients that were read before their subnet had no place yet.
        for host_id in self._facts.ids(dhcp_clients_of(kind, subnet.id)) or ():
            host = self._facts.get(_CLIENTS[kind], host_id)
            if host is not None and host_id not in self._places:
                self._put_client(host)

    def _put_client(self, host: DhcpHost | DhcpV6Host) -> None:
        place = self._places.get(host.subnet_id)
        if place is None:
            return
        parse: Callable[[Any], Any] = lease if isinstance(host, DhcpHost) else lease_v6
        entry = self._parsed(host.id, parse, host)
        self._place(type(host), host.id, place[1]).put_client(host.id, entry)

    def _place(
        self, kind: type[msgspec.Struct], object_id: ObjectId, bridge_id: BridgeId
    ) -> _Family[Any]:
        self._places[object_id] = (kind, bridge_id)
        self._changed.add(bridge_id)
        return self._bridges.setdefault(bridge_id, _Bridge()).family(kind)

    def _take_out(self, object_id: ObjectId) -> None:
        self._undecodable.pop(object_id, None)
        place = self._places.pop(object_id, None)
        if place is None:
            return
        kind, bridge_id = place
        self._changed.add(bridge_id)
        family = self._bridges.setdefault(bridge_id, _Bridge()).family(kind)
        if kind in _CLIENTS:
            family.put_subnet(object_id, None)
        else:
            family.put_client(object_id, None)

    def _parsed(self, object_id: ObjectId, parse: Callable[[Any], Any], value: Any) -> Any:
        try:
            return parse(value)
        except DecodeError as error:
            self._undecodable[object_id] = str(error)
            return None

    def _publish(self) -> None:
        for bridge_id in self._changed:
            parts = self._bridges.setdefault(bridge_id, _Bridge())
            before = self._draft.dhcp.get(bridge_id) or BridgeDhcp()
            shown = BridgeDhcp(parts.v4.freeze(before.v4), parts.v6.freeze(before.v6))
            is_empty = not (shown.v4.subnets or shown.v6.subnets)
            self._draft.dhcp.put(bridge_id, None if is_empty else shown)
            if is_empty and not parts.v4.clients and not parts.v6.clients:
                del self._bridges[bridge_id]
        self._changed = set()
