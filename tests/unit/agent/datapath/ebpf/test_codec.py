"""Values of the contract survive the way through the kernel's structures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from midonet.agent.datapath.ebpf import abi, codec
from midonet.agent.flows.classification import EXACT_MASK
from midonet.agent.flows.program import NO_REWRITE, Guards, Rewrite
from midonet.packets.addresses import parse_ip
from midonet.packets.flowkey import FlowKey

bytes8 = st.integers(0, 0xFF)
words = st.integers(0, 0xFFFF)
macs = st.integers(0, (1 << 48) - 1)


def addresses(*, is_ipv6: bool) -> st.SearchStrategy[int]:
    return st.integers(0, (1 << (128 if is_ipv6 else 32)) - 1)


@st.composite
def keys(draw: st.DrawFn) -> FlowKey:
    is_ipv6 = draw(st.booleans())
    eth_type = 0x86DD if is_ipv6 else draw(st.sampled_from((0x0800, 0x0806, 0x9000)))
    address = addresses(is_ipv6=is_ipv6)
    return FlowKey(
        draw(macs), draw(macs), eth_type, draw(words), draw(bytes8), draw(bytes8), draw(bytes8),
        draw(address), draw(address), draw(words), draw(words), draw(st.integers(0, 0xFFFF_FFFF)),
    )  # fmt: skip


@given(key=keys(), slot=st.integers(0, 0xFFFF_FFFF), mask_id=st.integers(0, 31))
def test_keys_are_read_back_as_written(key: FlowKey, slot: int, mask_id: int) -> None:
    packed = codec.pack_key(slot, mask_id, key)
    assert len(packed) == abi.CLASS_KEY.size
    assert codec.unpack_key(packed) == key
    assert codec.key_place(packed) == (slot, mask_id)


@given(
    key=keys(),
    mask=st.builds(FlowKey, *[st.integers(0, EXACT_MASK[i]) for i in range(len(EXACT_MASK))]),
)
def test_masking_bytes_is_masking_numbers(key: FlowKey, mask: FlowKey) -> None:
    """The kernel ANDs bytes, in the form for the packet's version; Python ANDs numbers."""
    other, ipv6 = codec.pack_masks(mask)
    is_ipv6 = key.eth_type == 0x86DD
    form = ipv6 if is_ipv6 else other
    masked = bytes(a & b for a, b in zip(codec.pack_key(0, 0, key), form, strict=True))
    expected = FlowKey._make(a & b for a, b in zip(key, mask, strict=True))
    assert masked == codec.pack_key(0, 0, expected, is_ipv6=is_ipv6)
    assert codec.unpack_mask(ipv6) == mask


@given(data=st.data(), is_ipv6=st.booleans())
def test_rewrites_are_read_back_as_written(data: st.DataObject, is_ipv6: bool) -> None:
    def maybe(values: st.SearchStrategy[int]) -> int | None:
        return data.draw(st.none() | values)

    address = addresses(is_ipv6=is_ipv6)
    rewrite = Rewrite(
        maybe(macs), maybe(macs), data.draw(st.booleans()), maybe(words), maybe(address),
        maybe(address), maybe(bytes8), maybe(words), maybe(words), data.draw(bytes8),
    )  # fmt: skip
    packed = codec.pack_rewrite(rewrite, is_ipv6=is_ipv6)
    assert len(packed) == abi.REWRITE.size
    assert codec.unpack_rewrite(packed, is_ipv6=is_ipv6) == rewrite


def test_no_rewrite_is_all_zero() -> None:
    assert codec.pack_rewrite(NO_REWRITE, is_ipv6=False) == bytes(abi.REWRITE.size)


@given(ttl=bytes8, limit=st.none() | st.integers(1, 0xFFFF), flags=bytes8)
def test_guards_are_read_back_as_written(ttl: int, limit: int | None, flags: int) -> None:
    guards = Guards(ttl, limit, flags)
    assert codec.unpack_guards(codec.pack_guards(guards)) == guards


def test_an_ipv4_address_is_in_front() -> None:
    assert codec.pack_ip(parse_ip("192.0.2.1")) == bytes((192, 0, 2, 1)) + bytes(12)
    assert codec.unpack_ip(codec.pack_ip(parse_ip("2001:db8::1")), 6) == parse_ip("2001:db8::1")
