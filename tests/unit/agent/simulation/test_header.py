"""The recorder of what mattered, and the rewrite that comes out of it."""

from __future__ import annotations

import pytest

from midonet.agent.flows.program import NO_REWRITE, Rewrite
from midonet.agent.simulation.header import (
    ETH_DST,
    IP_DST,
    IP_PROTO,
    VLAN_TCI,
    Header,
)
from midonet.errors import InternalError
from midonet.packets.addresses import parse_ip
from midonet.packets.flowkey import VLAN_PRESENT
from midonet.packets.frame import parse_frame
from tests.unit.agent.simulation.frames import udp


def header(frame: bytes | None = None) -> Header:
    return Header.from_key(parse_frame(frame or udp()).key)


def test_reading_records_and_a_rewritten_field_does_not() -> None:
    seen = header()
    seen.write(ETH_DST, 5)
    assert seen.read(ETH_DST) == 5
    assert seen.mask[ETH_DST] == 0
    assert seen.read(IP_PROTO) == 17
    assert seen.mask[IP_PROTO] == 0xFF


def test_prefix_proofs_are_as_short_as_possible() -> None:
    address = parse_ip("10.0.0.0").value
    matched = header()
    assert matched.within(IP_DST, address, 8, 32)
    assert matched.mask[IP_DST] == 0xFF000000
    failed = header()  # to 10.0.2.5: the seventh bit of the third octet differs
    assert not failed.within(IP_DST, address, 24, 32)
    assert failed.mask[IP_DST] == 0xFFFFFE00


def test_copies_share_the_mask_but_not_the_values() -> None:
    first = header()
    second = first.copy()
    second.write(ETH_DST, 9)
    second.read(IP_PROTO)
    assert first.values[ETH_DST] != 9
    assert first.mask[IP_PROTO] == 0xFF


def test_untouched_header_has_no_rewrite() -> None:
    assert header().rewrite() == NO_REWRITE


def test_tags_are_a_stack() -> None:
    frame = header(udp(vlan=5))
    frame.push_vlan(9)
    assert frame.vlan_id() == 9
    assert frame.mask[VLAN_TCI] == 0  # a tag of ours says nothing about the packet's
    assert frame.tag_count() == 2
    assert frame.mask[VLAN_TCI] == VLAN_PRESENT  # how many there are says whether it has one
    assert frame.rewrite() == Rewrite(push_vlan=9)
    branch = frame.copy()
    frame.pop_vlan()
    assert frame.rewrite() == NO_REWRITE
    assert (frame.vlan_id(), frame.tag_count()) == (5, 1)
    assert frame.mask[VLAN_TCI] == 0x1FFF
    frame.pop_vlan()
    frame.push_vlan(7)
    assert frame.rewrite() == Rewrite(pop_vlan=True, push_vlan=7)
    assert branch.vlan_id() == 9
    branch.push_vlan(8)
    assert branch.tag_count() == 3
    with pytest.raises(InternalError):
        branch.rewrite()
    branch.pop_vlan()
    assert branch.rewrite() == Rewrite(push_vlan=9)


def test_vlan_rewrites() -> None:
    tagged = header(udp(vlan=5))
    assert tagged.vlan_id() == 5
    tagged.pop_vlan()
    assert tagged.rewrite() == Rewrite(pop_vlan=True)
    tagged.push_vlan(9)
    assert tagged.rewrite() == Rewrite(pop_vlan=True, push_vlan=9)
    untagged = header()
    untagged.push_vlan(7)
    assert untagged.rewrite() == Rewrite(push_vlan=7)
    untagged.pop_vlan()
    assert untagged.rewrite() == Rewrite()
    assert untagged.values[VLAN_TCI] == 0
