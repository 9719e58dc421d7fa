from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from midonet.agent.decisions.fair_queue import FairQueue
from midonet.agent.decisions.neighbours import (
    GIVE_UP_S,
    MAX_QUESTIONS,
    REFRESH_INTERVAL_S,
    NeighbourBroker,
)
from midonet.agent.decisions.parking import AWAIT_LIMIT_S, Parking
from midonet.agent.simulation.result import LoadDevices, ResolveNeighbour
from midonet.model.ids import PortId, RouterId
from midonet.packets.addresses import IpAddress, IpVersion, parse_ip
from midonet.runtime.clock import ManualClock

PORT_A, PORT_B = PortId(UUID(int=1)), PortId(UUID(int=2))
WANT = ResolveNeighbour(RouterId(UUID(int=3)), PORT_A, parse_ip("10.0.0.7"))
LOAD = LoadDevices((UUID(int=9),))


def unknown(what: ResolveNeighbour) -> bool:
    return False


def test_one_ports_flood_delays_another_by_one_packet_only() -> None:
    queue: FairQueue[str] = FairQueue(port_limit=100, total_limit=150)
    assert all(queue.put(PORT_A, f"a{i}") for i in range(100))
    assert not queue.put(PORT_A, "one too many")
    assert queue.put(PORT_B, "b0")
    assert [queue.take(), queue.take(), queue.take()] == ["a0", "b0", "a1"]
    assert queue.drop_port(PORT_A) == 98
    assert queue.take() is None
    assert len(queue) == 0


def test_queue_is_bounded_in_total() -> None:
    queue: FairQueue[int] = FairQueue(port_limit=10, total_limit=2)
    assert queue.put(PORT_A, 1)
    assert queue.put(PORT_B, 2)
    assert not queue.put(PORT_B, 3)


def test_parked_packets_go_on_when_the_awaited_thing_comes() -> None:
    parking: Parking[str] = Parking(ManualClock(), port_limit=2, total_limit=3)
    assert parking.park(PORT_A, "first", WANT)
    assert parking.park(PORT_A, "second", LOAD)
    assert not parking.park(PORT_A, "over the port's limit", WANT)
    assert parking.park(PORT_B, "third", WANT)
    assert not parking.park(PORT_B, "over the limit", WANT)
    released = parking.release(lambda what: what == WANT)
    assert [parked.item for parked in released] == ["first", "third"]
    assert len(parking) == 1
    assert parking.awaited() == [LOAD]


def test_parked_packets_wait_no_longer_than_the_limit() -> None:
    clock = ManualClock()
    parking: Parking[str] = Parking(clock)
    parking.park(PORT_A, "early", WANT)
    clock.advance(AWAIT_LIMIT_S / 2)
    parking.park(PORT_A, "late", WANT)
    clock.advance(AWAIT_LIMIT_S / 2)
    assert [parked.item for parked in parking.expire()] == ["early"]
    assert [parked.item for parked in parking.release(lambda _: True)] == ["late"]


def test_unknown_address_is_asked_for_quickly_and_given_up() -> None:
    clock = ManualClock()
    asked: list[float] = []
    broker = NeighbourBroker(clock, lambda _: asked.append(clock.now_s() - 1000.0), unknown)
    assert broker.resolve(WANT)
    assert broker.resolve(WANT)  # one question, however many wait
    given_up = []
    while not given_up:
        clock.advance(0.1)
        given_up = broker.tick()
    assert given_up == [(WANT.router_id, WANT.address)]
    assert [round(at, 1) for at in asked] == [0.0, 0.3, 1.0, 2.0]
    assert round(clock.now_s() - 1000.0, 1) == GIVE_UP_S
    assert len(broker) == 0


def test_questions_at_a_time_are_bounded() -> None:
    clock = ManualClock()
    asked: list[ResolveNeighbour] = []
    broker = NeighbourBroker(clock, asked.append, unknown)
    addresses = [IpAddress(IpVersion.V4, number) for number in range(MAX_QUESTIONS + 1)]
    questions = [replace(WANT, address=address) for address in addresses]
    assert [broker.resolve(what) for what in questions] == [True] * MAX_QUESTIONS + [False]
    assert len(broker) == len(asked) == MAX_QUESTIONS
    assert broker.resolve(questions[0]), "what is asked already is waited for"
    broker.answered(WANT.router_id, addresses[0])
    assert broker.resolve(questions[-1])


def test_answer_ends_the_questions() -> None:
    clock = ManualClock()
    asked: list[ResolveNeighbour] = []
    broker = NeighbourBroker(clock, asked.append, unknown)
    broker.resolve(WANT)
    broker.answered(WANT.router_id, WANT.address)
    clock.advance(GIVE_UP_S)
    assert broker.tick() == []
    assert asked == [WANT]


def test_answer_that_came_in_elsewhere_ends_the_questions_too() -> None:
    clock = ManualClock()
    asked: list[ResolveNeighbour] = []
    broker = NeighbourBroker(clock, asked.append, lambda what: clock.now_s() > 1000.0)
    broker.resolve(WANT)
    clock.advance(GIVE_UP_S)
    assert broker.tick() == []
    assert len(broker) == 0


def test_refresh_is_limited_and_never_gives_up_an_address() -> None:
    clock = ManualClock()
    asked: list[ResolveNeighbour] = []
    broker = NeighbourBroker(clock, asked.append, unknown)
    broker.refresh(WANT)
    broker.refresh(WANT)
    clock.advance(REFRESH_INTERVAL_S + 0.1)
    assert broker.tick() == []
    broker.refresh(WANT)
    assert len(asked) == 2
