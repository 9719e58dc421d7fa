"""How keys meet masks: the arithmetic of classification, alike in every datapath.

A packet with key `k` belongs to a class (mask `m`, key `c`) when `masked(k, m) == c`.
"""

from __future__ import annotations

from operator import and_

from midonet.agent.flows.mask import FlowMask
from midonet.packets.flowkey import FlowKey

EXACT_MASK = FlowMask(
    eth_dst=(1 << 48) - 1,
    eth_src=(1 << 48) - 1,
    eth_type=0xFFFF,
    vlan_tci=0xFFFF,
    ip_proto=0xFF,
    ip_tos=0xFF,
    ip_frag=0xFF,
    ip_src=(1 << 128) - 1,
    ip_dst=(1 << 128) - 1,
    l4_src=0xFFFF,
    l4_dst=0xFFFF,
    flow_hash=0xFFFF_FFFF,
)
"""The mask in which every bit of every field matters."""


def masked(key: FlowKey, mask: FlowMask) -> FlowKey:
    """Return the bits of `key` that `mask` selects."""
    return FlowKey._make(map(and_, key, mask))


def covers(mask: FlowMask, other: FlowMask) -> bool:
    """Tell whether `mask` is a superset of `other`: every bit of `other` is in `mask`."""
    return all(theirs & ~ours == 0 for ours, theirs in zip(mask, other, strict=True))


def bit_count(mask: FlowMask) -> int:
    """Return the number of bits that matter."""
    return sum(map(int.bit_count, mask))
