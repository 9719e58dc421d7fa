"""The facts of a program in 40 bytes, for an agent that comes up and finds it installed.

A Bloom filter: what a program depends on is always in it, and now and then something else is, which
only costs a decision. It is kept in the kernel's tables beside the program, so it is there after
`kill -9` too. A region of addresses is in it as the configuration of its router or
group.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b

from midonet.agent.flows.tag_index import Dependent
from midonet.agent.flows.tags import FlowTag, device_tag

FILTER_BYTES = 40
"""Size of a filter. With 16 facts, as most programs have, 3 in 1,000 others seem among them."""

_BITS = FILTER_BYTES * 8
_BITS_PER_TAG = 3

FactFilter = int
"""320 bits. 0 holds nothing."""


@lru_cache(maxsize=16384)
def tag_bits(tag: FlowTag) -> FactFilter:
    """Return the bits of one fact, the same in every process."""
    text = f"{int(tag.kind)} {tag.owner.int:x} {tag.element!r}"
    digest = blake2b(text.encode(), digest_size=2 * _BITS_PER_TAG).digest()
    bits = 0
    for start in range(0, len(digest), 2):
        bits |= 1 << int.from_bytes(digest[start : start + 2], "big") % _BITS
    return bits


def filter_of(facts: Dependent) -> FactFilter:
    """Return the filter of what a program depends on."""
    bits = 0
    for tag in facts.tags:
        bits |= tag_bits(tag)
    for region in facts.regions:
        bits |= tag_bits(device_tag(region.owner_id))
    return bits


def holds_any(facts: FactFilter, tags: Iterable[FlowTag]) -> bool:
    """Tell whether any of these facts is in a filter, or seems to be."""
    return any(facts & bits == bits for bits in map(tag_bits, tags))
