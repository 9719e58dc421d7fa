"""Flow masks: which bits of a flow key mattered.

A mask has the shape of `FlowKey`, with one bits where the bit mattered. Any mask that is a
superset of the recorded one is sound; wider only means narrower classes. Quantising to few
shapes (`quantise`) keeps the number of distinct masks, hence of kernel lookups, small.

Address masks are prefixes of the address in its own width: 32 bits for IPv4 (and ARP), 128 for
IPv6. An IPv6 mask that is not zero has its top bit set, so the two never mix.
"""

from __future__ import annotations

from midonet.packets.flowkey import VLAN_PRESENT, FlowKey

FlowMask = FlowKey
"""One bits where a field matters; same fields and order as the key."""

EMPTY_MASK = FlowMask(0, 0)
"""The mask that matches everything."""

MAC_BITS = (1 << 48) - 1
VLAN_ID_BITS = VLAN_PRESENT | 0xFFF
"""Mask of the presence of a tag and its VLAN id, without the priority."""

IPV4_STEPS = (0, 8, 16, 24, 32)
"""Prefix lengths that IPv4 address masks are widened to, in bits."""

IPV6_STEPS = (0, 32, 48, 56, 64, 96, 128)
"""Prefix lengths that IPv6 address masks are widened to, in bits."""


def _steps(lengths: tuple[int, ...], bits: int) -> dict[int, int]:
    """Map each prefix mask of a `bits` wide address to the mask of the next step."""

    def prefix(length: int) -> int:
        return ((1 << length) - 1) << (bits - length)

    return {
        prefix(length): prefix(min(step for step in lengths if step >= length))
        for length in range(bits + 1)
    }


_ADDRESS_STEPS = _steps(IPV6_STEPS, 128) | _steps(IPV4_STEPS, 32)
_IPV4_BITS = (1 << 32) - 1
_IPV6_BITS = (1 << 128) - 1


def quantise_address(mask: int) -> int:
    """Widen an address mask to the next step. What is not a prefix becomes the whole address."""
    step = _ADDRESS_STEPS.get(mask)
    if step is not None:
        return step
    return _IPV4_BITS if mask <= _IPV4_BITS else _IPV6_BITS


def quantise_port(mask: int) -> int:
    """Widen a transport port mask to 0, 8 or 16 leading bits."""
    if mask & 0xFF:
        return 0xFFFF
    return 0xFF00 if mask else 0


def quantise(mask: FlowMask) -> FlowMask:
    """Return the closest superset of `mask` among the few shapes that datapaths hold.

    MACs, types, protocol, TOS and fragment position are all or nothing; a VLAN is nothing, its
    presence and id, or the whole tag; addresses and ports go by steps; hash bits stay as they are.
    """
    vlan = mask.vlan_tci
    if vlan:
        vlan = 0xFFFF if vlan & ~VLAN_ID_BITS else VLAN_ID_BITS
    return FlowMask(
        MAC_BITS if mask.eth_dst else 0,
        MAC_BITS if mask.eth_src else 0,
        0xFFFF if mask.eth_type else 0,
        vlan,
        0xFF if mask.ip_proto else 0,
        0xFF if mask.ip_tos else 0,
        0xFF if mask.ip_frag else 0,
        quantise_address(mask.ip_src),
        quantise_address(mask.ip_dst),
        quantise_port(mask.l4_src),
        quantise_port(mask.l4_dst),
        mask.flow_hash,
    )
