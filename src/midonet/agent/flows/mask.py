"""Flow masks: which bits of a flow key mattered.

A mask has the shape of `FlowKey`, with one bits where the bit mattered. Any mask that is a
superset of the recorded one is sound; wider only means narrower classes. Quantising to few
shapes (`quantise`) keeps the number of distinct masks, hence of kernel lookups, small.
"""

from __future__ import annotations

from midonet.packets.flowkey import FlowKey

FlowMask = FlowKey
"""One bits where a field matters; same fields and order as the key."""

EMPTY_MASK = FlowMask(0, 0)
"""The mask that matches everything."""
