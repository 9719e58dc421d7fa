"""How long soaks are, from what seed, and what a packet's failure looks like.

MIDONET_SOAK multiplies the frames of each soak; MIDONET_SOAK_SEED begins at another seed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from midonet.agent.flows.drop_reason import DropReason

FACTOR = int(os.environ.get("MIDONET_SOAK", "1"))
SEED = int(os.environ.get("MIDONET_SOAK_SEED", "1"))

FAILURES = frozenset(
    (
        DropReason.INTERNAL,
        DropReason.UNSETTLED,
        DropReason.PACKET_CUT,
        DropReason.NOT_REINJECTED,
        DropReason.OUTPUT_GONE,
        DropReason.INJECTION_FAILED,
        DropReason.REWRITE_FAILED,
        DropReason.ENCAP_FAILED,
    )
)
"""Reasons that say that we failed, not that the packet was refused: none may be counted."""


@contextmanager
def named(seed: int, place: str, frame: bytes) -> Iterator[None]:
    """Say which packet it was that broke something, and from which seed it came."""
    try:
        yield
    except Exception as error:
        message = f"MIDONET_SOAK_SEED={seed}: {place}: {frame.hex()}: {error!r}"
        raise AssertionError(message) from error
