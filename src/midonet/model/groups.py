"""Groups that rules refer to: of ports, and of IP addresses.

Neither holds its members. A port names its groups (`Port.port_group_ids`), and the store's index
of references leads from a group to its ports. The addresses of a group are the keys of a state
table (`midonet.nsdb.store.StateTables.ip_address_group`). So one member more or less writes one
small entry, however large the group is.
"""

from __future__ import annotations

import msgspec

from midonet.model.ids import IpAddressGroupId, PortGroupId


class PortGroup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Ports that rules match together.

    stateful: connections that leave by one member may come back by another. The members are on
        one device, and in no other stateful group.
    """

    id: PortGroupId
    project_id: str | None = None
    name: str | None = None
    stateful: bool = False


class IpAddressGroup(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """IPv4 and IPv6 addresses and prefixes that rules match together."""

    id: IpAddressGroupId
    name: str
