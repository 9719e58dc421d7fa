from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midonet.packets.address_kinds import AddressKind, address_kind, classified
from midonet.packets.addresses import IpVersion, parse_ip, parse_prefix

BLOCKS = {
    AddressKind.RESERVED: (
        "0.0.0.0/8", "127.0.0.0/8", "240.0.0.0/4", "::/128", "::1/128", "::ffff:0:0/96",
    ),
    AddressKind.LINK_LOCAL: ("169.254.0.0/16", "fe80::/10"),
    AddressKind.MULTICAST: ("224.0.0.0/4", "ff00::/8"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "block"), [(kind, block) for kind, blocks in BLOCKS.items() for block in blocks]
)
def test_blocks_from_end_to_end_and_not_beyond(kind: AddressKind, block: str) -> None:
    prefix = parse_prefix(block)
    bits = prefix.version.bits
    first, last = prefix.value, prefix.value | (1 << (bits - prefix.length)) - 1
    assert address_kind(prefix.version, first) is kind
    assert address_kind(prefix.version, last) is kind
    neighbours = {first - 1, last + 1}
    for address in neighbours:
        if 0 <= address < 1 << bits and block not in ("::/128", "::1/128", "240.0.0.0/4"):
            assert address_kind(prefix.version, address) is not kind


@pytest.mark.parametrize(
    "text",
    ["8.8.8.8", "10.0.0.1", "169.253.0.1", "192.0.2.1", "2001:db8::1", "fc00::1", "::2",
     "64:ff9b::808:808", "::fffe:808:808", "fec0::1"],
)  # fmt: skip
def test_other_addresses_are_hosts(text: str) -> None:
    assert address_kind(*parse_ip(text)) is AddressKind.HOST


@given(st.sampled_from(list(IpVersion)), st.data())
def test_proof_bits_decide(version: IpVersion, data: st.DataObject) -> None:
    bits = version.bits
    starts = [parse_prefix(block) for blocks in BLOCKS.values() for block in blocks]
    near = [one.value for one in starts if one.version is version]
    address = data.draw(st.integers(0, (1 << bits) - 1) | st.sampled_from(near))
    kind, proof = classified(version, address)
    free = data.draw(st.integers(0, (1 << (bits - proof)) - 1))
    other = address >> (bits - proof) << (bits - proof) | free
    assert classified(version, other).kind is kind
