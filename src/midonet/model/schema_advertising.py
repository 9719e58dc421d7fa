"""Router advertisements among the properties of a router port, and as they are stored."""

from __future__ import annotations

from typing import Any, Protocol

from midonet.errors import Violation
from midonet.model.devices import RouterAdvertising
from midonet.model.schema_dhcp import search_list_violations
from midonet.model.validation import broken


class AdvertisingFields(Protocol):
    """The properties of a port that are about router advertisements."""

    @property
    def ra_enabled(self) -> bool: ...
    @property
    def ra_managed(self) -> bool: ...
    @property
    def ra_other_config(self) -> bool: ...
    @property
    def ra_autonomous(self) -> bool: ...
    @property
    def ra_lifetime_s(self) -> int: ...
    @property
    def ra_interval_s(self) -> int: ...
    @property
    def ra_dns_addresses(self) -> tuple[str, ...]: ...
    @property
    def ra_domains(self) -> tuple[str, ...]: ...


def advertising_to_model(
    fields: AdvertisingFields, violations: list[Violation]
) -> RouterAdvertising | None:
    """Return the stored form, None where every property has its default."""
    if 0 < fields.ra_lifetime_s < fields.ra_interval_s:
        rule = "must be 0, or at least raIntervalSeconds"
        violations.append(broken("raLifetimeSeconds", rule, fields.ra_lifetime_s))
    violations += search_list_violations(fields.ra_domains, "raDomainSearch")
    found = RouterAdvertising(
        is_enabled=fields.ra_enabled,
        is_managed=fields.ra_managed,
        has_other=fields.ra_other_config,
        is_autonomous=fields.ra_autonomous,
        lifetime_s=fields.ra_lifetime_s,
        interval_s=fields.ra_interval_s,
        dns_addresses=fields.ra_dns_addresses,
        domains=fields.ra_domains,
    )
    return None if found == RouterAdvertising() else found


def advertising_from_model(stored: RouterAdvertising | None) -> dict[str, Any]:
    """Return the properties by attribute."""
    shown = stored or RouterAdvertising()
    return {
        "ra_enabled": shown.is_enabled,
        "ra_managed": shown.is_managed,
        "ra_other_config": shown.has_other,
        "ra_autonomous": shown.is_autonomous,
        "ra_lifetime_s": shown.lifetime_s,
        "ra_interval_s": shown.interval_s,
        "ra_dns_addresses": shown.dns_addresses,
        "ra_domains": shown.domains,
    }
