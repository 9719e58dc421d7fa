"""Every resource of the model, and the way from a representation type to its schema."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from midonet.model.schema import ResourceSchema
from midonet.model.schema_chains import CHAIN, RULE
from midonet.model.schema_devices import BRIDGE, ROUTE, ROUTER
from midonet.model.schema_dhcp import DHCP_HOST, DHCP_SUBNET, DHCP_V6_HOST, DHCP_V6_SUBNET
from midonet.model.schema_groups import (
    IP_ADDRESS_GROUP,
    IP_ADDRESS_GROUP_ADDRESS,
    PORT_GROUP,
    PORT_GROUP_PORT,
)
from midonet.model.schema_hosts import (
    ARP_ENTRY,
    BINDING,
    HOST,
    INTERFACE,
    MAC_ENTRY,
    TUNNEL_ZONE,
    TUNNEL_ZONE_HOST,
)
from midonet.model.schema_insertions import L2_INSERTION
from midonet.model.schema_load_balancers import (
    HEALTH_MONITOR,
    LOAD_BALANCER,
    POOL,
    POOL_MEMBER,
    VIP,
)
from midonet.model.schema_mirrors import MIRROR
from midonet.model.schema_ports import PORT, PORT_LINK
from midonet.model.schema_qos import QOS_BANDWIDTH_RULE, QOS_DSCP_RULE, QOS_POLICY
from midonet.model.schema_system import SYSTEM_STATE, TENANT, TOKEN

R = TypeVar("R", bound=msgspec.Struct)

RESOURCES: tuple[ResourceSchema[Any], ...] = (
    BRIDGE,
    ROUTER,
    PORT,
    PORT_LINK,
    ROUTE,
    MAC_ENTRY,
    ARP_ENTRY,
    DHCP_SUBNET,
    DHCP_HOST,
    DHCP_V6_SUBNET,
    DHCP_V6_HOST,
    CHAIN,
    RULE,
    PORT_GROUP,
    PORT_GROUP_PORT,
    IP_ADDRESS_GROUP,
    IP_ADDRESS_GROUP_ADDRESS,
    LOAD_BALANCER,
    POOL,
    POOL_MEMBER,
    VIP,
    HEALTH_MONITOR,
    MIRROR,
    L2_INSERTION,
    QOS_POLICY,
    QOS_BANDWIDTH_RULE,
    QOS_DSCP_RULE,
    HOST,
    INTERFACE,
    BINDING,
    TUNNEL_ZONE,
    TUNNEL_ZONE_HOST,
    SYSTEM_STATE,
    TENANT,
    TOKEN,
)
"""All resources, in the order of the documentation."""

_BY_REPRESENTATION = {schema.representation: schema for schema in RESOURCES}


def schema_of(representation: type[R]) -> ResourceSchema[R]:
    """Return the schema of a representation type. Raises KeyError for another type."""
    return _BY_REPRESENTATION[representation]
