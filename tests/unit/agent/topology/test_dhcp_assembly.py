"""What of stored DHCP and advertisements can be told, and what means nothing."""

from __future__ import annotations

from uuid import UUID

import pytest

from midonet.agent.topology.assembly import advertising_view
from midonet.agent.topology.dhcp_assembly import lease, lease_v6, subnet_v6_view, subnet_view
from midonet.errors import DecodeError
from midonet.model.devices import RouterAdvertising
from midonet.model.dhcp import (
    MAX_NAME_SERVERS,
    DhcpExtraOption,
    DhcpHost,
    DhcpRoute,
    DhcpSubnet,
    DhcpV6Host,
    DhcpV6Subnet,
)
from midonet.model.ids import BridgeId

SUBNET, HOST, BRIDGE = UUID(int=1), UUID(int=2), BridgeId(UUID(int=3))
LONG = tuple(f"{'x' * 60}.{index}" for index in range(9))


@pytest.mark.parametrize(
    "fields",
    [
        {"prefix": "rubbish"},
        {"prefix": "fd00::/64"},
        {"server_address": "fd00::1"},
        {"gateway": "rubbish"},
        {"dns_addresses": ("192.0.2.53", "fd00::1")},
        {"routes": (DhcpRoute(destination="fd00::/8", gateway="10.0.0.1"),)},
        {"routes": (DhcpRoute(destination="10.0.0.0/8", gateway="rubbish"),)},
    ],
)
def test_a_subnet_that_means_nothing_is_a_decode_error(fields: dict[str, object]) -> None:
    good = {"id": SUBNET, "bridge_id": BRIDGE, "prefix": "10.0.1.0/24"}
    subnet_view(DhcpSubnet(**good))  # type: ignore[arg-type]
    with pytest.raises(DecodeError):
        subnet_view(DhcpSubnet(**good | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"prefix": "10.0.1.0/24"},
        {"dns_addresses": ("10.0.1.1",)},
        {"dns_addresses": ("2001:db8::1",) * (MAX_NAME_SERVERS + 1)},
        {"domains": ("a b",)},
        {"domains": LONG},
    ],
)
def test_an_ipv6_subnet_that_means_nothing_is_a_decode_error(fields: dict[str, object]) -> None:
    good = {"id": SUBNET, "bridge_id": BRIDGE, "prefix": "fd00:1::/64"}
    subnet_v6_view(DhcpV6Subnet(**good))  # type: ignore[arg-type]
    with pytest.raises(DecodeError):
        subnet_v6_view(DhcpV6Subnet(**good | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"mac": "rubbish"},
        {"address": "fd00::5"},
        {"options": (DhcpExtraOption(name="mtu", value="rubbish"),)},
        {"options": (DhcpExtraOption(name="message-type", value="1"),)},
    ],
)
def test_a_client_that_means_nothing_is_a_decode_error(fields: dict[str, object]) -> None:
    good = {"id": HOST, "subnet_id": SUBNET, "mac": "02:00:00:00:00:05", "address": "10.0.1.5"}
    assert lease(DhcpHost(**good)) is not None  # type: ignore[arg-type]
    with pytest.raises(DecodeError):
        lease(DhcpHost(**good | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize("fields", [{"client_id": "rubbish"}, {"address": "10.0.1.5"}])
def test_an_ipv6_client_that_means_nothing_is_a_decode_error(fields: dict[str, object]) -> None:
    good = {"id": HOST, "subnet_id": SUBNET, "client_id": "00:03:00", "address": "fd00:1::5"}
    assert lease_v6(DhcpV6Host(**good)) is not None  # type: ignore[arg-type]
    with pytest.raises(DecodeError):
        lease_v6(DhcpV6Host(**good | fields))  # type: ignore[arg-type]


def test_a_client_without_an_address_is_given_nothing() -> None:
    assert lease(DhcpHost(id=HOST, subnet_id=SUBNET, mac="02:00:00:00:00:05")) is None
    assert lease_v6(DhcpV6Host(id=HOST, subnet_id=SUBNET, client_id="00:03:00")) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"lifetime_s": -1},
        {"lifetime_s": 65536},
        {"interval_s": 0},
        {"dns_addresses": ("192.0.2.53",)},
        {"dns_addresses": ("2001:db8::1",) * (MAX_NAME_SERVERS + 1)},
        {"domains": ("a..b",)},
        {"domains": LONG},
    ],
)
def test_what_cannot_be_advertised_is_a_decode_error(fields: dict[str, object]) -> None:
    assert advertising_view(RouterAdvertising(is_enabled=True)) is not None
    with pytest.raises(DecodeError):
        advertising_view(RouterAdvertising(is_enabled=True, **fields))  # type: ignore[arg-type]
    assert advertising_view(RouterAdvertising(**fields)) is None  # type: ignore[arg-type]


def test_no_interval_is_longer_than_what_can_be_told() -> None:
    shown = advertising_view(RouterAdvertising(is_enabled=True, interval_s=1 << 40))
    assert shown is not None
    assert shown.interval_s == 1800
