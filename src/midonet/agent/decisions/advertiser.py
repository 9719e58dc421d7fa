"""When router ports advertise unasked (RFC 4861 section 6.2.4).

Every host tells the machines at its own ports, so nothing crosses the underlay and nobody is told
twice. A port that begins to advertise, or says something new, does so three times within 16 s each,
then at random times; one that ends says once that it is no router any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random

from midonet.agent.simulation.result import GeneratedPacket
from midonet.agent.simulation.router_advertising import unsolicited_frame
from midonet.agent.topology.view import AdvertisingView, PortView, TopologyView
from midonet.model.ids import PortId
from midonet.runtime.clock import Clock

INITIAL_COUNT = 3
INITIAL_INTERVAL_S = 16.0
"""Of a port that begins (RFC 4861 section 10)."""

MOST_AT_A_TIME = 16
"""Ports that advertise in one turn; the others do in the next ones."""

_LEAST_PART = 0.33
_LEAST_INTERVAL_S = 9


@dataclass(slots=True)
class _Schedule:
    """When a port advertises next, what it said last, and how often it has."""

    advertising: AdvertisingView
    frame: bytes
    next_s: float
    sent: int = 0


class Advertiser:
    """The router ports of a view that advertise."""

    def __init__(self, clock: Clock, random: Random | None = None) -> None:
        """`random` spreads the times of ports, so that they do not speak all at once."""
        self._clock = clock
        self._random = random or Random()
        self._ports: Mapping[PortId, PortView] = {}
        self._overlay_mtu_bytes = 0
        self._schedules: dict[PortId, _Schedule] = {}
        self._ended: list[GeneratedPacket] = []

    def follow(self, view: TopologyView) -> None:
        """Take note of the ports of a view; costs nothing while they are the same."""
        is_same = view.ports is self._ports and view.overlay_mtu_bytes == self._overlay_mtu_bytes
        if is_same:
            return
        self._ports, self._overlay_mtu_bytes = view.ports, view.overlay_mtu_bytes
        present = {port.id: port for port in view.ports.values() if _advertises(view, port)}
        for port_id in self._schedules.keys() - present.keys():
            self._end(view, port_id, self._schedules.pop(port_id))
        for port_id, port in present.items():
            assert port.advertising is not None
            frame = unsolicited_frame(view, port, port.advertising)
            known = self._schedules.get(port_id)
            if known is None or known.frame != frame:
                now_s = self._clock.now_s()
                self._schedules[port_id] = _Schedule(port.advertising, frame, now_s)

    def due(self) -> Iterable[GeneratedPacket]:
        """Return what is to be said now."""
        ended, self._ended = self._ended, []
        yield from ended
        now_s = self._clock.now_s()
        due = [one for one in self._schedules.items() if one[1].next_s <= now_s]
        for port_id, schedule in due[:MOST_AT_A_TIME]:
            schedule.sent += 1
            schedule.next_s = now_s + self._pause_s(schedule)
            yield GeneratedPacket(port_id, schedule.frame, is_local=True)

    def _pause_s(self, schedule: _Schedule) -> float:
        longest_s = float(schedule.advertising.interval_s)
        shortest_s = longest_s
        if longest_s >= _LEAST_INTERVAL_S:
            shortest_s = longest_s * _LEAST_PART
        pause_s = self._random.uniform(shortest_s, longest_s)
        return min(pause_s, INITIAL_INTERVAL_S) if schedule.sent < INITIAL_COUNT else pause_s

    def _end(self, view: TopologyView, port_id: PortId, schedule: _Schedule) -> None:
        port = view.ports.get(port_id)
        if port is not None and len(self._ended) < MOST_AT_A_TIME:
            frame = unsolicited_frame(view, port, schedule.advertising, is_last=True)
            self._ended.append(GeneratedPacket(port_id, frame, is_local=True))


def _advertises(view: TopologyView, port: PortView) -> bool:
    """Tell whether a port advertises to machines that may be at this host."""
    if port.advertising is None or port.router_id is None or not port.admin_state_up:
        return False
    router = view.routers.get(port.router_id)
    if router is None or not router.admin_state_up:
        return False
    return port.peer_port_id is not None or port.host_id == view.host_id
