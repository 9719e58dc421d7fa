"""Membership in an address group against a naive reference, and how short its proofs are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from midonet.agent.topology.address_set import AddressSet
from midonet.packets.addresses import IpAddress, IpPrefix, IpVersion
from tests.property.topology.test_fib_properties import addresses, prefixes

VERSIONS = st.sampled_from(list(IpVersion))


@st.composite
def looked_up(draw: st.DrawFn) -> tuple[list[IpPrefix], IpVersion, int]:
    version = draw(VERSIONS)
    members = draw(st.lists(VERSIONS.flatmap(prefixes), max_size=12))
    return members, version, draw(addresses(version))


def is_member(members: list[IpPrefix], version: IpVersion, address: int) -> bool:
    return any(one.contains(IpAddress(version, address)) for one in members)


def has_one_answer(members: list[IpPrefix], version: IpVersion, address: int, length: int) -> bool:
    """Tell whether all addresses that share `length` bits with this one have its answer."""
    shift = version.bits - length
    first = address >> shift << shift
    last = first + (1 << shift) - 1
    # The answer changes only where a member begins or ends.
    edges = {first, last}
    for one in members:
        if one.version is version:
            behind = one.network + (1 << version.bits - one.length)
            edges |= {one.network, one.network - 1, behind, behind - 1}
    answers = {is_member(members, version, edge) for edge in edges if first <= edge <= last}
    return len(answers) == 1


@given(looked_up())
def test_a_member_is_what_lies_in_any_of_the_prefixes(
    example: tuple[list[IpPrefix], IpVersion, int],
) -> None:
    members, version, address = example
    found = AddressSet(members).lookup(version, address)
    assert found.is_member == is_member(members, version, address)


@given(looked_up())
def test_the_proof_is_the_shortest_prefix_with_one_answer(
    example: tuple[list[IpPrefix], IpVersion, int],
) -> None:
    members, version, address = example
    proof = AddressSet(members).lookup(version, address).proof
    assert has_one_answer(members, version, address, proof)
    assert proof == 0 or not has_one_answer(members, version, address, proof - 1)


@given(st.lists(VERSIONS.flatmap(prefixes), max_size=60), st.data())
def test_edits_lead_to_the_set_made_at_once(members: list[IpPrefix], data: st.DataObject) -> None:
    edited = AddressSet(members)
    present = set(edited)
    for _ in range(6):
        before = edited
        gone = set(
            data.draw(st.lists(st.sampled_from(sorted(present)), max_size=3)) if present else ()
        )
        new = set(data.draw(st.lists(VERSIONS.flatmap(prefixes), max_size=3))) - gone
        edited = edited.updated(removed=gone, added=new)
        assert before.changed_members(edited) == present ^ ((present - gone) | new)
        present = (present - gone) | new
        assert set(edited) == present
        assert before == AddressSet(before)
    anew = AddressSet(present)
    assert edited == anew
    assert edited.changed_members(anew) == set()
    for version in IpVersion:
        for _ in range(5):
            address = data.draw(addresses(version))
            assert edited.lookup(version, address) == anew.lookup(version, address)
