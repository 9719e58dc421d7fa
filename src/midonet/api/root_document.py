"""The application document: where everything is. Clients start here and follow its URIs."""

from __future__ import annotations

from collections.abc import Sequence

from midonet.api.call import Endpoint

APPLICATION_MEDIA_TYPES = (
    "application/vnd.org.midonet.Application-v5+json",
    "application/json",
    "application/vnd.org.midonet.Application-v4+json",
    "application/vnd.org.midonet.Application-v3+json",
    "application/vnd.org.midonet.Application-v2+json",
    "application/vnd.org.midonet.Application-v1+json",
)
VERSION = "v5.0"

KEYS: tuple[tuple[str, str | None, str | None], ...] = (
    ("bgp_networks", None, "bgpNetworkTemplate"),
    ("bgp_peers", None, "bgpPeerTemplate"),
    ("bridges", "bridges", "bridgeTemplate"),
    ("chains", "chains", "chainTemplate"),
    ("health_monitors", "healthMonitors", "healthMonitorTemplate"),
    ("hosts", "hosts", "hostTemplate"),
    ("ip_addr_groups", "ipAddrGroups", "ipAddrGroupTemplate"),
    ("l2insertions", "l2insertions", "l2InsertionTemplate"),
    ("load_balancers", "loadBalancers", "loadBalancerTemplate"),
    ("mirrors", "mirrors", "mirrorTemplate"),
    ("neutron", "neutron", None),
    ("pool_members", "poolMembers", "poolMemberTemplate"),
    ("pools", "pools", "poolTemplate"),
    ("port_groups", "portGroups", "portGroupTemplate"),
    ("ports", "ports", "portTemplate"),
    ("qos_bw_limit_rules", None, "qosBwLimitRuleTemplate"),
    ("qos_dscp_rules", None, "qosDscpRuleTemplate"),
    ("qos_policies", "qosPolicies", "qosPolicyTemplate"),
    ("routers", "routers", "routerTemplate"),
    ("routes", None, "routeTemplate"),
    ("rules", None, "ruleTemplate"),
    ("service_container_groups", "serviceContainerGroups", "serviceContainerGroupTemplate"),
    ("service_containers", "serviceContainers", "serviceContainerTemplate"),
    ("system_state", "systemState", None),
    ("tenants", "tenants", "tenantTemplate"),
    ("traces", "traceRequests", "traceRequestTemplate"),
    ("tunnel_zones", "tunnelZones", "tunnelZoneTemplate"),
    ("vips", "vips", "vipTemplate"),
    ("vteps", "vteps", "vtepTemplate"),
)
"""Segment below the root, key of the collection, key of the item template: what clients know."""


def served_segments(endpoints: Sequence[Endpoint]) -> frozenset[str]:
    """Return the first segments of the paths that are served."""
    return frozenset(endpoint.path.split("/")[1] for endpoint in endpoints)


def root_document(base: str, segments: frozenset[str]) -> dict[str, str]:
    """Return the document for a caller who knows the root as `base`.

    Only what is served is advertised: a client that follows a URI finds something there.
    """
    document = {"uri": base, "version": VERSION}
    for segment, collection_key, template_key in KEYS:
        if segment in segments:
            if collection_key is not None:
                document[collection_key] = f"{base}/{segment}"
            if template_key is not None:
                document[template_key] = f"{base}/{segment}/{{id}}"
    return document
