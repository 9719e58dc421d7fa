"""Every endpoint there is. A module of `resources` that is listed here is served, documented,
and visited by the tests."""

from __future__ import annotations

from midonet.api.call import Endpoint
from midonet.api.resources import (
    bindings,
    chains,
    devices,
    dhcp,
    groups,
    hosts,
    insertions,
    load_balancers,
    mirrors,
    ports,
    qos,
    system,
    tables,
    tunnel_zones,
)

ENDPOINTS: tuple[Endpoint, ...] = (
    *devices.endpoints(),
    *ports.endpoints(),
    *tables.endpoints(),
    *dhcp.endpoints(),
    *chains.endpoints(),
    *groups.endpoints(),
    *load_balancers.endpoints(),
    *mirrors.endpoints(),
    *insertions.endpoints(),
    *qos.endpoints(),
    *hosts.endpoints(),
    *bindings.endpoints(),
    *tunnel_zones.endpoints(),
    *system.endpoints(),
)
