"""The networks of a router port: which addresses are on its link, and which of them are hosts."""

from __future__ import annotations

from midonet.agent.simulation.link_local import is_link_local, link_local_address
from midonet.agent.topology.view import PortView
from midonet.packets.address_kinds import AddressKind, address_kind
from midonet.packets.addresses import IpAddress, IpVersion

_HOSTS = frozenset((AddressKind.HOST, AddressKind.LINK_LOCAL))


def on_link(port: PortView, address: IpAddress) -> bool:
    """Tell whether an address is on a network of a router port."""
    if address.version is IpVersion.V6 and is_link_local(address.value):
        return True
    return any(prefix.contains(address) for prefix in port.addresses)


def is_subnet_broadcast(port: PortView, address: int) -> bool:
    """Tell whether an IPv4 address is the broadcast address of a network of a router port."""
    return any(
        prefix.version is IpVersion.V4
        and prefix.length < 31
        and address == prefix.network | ((1 << (32 - prefix.length)) - 1)
        for prefix in port.addresses
    )


def is_own(port: PortView, address: IpAddress) -> bool:
    """Tell whether an address is the router port's, its IPv6 link-local one included."""
    if any(prefix.address == address for prefix in port.addresses):
        return True
    return address.version is IpVersion.V6 and address.value == link_local_address(port.mac)


def may_be_neighbour(port: PortView, address: IpAddress) -> bool:
    """Tell whether a host on the port's link can have an address."""
    if address_kind(address.version, address.value) not in _HOSTS:
        return False
    if address.version is IpVersion.V4 and is_subnet_broadcast(port, address.value):
        return False
    return on_link(port, address) and not is_own(port, address)
