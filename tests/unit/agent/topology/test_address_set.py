"""Membership in an address group, case by case."""

from __future__ import annotations

from midonet.agent.topology.address_set import AddressSet, Membership
from midonet.packets.addresses import parse_ip, parse_prefix


def members(*texts: str) -> AddressSet:
    return AddressSet(map(parse_prefix, texts))


def look_up(among: AddressSet, address: str) -> Membership:
    parsed = parse_ip(address)
    return among.lookup(parsed.version, parsed.value)


def test_an_empty_group_has_no_member_which_no_bit_proves() -> None:
    assert look_up(AddressSet(), "10.0.0.1") == (False, 0)
    assert look_up(AddressSet(), "2001:db8::1") == (False, 0)


def test_a_prefix_is_proven_by_its_own_length() -> None:
    among = members("10.1.0.0/16", "10.1.2.3/32", "2001:db8::/32")
    assert look_up(among, "10.1.2.3") == (True, 16)
    assert look_up(among, "10.1.200.1") == (True, 16)
    assert look_up(among, "2001:db8:5::1") == (True, 32)


def test_a_stranger_is_proven_by_the_bits_that_tell_it_from_every_member() -> None:
    among = members("10.1.0.0/16")
    assert look_up(among, "192.0.2.1") == (False, 1)
    assert look_up(among, "10.0.0.1") == (False, 16)
    assert look_up(among, "2001:db8::1") == (False, 0)


def test_neighbours_that_touch_are_proven_together() -> None:
    among = members("10.0.0.0/25", "10.0.0.128/25")
    assert look_up(among, "10.0.0.200") == (True, 24)


def test_everything_can_be_a_member() -> None:
    assert look_up(members("0.0.0.0/0"), "10.0.0.1") == (True, 0)
    assert look_up(members("0.0.0.0/1", "128.0.0.0/1"), "10.0.0.1") == (True, 0)


def test_a_prefix_that_goes_leaves_what_lies_in_it() -> None:
    among = members(
        "10.0.0.0/8", "10.1.0.0/16", "10.2.0.5/32", *(f"172.16.{n}.0/24" for n in range(40))
    )
    after = among.updated(removed=[parse_prefix("10.0.0.0/8")])
    assert look_up(after, "10.1.9.9") == (True, 16)
    assert look_up(after, "10.2.0.5") == (True, 32)
    assert not look_up(after, "10.3.0.1").is_member
    assert look_up(among, "10.3.0.1").is_member


def test_what_is_there_already_is_no_change() -> None:
    among = members("10.0.0.0/8")
    same = among.updated(added=[parse_prefix("10.0.0.0/8")], removed=[parse_prefix("11.0.0.0/8")])
    assert among.changed_members(same) == set()
    assert same == among
