"""Bounds of what ports teach: nobody but who teaches without end loses anything."""

from __future__ import annotations

from uuid import UUID

import pytest

from midonet.agent.flows.tags import mac_tag
from midonet.agent.soft_state.holdings import Bound, HoldingLimits, Holdings
from midonet.agent.soft_state.lessons import LearnNeighbour
from midonet.agent.soft_state.outbox import Outbox
from midonet.agent.soft_state.reading import Neighbour, NeighbourState
from midonet.agent.soft_state.replica import SoftStateReplica
from midonet.model.ids import BridgeId, HostId, PortId, RouterId
from midonet.nsdb.memory import MemoryStore
from midonet.packets.addresses import IpAddress, IpVersion, parse_ip
from midonet.packets.build import Envelope, udp_frame
from midonet.runtime.clock import ManualClock
from tests.unit.agent.decisions.test_decisions import BRIDGE, HERE, MAC_1, MAC_2, THERE, Shell
from tests.unit.agent.decisions.test_decisions import frame as frame_of

ME = HostId(UUID(int=1))
ROUTER = RouterId(UUID(int=9))
LIMITS = HoldingLimits(port=3, device=5, host=7)


def place(port: int, device: int) -> tuple[PortId, BridgeId]:
    return PortId(UUID(int=port)), BridgeId(UUID(int=100 + device))


def test_port_at_its_bound_loses_its_own_least_recently_used() -> None:
    holdings: Holdings[str] = Holdings(LIMITS)
    holdings.hold("other", place(2, 1), 0.0)
    for number in range(3):
        assert holdings.hold(f"mine{number}", place(1, 1), 1.0 + number) == []
    holdings.use("mine0", 10.0)
    assert holdings.hold("mine3", place(1, 1), 11.0) == ["mine1"]
    assert "other" in holdings
    assert holdings.evictions == {Bound.PORT: 1}
    assert len(holdings) == 4


def test_bound_of_a_port_counts_all_its_devices() -> None:
    holdings: Holdings[str] = Holdings(LIMITS)
    for number in range(4):
        evicted = holdings.hold(f"mine{number}", place(1, number), float(number))
    assert evicted == ["mine0"]


def test_device_at_its_bound_takes_from_who_holds_most() -> None:
    holdings: Holdings[str] = Holdings(LIMITS)
    holdings.hold("small", place(2, 1), 0.0)
    for number in range(3):
        holdings.hold(f"big{number}", place(1, 1), 1.0)
    holdings.hold("third", place(3, 1), 2.0)
    assert holdings.hold("more", place(2, 1), 3.0) == ["big0"]
    assert holdings.evictions == {Bound.DEVICE: 1}


def test_host_at_its_bound_takes_from_who_holds_most() -> None:
    holdings: Holdings[str] = Holdings(LIMITS)
    for port in range(1, 4):
        for number in range(2):
            holdings.hold(f"{port}.{number}", place(port, port), float(port))
    holdings.hold("7", place(1, 1), 9.0)
    assert holdings.hold("8", place(4, 4), 10.0) == ["1.0"]
    assert holdings.evictions == {Bound.HOST: 1}


def test_what_is_discarded_makes_room() -> None:
    holdings: Holdings[str] = Holdings(LIMITS)
    for number in range(3):
        holdings.hold(f"mine{number}", place(1, 1), 0.0)
    holdings.discard("mine1")
    holdings.discard("mine1")
    assert holdings.hold("mine3", place(1, 1), 1.0) == []
    assert sorted(holdings.of_port(place(1, 1)[0])) == ["mine0", "mine2", "mine3"]
    assert holdings.idle(lambda _: 0.0) == ["mine0", "mine2"]


async def test_port_that_floods_with_source_macs_fills_neither_table_nor_store() -> None:
    limit = 50
    shell = await Shell(mac_limits=HoldingLimits(port=limit)).open()
    shell.show_bridge()
    await shell.send(frame_of(), port_id=THERE)  # teaches MAC_1 behind THERE
    for number in range(3 * limit):
        envelope = Envelope(0x020000100000 + number, MAC_2, parse_ip("10.0.0.1"), _TO)
        shell.clock.advance(0.001)  # else the port's budget of upcalls ends first
        await shell.send(udp_frame(envelope, 1, 2))
    learning = shell.decisions.learning
    assert len(learning) == limit + 1
    assert learning.holdings.evictions[Bound.PORT] == 2 * limit
    soft_state = shell.decisions.soft_state
    assert soft_state.mac_port(BRIDGE, 0, MAC_1) == THERE
    assert soft_state.mac_port(BRIDGE, 0, 0x020000100000 + 3 * limit - 1) == HERE
    assert soft_state.mac_port(BRIDGE, 0, 0x020000100000) is None
    # Programs of what gave way are gone, so that traffic of it comes up and teaches again.
    gone = mac_tag(BRIDGE, 0, 0x020000100000)
    assert not any(gone in entry.program.tags for entry in shell.datapath.installed())


_TO = parse_ip("10.0.0.2")


def address(number: int) -> IpAddress:
    return IpAddress(IpVersion.V4, 0x0A000000 + number)


async def test_neighbours_that_one_port_teaches_are_bounded() -> None:
    clock = ManualClock()
    outbox = Outbox(MemoryStore(), clock, lambda _: None)
    limits = HoldingLimits(port=10, device=100, host=100)
    replica = SoftStateReplica(ME, clock, outbox.put, withdraw=outbox.withdraw, limits=limits)
    replica.learn_neighbour(LearnNeighbour(ROUTER, address(9999), MAC_2), THERE)
    for number in range(500):
        replica.learn_neighbour(LearnNeighbour(ROUTER, address(number), MAC_1), HERE)
    known = [one for one in range(500) if replica.neighbour(ROUTER, address(one)) == _KNOWN]
    assert known == list(range(490, 500))
    assert replica.neighbour(ROUTER, address(9999)) == Neighbour(MAC_2)
    assert replica.neighbour(ROUTER, address(0)) is NeighbourState.UNKNOWN
    # What came and went before the store could have it leaves no write behind.
    assert len(outbox) == 11
    assert outbox.counters.withdrawn == 490


_KNOWN = Neighbour(MAC_1)


@pytest.mark.parametrize("devices", [1, 4])
def test_bounds_hold_whatever_is_done(devices: int) -> None:
    holdings: Holdings[int] = Holdings(LIMITS)
    for number in range(2000):
        key = (number * 7919) % 61
        if number % 5 == 4:
            holdings.discard(key)
        else:
            holdings.hold(key, place(number % 3, number % devices), float(number))
        by_port = [len(holdings.of_port(place(port, 0)[0])) for port in range(3)]
        by_device = [len(holdings.of_device(place(0, one)[1])) for one in range(devices)]
        assert max(by_port) <= LIMITS.port
        assert max(by_device) <= LIMITS.device
        assert len(holdings) == sum(by_port) == sum(by_device) <= LIMITS.host
