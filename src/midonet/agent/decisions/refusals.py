"""How many refusals are told in a second (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f).

ICMP errors and TCP resets are answers that a sender gets for the asking, twice the work of the
packet that they are about. Each port has a budget of them; what goes beyond is dropped by name,
and the packet that was refused stays refused. Other answers (ARP, echo replies) are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.simulation.result import GeneratedPacket
from midonet.model.ids import PortId
from midonet.runtime.clock import Clock
from midonet.runtime.token_bucket import TokenBucket

REFUSALS_PER_S = 500
"""Refusals a second that the packets of one port may lead to."""

REFUSALS_BURST = 500
"""Refusals at once."""


class RefusalBudgets:
    """Budgets of ports, made at the first refusal of each."""

    def __init__(self, clock: Clock, count_drop: Callable[[PortId, DropReason], None]) -> None:
        self._clock = clock
        self._count_drop = count_drop
        self._buckets: dict[PortId, TokenBucket] = {}

    def admitted(
        self, packets: Iterable[GeneratedPacket], port_id: PortId
    ) -> list[GeneratedPacket]:
        """Return what of the answers to a packet of a port may be sent."""
        return [one for one in packets if not one.is_refusal or self._take(port_id)]

    def forget_port(self, port_id: PortId) -> None:
        """Drop the budget of a port that was detached."""
        self._buckets.pop(port_id, None)

    def _take(self, port_id: PortId) -> bool:
        now_ns = int(self._clock.now_s() * 1e9)
        bucket = self._buckets.get(port_id)
        if bucket is None:
            bucket = self._buckets[port_id] = TokenBucket(REFUSALS_PER_S, REFUSALS_BURST, now_ns)
        is_admitted = bucket.take(now_ns)
        if not is_admitted:
            self._count_drop(port_id, DropReason.REFUSAL_RATE)
        return is_admitted
