"""Random edits of DHCP subnets and clients, and what a delta between two views must say of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from midonet.agent.flows.tags import FlowTag, device_tag, mac_tag
from midonet.agent.topology.dhcp_views import BridgeDhcp
from midonet.agent.topology.view import TopologyView
from midonet.model.devices import Bridge
from midonet.model.dhcp import (
    DhcpExtraOption,
    DhcpHost,
    DhcpSubnet,
    DhcpV6Host,
    DhcpV6Subnet,
    dhcp_host_id,
    dhcp_v6_host_id,
)

if TYPE_CHECKING:
    from tests.property.topology.worlds import Editor

DHCP_KINDS = (DhcpSubnet, DhcpHost, DhcpV6Subnet, DhcpV6Host)
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:03", "rubbish")
DUIDS = ("00:03:00:01:02:00:00:00:00:01", "02:00:00:00:00:02", "xx:yy:zz")
PREFIXES = ("10.0.1.0/24", "10.0.2.0/24", "rubbish")
PREFIXES6 = ("fd00:1::/64", "fd00:2::/64", "10.0.1.0/24")
ADDRESSES = ("10.0.1.5", "10.0.2.5", None, "rubbish", "fd00::5")
ADDRESSES6 = ("fd00:1::5", "fd00:2::5", None, "rubbish", "10.0.1.5")
OPTIONS = ((), (DhcpExtraOption(name="router", value="10.0.1.9"),),
           (DhcpExtraOption(name="rubbish", value="rubbish"),))  # fmt: skip


class DhcpEdits:
    """Edits of what bridges serve, for an editor that picks objects."""

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self.edits: list[Callable[[], None]] = [
            self.add_subnet, self.add_client, self.add_client, self.change_subnet,
            self.change_client, self.delete,
        ]  # fmt: skip

    def add_subnet(self) -> None:
        editor, bridge = self._editor, self._editor.pick(Bridge)
        if bridge is None:
            return
        kind, prefixes = editor.random.choice([(DhcpSubnet, PREFIXES), (DhcpV6Subnet, PREFIXES6)])
        prefix = editor.random.choice(prefixes)
        editor.world.put(kind(id=editor.new_id(), bridge_id=bridge.id, prefix=prefix))

    def add_client(self) -> None:
        editor, choice = self._editor, self._editor.random.choice
        subnet: Any = editor.pick(choice([DhcpSubnet, DhcpV6Subnet]))
        if isinstance(subnet, DhcpSubnet):
            mac = choice(MACS)
            editor.world.put(
                DhcpHost(
                    id=dhcp_host_id(subnet.id, mac), subnet_id=subnet.id, mac=mac,
                    address=choice(ADDRESSES), options=choice(OPTIONS),
                )
            )  # fmt: skip
        elif isinstance(subnet, DhcpV6Subnet):
            client = choice(DUIDS)
            editor.world.put(
                DhcpV6Host(
                    id=dhcp_v6_host_id(subnet.id, client), subnet_id=subnet.id, client_id=client,
                    address=choice(ADDRESSES6),
                )
            )  # fmt: skip

    def change_subnet(self) -> None:
        editor = self._editor
        subnet = editor.pick(editor.random.choice([DhcpSubnet, DhcpV6Subnet]))
        if subnet is not None:
            prefixes = PREFIXES if isinstance(subnet, DhcpSubnet) else PREFIXES6
            prefix = editor.random.choice(prefixes)
            editor.change(subnet, prefix=prefix, is_enabled=editor.random.random() < 0.7)

    def change_client(self) -> None:
        editor = self._editor
        host = editor.pick(editor.random.choice([DhcpHost, DhcpV6Host]))
        if host is not None:
            addresses = ADDRESSES if isinstance(host, DhcpHost) else ADDRESSES6
            editor.change(host, address=editor.random.choice(addresses))

    def delete(self) -> None:
        editor = self._editor
        kind = editor.random.choice(DHCP_KINDS)
        value = editor.pick(kind)
        if value is not None:
            editor.world.delete(kind, value.id)


def expected(old: TopologyView, new: TopologyView) -> set[FlowTag]:
    """Return the tags of what differs in what bridges serve."""
    tags: set[FlowTag] = set()
    for bridge_id in old.dhcp.keys() | new.dhcp.keys():
        one, two = (view.dhcp.get(bridge_id, BridgeDhcp()) for view in (old, new))
        if (one.v4.subnets, one.v6.subnets) != (two.v4.subnets, two.v6.subnets):
            tags.add(device_tag(bridge_id))
        macs = one.v4.leases.keys() | two.v4.leases.keys()
        tags |= {
            mac_tag(bridge_id, 0, mac)
            for mac in macs
            if one.v4.leases.get(mac) != two.v4.leases.get(mac)
        }
    return tags
