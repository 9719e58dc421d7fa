from __future__ import annotations

from uuid import UUID

from midonet.agent.flows.program import LearnedMac
from midonet.agent.flows.tags import bridge_neighbour_tag, mac_tag, neighbour_tag
from midonet.agent.soft_state.learning import Learnt, MacLearning
from midonet.agent.soft_state.lessons import LearnNeighbour
from midonet.agent.soft_state.outbox import StateWrite
from midonet.agent.soft_state.reading import Neighbour, NeighbourState
from midonet.agent.soft_state.replica import (
    NEIGHBOUR_EXPIRY_S,
    NEIGHBOUR_FAILED_S,
    NEIGHBOUR_STALE_S,
    SoftStateReplica,
)
from midonet.model.coordination import MAC_AGEING_S
from midonet.model.ids import BridgeId, HostId, PortId, RouterId
from midonet.nsdb.store import DropState, PutState, StateEntry, StateTables, Table, TableChange
from midonet.packets.addresses import parse_ip
from midonet.runtime.clock import ManualClock

ME, OTHER = HostId(UUID(int=1)), HostId(UUID(int=2))
BRIDGE, ROUTER = BridgeId(UUID(int=3)), RouterId(UUID(int=4))
HERE, THERE = PortId(UUID(int=5)), PortId(UUID(int=6))
MAC, MAC_TEXT = 0x020000000001, "02:00:00:00:00:01"
TAG = mac_tag(BRIDGE, 0, MAC)
TABLE = StateTables.mac(BRIDGE)
ADDRESS = parse_ip("10.0.0.7")
NEIGHBOUR_TAG = neighbour_tag(ROUTER, *ADDRESS)


class Replica(SoftStateReplica):
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.sent: list[StateWrite] = []
        super().__init__(ME, self.clock, self.sent.append)


def change(
    value: str | None, owner: HostId, *, key: str = MAC_TEXT, table: str = TABLE, seq: int = 1
) -> TableChange:
    entry = None
    if value is not None:
        entry = StateEntry(table, key, value, owner, 0, seq, False)
    return TableChange(Table(table), ((key, entry),))


def test_asking_for_a_table_makes_it_watched_once() -> None:
    replica = Replica()
    assert replica.mac_port(BRIDGE, 0, MAC) is None
    assert replica.mac_port(BRIDGE, 0, MAC + 1) is None
    assert replica.take_unwatched() == [Table(TABLE)]
    assert replica.take_unwatched() == []


def test_own_mac_counts_at_once_and_its_echo_changes_nothing() -> None:
    replica = Replica()
    assert replica.learn_mac(BRIDGE, 0, MAC, HERE) == {TAG}
    assert replica.mac_port(BRIDGE, 0, MAC) == HERE
    assert replica.apply(change(str(HERE), ME)) == frozenset()
    assert replica.apply(change(str(THERE), OTHER)) == {TAG}
    assert replica.mac_port(BRIDGE, 0, MAC) == THERE


def test_older_entry_of_another_does_not_hide_an_unwritten_own_one() -> None:
    replica = Replica()
    replica.mac_port(BRIDGE, 0, MAC)
    replica.apply(change(str(THERE), OTHER))
    assert replica.learn_mac(BRIDGE, 0, MAC, HERE) == {TAG}
    assert replica.apply(change(str(THERE), OTHER, seq=2)) == frozenset()
    assert replica.mac_port(BRIDGE, 0, MAC) == HERE
    [write] = replica.sent
    replica.written(write)
    replica.clock.advance(3)
    assert replica.expire() == {TAG}  # the store had the last word
    assert replica.mac_port(BRIDGE, 0, MAC) == THERE


def test_entry_that_the_session_lost_stays_in_effect_and_is_written_again() -> None:
    replica = Replica()
    replica.learn_mac(BRIDGE, 0, MAC, HERE)
    replica.apply(change(str(HERE), ME))
    replica.sent.clear()
    assert replica.apply(change(None, ME)) == frozenset()
    assert replica.mac_port(BRIDGE, 0, MAC) == HERE
    assert replica.sent == [PutState(TABLE, MAC_TEXT, str(HERE), ME)]


def test_malformed_entries_of_others_are_ignored() -> None:
    replica = Replica()
    replica.mac_port(BRIDGE, 0, MAC)
    assert replica.apply(change("not a port", OTHER)) == frozenset()
    assert replica.apply(change(str(THERE), OTHER, key="nonsense")) == frozenset()
    assert replica.mac_port(BRIDGE, 0, MAC) is None
    assert replica.malformed == 2


def test_malformed_entry_in_place_of_a_good_one_is_a_change_of_the_fact() -> None:
    replica = Replica()
    replica.mac_port(BRIDGE, 0, MAC)
    replica.neighbour(ROUTER, ADDRESS)
    replica.bridge_neighbour(BRIDGE, ADDRESS)
    arp, router_arp = StateTables.bridge_arp(BRIDGE), StateTables.router_arp(ROUTER)
    key = str(ADDRESS)
    replica.apply(change(str(THERE), OTHER))
    replica.apply(change(MAC_TEXT, OTHER, key=key, table=arp))
    replica.apply(change(f'{{"mac":"{MAC_TEXT}"}}', OTHER, key=key, table=router_arp))

    assert replica.apply(change("not a port", OTHER, seq=2)) == {TAG}
    assert replica.apply(change("?", OTHER, key=key, table=arp, seq=2)) == {
        bridge_neighbour_tag(BRIDGE, *ADDRESS)
    }
    assert replica.apply(change("{", OTHER, key=key, table=router_arp, seq=2)) == {NEIGHBOUR_TAG}
    assert replica.mac_port(BRIDGE, 0, MAC) is None
    assert replica.bridge_neighbour(BRIDGE, ADDRESS) is None
    assert replica.neighbour(ROUTER, ADDRESS) is NeighbourState.UNKNOWN


def test_mac_is_forgotten_after_its_last_use_and_kept_by_traffic() -> None:
    replica = Replica()
    learning = MacLearning(replica, replica.clock)
    seen = LearnedMac(BRIDGE, 0, MAC, HERE)
    assert learning.learn(seen) == Learnt(frozenset({TAG}))
    assert learning.learn(seen) == Learnt(frozenset())
    assert len(replica.sent) == 1

    replica.clock.advance(MAC_AGEING_S - 1)
    learning.keep_alive(seen, replica.clock.now_s())
    replica.clock.advance(MAC_AGEING_S - 1)
    assert learning.expire() == frozenset()
    replica.clock.advance(1)
    assert learning.expire() == {TAG}
    assert replica.sent[-1] == DropState(TABLE, MAC_TEXT, ME)
    assert replica.mac_port(BRIDGE, 0, MAC) is None


def test_own_macs_of_an_earlier_run_expire_too() -> None:
    replica = Replica()
    learning = MacLearning(replica, replica.clock)
    replica.mac_port(BRIDGE, 0, MAC)
    replica.apply(change(str(HERE), ME))
    assert learning.expire() == frozenset()
    replica.clock.advance(MAC_AGEING_S)
    assert learning.expire() == {TAG}


def test_macs_of_a_detached_port_go_at_once() -> None:
    replica = Replica()
    learning = MacLearning(replica, replica.clock)
    learning.learn(LearnedMac(BRIDGE, 0, MAC, HERE))
    learning.learn(LearnedMac(BRIDGE, 0, MAC + 1, THERE))
    assert learning.forget_port(HERE) == {TAG}
    assert len(learning) == 1


def test_neighbour_gets_stale_then_is_confirmed_or_expires() -> None:
    replica = Replica()
    learnt = LearnNeighbour(ROUTER, ADDRESS, MAC)
    assert replica.neighbour(ROUTER, ADDRESS) is NeighbourState.UNKNOWN
    assert replica.learn_neighbour(learnt) == {NEIGHBOUR_TAG}
    assert replica.learn_neighbour(learnt) == frozenset()
    assert len(replica.sent) == 1

    replica.clock.advance(NEIGHBOUR_STALE_S)
    assert replica.neighbour(ROUTER, ADDRESS) == Neighbour(MAC, is_stale=True)
    assert replica.stale_neighbours() == [(ROUTER, ADDRESS)]
    assert replica.learn_neighbour(learnt) == frozenset()  # confirmed: no flow is touched
    assert len(replica.sent) == 2
    assert replica.neighbour(ROUTER, ADDRESS) == Neighbour(MAC)

    replica.clock.advance(NEIGHBOUR_EXPIRY_S)
    assert replica.expire() == {NEIGHBOUR_TAG}
    assert replica.neighbour(ROUTER, ADDRESS) is NeighbourState.UNKNOWN


def test_unanswered_address_is_unreachable_for_a_while() -> None:
    replica = Replica()
    assert replica.fail_neighbour(ROUTER, ADDRESS) == {NEIGHBOUR_TAG}
    assert replica.neighbour(ROUTER, ADDRESS) is NeighbourState.FAILED
    assert replica.expire() == frozenset()
    replica.clock.advance(NEIGHBOUR_FAILED_S)
    assert replica.expire() == {NEIGHBOUR_TAG}
    assert replica.neighbour(ROUTER, ADDRESS) is NeighbourState.UNKNOWN


def test_tables_of_devices_that_left_the_view_are_forgotten() -> None:
    replica = Replica()
    replica.watch_devices([BRIDGE], [ROUTER])
    assert len(replica.take_unwatched()) == 3
    gone = replica.retain_devices(frozenset({ROUTER}))
    assert {table.table for table in gone} == {TABLE, StateTables.bridge_arp(BRIDGE)}
    assert replica.apply(change(str(THERE), OTHER)) == frozenset()


def test_mac_that_moved_to_another_host_is_given_up_here() -> None:
    replica = Replica()
    learning = MacLearning(replica, replica.clock)
    learning.learn(LearnedMac(BRIDGE, 0, MAC, HERE))
    replica.apply(change(str(HERE), ME))
    assert replica.apply(change(str(THERE), OTHER, seq=2)) == {TAG}
    # Else our entry would win again as soon as the other host's ends.
    assert learning.expire() == frozenset()
    assert replica.sent[-1] == DropState(TABLE, MAC_TEXT, ME)
    assert len(learning) == 0


def test_mac_that_moves_between_ports_here_is_held_once() -> None:
    replica = Replica()
    learning = MacLearning(replica, replica.clock)
    for port_id in (HERE, THERE, HERE):
        assert learning.learn(LearnedMac(BRIDGE, 0, MAC, port_id)).tags == {TAG}
    assert len(learning) == 1
    assert learning.forget_port(THERE) == frozenset()
    assert replica.mac_port(BRIDGE, 0, MAC) == HERE


def test_neighbour_that_moved_to_another_host_is_given_up_here() -> None:
    replica = Replica()
    replica.learn_neighbour(LearnNeighbour(ROUTER, ADDRESS, MAC), HERE)
    table = StateTables.router_arp(ROUTER)
    [write] = replica.sent
    replica.written(write)
    record = f'{{"mac":"{MAC_TEXT}"}}'
    replica.apply(change(record, OTHER, key=str(ADDRESS), table=table, seq=2))
    assert replica.sent[-1] == DropState(table, str(ADDRESS), ME)
    assert len(replica.neighbours_held) == 0
    assert replica.neighbour(ROUTER, ADDRESS) == Neighbour(MAC)
