"""What REST takes as a host's address is what forwarding takes as one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midonet.model.address_rules import (
    unusable_gateway,
    unusable_host,
    unusable_in_subnet,
    unusable_interface,
    unusable_underlay,
)
from midonet.packets.address_kinds import AddressKind, address_kind
from midonet.packets.addresses import IpAddress, IpVersion, parse_ip, parse_prefix

ADDRESSES = st.one_of(
    st.integers(0, 2**32 - 1).map(lambda value: IpAddress(IpVersion.V4, value)),
    st.integers(0, 2**128 - 1).map(lambda value: IpAddress(IpVersion.V6, value)),
    st.integers(0, 2**48).map(lambda value: IpAddress(IpVersion.V6, value)),
    st.sampled_from(["0.0.0.0", "127.0.0.1", "::", "::1", "ff02::1", "fe80::1"]).map(parse_ip),
)


@given(ADDRESSES)
def test_usable_is_what_is_routed(address: IpAddress) -> None:
    kind = address_kind(address.version, address.value)
    is_host = kind in (AddressKind.HOST, AddressKind.LINK_LOCAL)
    assert (unusable_host(address) is None) is is_host


@pytest.mark.parametrize("text", ["127.0.1.1", "::1", "192.0.2.1", "169.254.1.1", "2001:db8::1"])
def test_hosts_of_one_machine_may_meet_on_its_loopback(text: str) -> None:
    assert unusable_underlay(parse_ip(text)) is None


@pytest.mark.parametrize(
    "text", ["fe80::1", "::", "0.0.0.0", "224.0.0.1", "::ffff:10.0.0.1", "255.255.255.255"]
)
def test_underlay_is_reached_from_other_hosts(text: str) -> None:
    assert unusable_underlay(parse_ip(text)) is not None


@pytest.mark.parametrize(
    ("text", "is_usable"),
    [
        ("10.0.0.1/24", True),
        ("10.0.0.0/24", False),
        ("10.0.0.255/24", False),
        ("10.0.0.0/31", True),
        ("10.0.0.1/31", True),
        ("10.0.0.0/32", True),
        ("2001:db8::/64", True),
        ("fe80::1/64", True),
    ],
)
def test_ends_of_a_subnet_are_no_hosts(text: str, is_usable: bool) -> None:
    assert (unusable_in_subnet(parse_prefix(text)) is None) is is_usable
    assert (unusable_interface(parse_prefix(text)) is None) is is_usable


def test_interface_has_a_subnet() -> None:
    assert unusable_interface(parse_prefix("10.0.0.1/0")) is not None
    assert unusable_interface(parse_prefix("127.0.0.1/8")) is not None


@pytest.mark.parametrize(
    ("gateway", "is_usable"),
    [
        ("10.0.0.1", False),
        ("10.0.0.0", False),
        ("10.0.0.255", False),
        ("10.0.0.9", True),
        ("192.0.2.1", True),
        ("fe80::1", True),
    ],
)
def test_gateway_is_another_host(gateway: str, is_usable: bool) -> None:
    own = [parse_prefix("10.0.0.1/24"), parse_prefix("2001:db8::1/64")]
    assert (unusable_gateway(parse_ip(gateway), own) is None) is is_usable
