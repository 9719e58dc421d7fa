"""How keys meet masks: the arithmetic of classification, alike in every datapath.

A packet with key `k` belongs to a class (mask `m`, key `c`) when `masked(k, m) == c`.
"""

from __future__ import annotations

from operator import and_

from midonet.agent.flows.mask import FlowMask
from midonet.agent.flows.program import Guards
from midonet.packets.flowkey import FlowKey
from midonet.packets.frame import ParsedFrame

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


def meets_guards(guards: Guards, packet: ParsedFrame) -> bool:
    """Tell whether a packet of a program's class passes its guards. Frames other than IP do."""
    if packet.ip_version is None:
        return True
    limit = guards.max_length
    return (
        packet.ttl > guards.ttl_above
        and (limit is None or packet.ip_length <= limit)
        and not packet.tcp_flags & guards.tcp_flags_clear
    )
