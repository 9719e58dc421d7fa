"""Local replicas of the learnt tables: MACs of bridges, neighbours of routers.

Answers the simulation's `SoftState` questions without waiting. A table that is asked for and not
watched yet is noted, and watched from then on; until it is loaded its keys are unknown. Changes
come back as flow tags, each effective change once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

import structlog

from midonet.agent.flows.program import LearnedMac
from midonet.agent.flows.tags import (
    FlowTag,
    bridge_neighbour_tag,
    mac_tag,
    neighbour_tag,
)
from midonet.agent.soft_state.holdings import DEFAULT_LIMITS, HoldingLimits, Holdings
from midonet.agent.soft_state.lessons import LearnNeighbour, MoveBridgeNeighbour
from midonet.agent.soft_state.outbox import StateWrite
from midonet.agent.soft_state.reading import Neighbour, NeighbourState
from midonet.agent.soft_state.shared_table import SharedTable
from midonet.errors import DecodeError
from midonet.model.ids import BridgeId, HostId, PortId, RouterId
from midonet.nsdb.state_tables import (
    BRIDGE_ARP_FORMAT,
    MAC_FORMAT,
    ROUTER_ARP_FORMAT,
    NeighbourRecord,
)
from midonet.nsdb.store import DropState, PutState, StateTables, Table, TableChange
from midonet.packets.addresses import IpAddress, format_mac, parse_ip, parse_mac
from midonet.runtime.clock import Clock

K = TypeVar("K")
V = TypeVar("V")

_log = structlog.get_logger("soft_state")

NEIGHBOUR_STALE_S = 60.0
"""Age at which a neighbour entry that is in use is asked for again."""

NEIGHBOUR_EXPIRY_S = 90.0
"""Age at which an entry that nobody has confirmed is removed by its owner."""

NEIGHBOUR_FAILED_S = 5.0
"""How long an address that did not answer counts as unreachable."""


MacTable = SharedTable[int, PortId]
AddressTable = SharedTable[IpAddress, int]
MacPlace = tuple[BridgeId, int, int]
"""Bridge, VLAN and MAC."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A table with what is done about its keys: name the fact, write it again, give it up."""

    table: SharedTable[Any, Any]
    tag: Callable[[Any], FlowTag]
    write_again: Callable[[Any], None]
    give_up: Callable[[Any], None]
    find: Callable[[Any], None]


def _leave(_: object) -> None:
    """Do nothing about a key."""


class SoftStateReplica:
    """The tables that this agent watches, with its own entries ahead of the store.

    neighbours_held: the neighbour entries that ports of this host taught.
    malformed: how many entries of the store could not be understood.
    """

    def __init__(
        self,
        host_id: HostId,
        clock: Clock,
        send: Callable[[StateWrite], None],
        epoch: int = 0,
        *,
        withdraw: Callable[[str, str], bool] = lambda _table, _key: False,
        limits: HoldingLimits = DEFAULT_LIMITS,
    ) -> None:
        """`send` queues a write for the store; `epoch` is the host's.

        `withdraw` takes back a queued write of (table, key) and tells whether the store was
        never asked for it.
        """
        self.neighbours_held: Holdings[tuple[RouterId, IpAddress]] = Holdings(limits)
        self.malformed = 0
        self._withdraw = withdraw
        self._found_macs: list[LearnedMac] = []
        self._displaced_macs: list[MacPlace] = []
        self._host_id = host_id
        self._clock = clock
        self._send = send
        self._epoch = epoch
        self._macs: dict[tuple[BridgeId, int], MacTable] = {}
        self._bridge_neighbours: dict[BridgeId, AddressTable] = {}
        self._neighbours: dict[RouterId, AddressTable] = {}
        self._by_name: dict[str, _Known] = {}
        self._unwatched: dict[str, None] = {}
        self._failed: dict[tuple[RouterId, IpAddress], float] = {}

    # What the simulation asks.

    def mac_port(self, bridge_id: BridgeId, vlan: int, mac: int) -> PortId | None:
        """Return the port behind which a MAC is, or None."""
        return self._mac_table(bridge_id, vlan).get(mac)

    def bridge_neighbour(self, bridge_id: BridgeId, address: IpAddress) -> int | None:
        """Return the MAC in the bridge's ARP table for an address, or None."""
        return self._bridge_table(bridge_id).get(address)

    def neighbour(self, router_id: RouterId, address: IpAddress) -> Neighbour | NeighbourState:
        """Return what the router knows of an address."""
        table = self._neighbour_table(router_id)
        mac = table.get(address)
        if mac is not None:
            return Neighbour(mac, self._age_s(table, address) >= NEIGHBOUR_STALE_S)
        if (router_id, address) in self._failed:
            return NeighbourState.FAILED
        return NeighbourState.UNKNOWN

    # What the store says.

    def take_unwatched(self) -> list[Table]:
        """Return the tables to watch since the last call."""
        tables = [Table(name) for name in self._unwatched]
        self._unwatched.clear()
        return tables

    def watch_devices(self, bridges: Iterable[BridgeId], routers: Iterable[RouterId]) -> None:
        """Ask for the tables of devices before their first packet."""
        for bridge_id in bridges:
            self._mac_table(bridge_id, 0)
            self._bridge_table(bridge_id)
        for router_id in routers:
            self._neighbour_table(router_id)

    def retain_devices(self, devices: frozenset[UUID]) -> list[Table]:
        """Forget the tables of other devices; return those to stop watching."""
        gone = [name for name in self._by_name if UUID(name.split("/")[1]) not in devices]
        for name in gone:
            del self._by_name[name]
            self._unwatched.pop(name, None)
        for key in [key for key in self._macs if key[0] not in devices]:
            del self._macs[key]
        for bridge_id in [key for key in self._bridge_neighbours if key not in devices]:
            del self._bridge_neighbours[bridge_id]
        for router_id in [key for key in self._neighbours if key not in devices]:
            for held in self.neighbours_held.of_device(router_id):
                self._give_up_neighbour(*held)
            del self._neighbours[router_id]
        return [Table(name) for name in gone]

    def apply(self, change: TableChange) -> frozenset[FlowTag]:
        """Take a change of a table; return the tags of facts that are different now."""
        known = self._by_name.get(change.key.table)
        if known is None:
            return frozenset()
        table = known.table
        tags: set[FlowTag] = set()
        now_s = self._clock.now_s()
        malformed = table.malformed
        for key_text, entry in change.entries:
            try:
                key = table.apply(key_text, entry, now_s)
            except DecodeError:
                table.malformed += 1
                continue
            if key is not None:
                tags.add(known.tag(key))
        if table.malformed > malformed:
            self.malformed += table.malformed - malformed
            _log.warning(
                "state_entries_malformed", table=table.name, count=table.malformed - malformed
            )
        _settle_ownership(known)
        return frozenset(tags)

    def written(self, write: StateWrite, *, is_refused: bool = False) -> None:
        """Note that the store has accepted a write, or has refused it for good."""
        known = self._by_name.get(write.table)
        if known is not None:
            known.table.written(write.key, self._clock.now_s(), is_refused=is_refused)

    def take_found_macs(self) -> list[LearnedMac]:
        """Return the MAC entries that the store has in this host's name from before its start,
        each once."""
        found, self._found_macs = self._found_macs, []
        return found

    def take_displaced_macs(self) -> list[MacPlace]:
        """Return the MACs that another host's entry took over since the last call."""
        displaced, self._displaced_macs = self._displaced_macs, []
        return displaced

    def neighbour_macs(self, router_id: RouterId) -> set[int]:
        """Return the MACs that a router's table leads to, as far as it is known here."""
        table = self._neighbours.get(router_id)
        return set() if table is None else table.values()

    # What this agent learns.

    def learn_mac(
        self, bridge_id: BridgeId, vlan: int, mac: int, port_id: PortId
    ) -> frozenset[FlowTag]:
        """Put a MAC into a bridge's table as our own entry."""
        table = self._mac_table(bridge_id, vlan)
        changed = table.write(mac, port_id, self._clock.now_s())
        self._put(table.name, format_mac(mac), str(port_id))
        return frozenset({mac_tag(bridge_id, vlan, mac)}) if changed else frozenset()

    def forget_mac(self, bridge_id: BridgeId, vlan: int, mac: int) -> frozenset[FlowTag]:
        """Remove our own entry of a MAC."""
        erased = self._erase(self._mac_table(bridge_id, vlan), mac, format_mac(mac))
        return frozenset({mac_tag(bridge_id, vlan, mac)}) if erased else frozenset()

    def learn_neighbour(
        self, learnt: LearnNeighbour, source: PortId | None = None
    ) -> frozenset[FlowTag]:
        """Put a neighbour into a router's table, unless a fresh entry says the same.

        source: the port of this host where the packet came in, to which the entry counts.
        """
        table = self._neighbour_table(learnt.router_id)
        address = learnt.address
        was_failed = self._failed.pop((learnt.router_id, address), None) is not None
        is_known = table.get(address) == learnt.mac
        if is_known and self._age_s(table, address) < NEIGHBOUR_STALE_S:
            return frozenset()
        changed = table.write(address, learnt.mac, self._clock.now_s())
        self._put_neighbour(table.name, address, learnt.mac)
        tags = set()
        if changed or was_failed:
            tags.add(neighbour_tag(learnt.router_id, *address))
        place = (source or PortId(learnt.router_id), learnt.router_id)
        held = (learnt.router_id, address)
        for router_id, gone in self.neighbours_held.hold(held, place, self._clock.now_s()):
            if self._erase(self._neighbour_table(router_id), gone, str(gone)):
                tags.add(neighbour_tag(router_id, *gone))
        return frozenset(tags)

    def move_bridge_neighbour(self, moved: MoveBridgeNeighbour) -> frozenset[FlowTag]:
        """Put an announced MAC into a bridge's ARP table."""
        table = self._bridge_table(moved.bridge_id)
        if table.get(moved.address) == moved.mac:
            return frozenset()
        table.write(moved.address, moved.mac, self._clock.now_s())
        self._put(table.name, str(moved.address), format_mac(moved.mac))
        return frozenset({bridge_neighbour_tag(moved.bridge_id, *moved.address)})

    def fail_neighbour(self, router_id: RouterId, address: IpAddress) -> frozenset[FlowTag]:
        """Count an address as unreachable for a while."""
        self._failed[(router_id, address)] = self._clock.now_s() + NEIGHBOUR_FAILED_S
        return frozenset({neighbour_tag(router_id, *address)})

    def is_stale(self, router_id: RouterId, address: IpAddress) -> bool:
        """Tell whether there is an entry that should be confirmed again."""
        neighbour = self.neighbour(router_id, address)
        return isinstance(neighbour, Neighbour) and neighbour.is_stale

    def expire(self) -> frozenset[FlowTag]:
        """Let unconfirmed neighbours and failures lapse; return the tags that changed."""
        now_s = self._clock.now_s()
        tags: set[FlowTag] = set()
        for (router_id, address), until_s in list(self._failed.items()):
            if until_s <= now_s:
                del self._failed[(router_id, address)]
                tags.add(neighbour_tag(router_id, *address))
        for router_id, table in self._neighbours.items():
            for address in list(table.keys()):
                is_old = self._age_s(table, address) >= NEIGHBOUR_EXPIRY_S
                if is_old and table.is_mine(address):
                    self.neighbours_held.discard((router_id, address))
                    self._erase(table, address, str(address))
                    tags.add(neighbour_tag(router_id, *address))
        for known in self._by_name.values():
            tags.update(known.tag(key) for key in known.table.settle(now_s))
            if known.table.lost:
                _settle_ownership(known)
        return frozenset(tags)

    def stale_neighbours(self) -> list[tuple[RouterId, IpAddress]]:
        """Return the entries that should be confirmed when they are in use."""
        return [
            (router_id, address)
            for router_id, table in self._neighbours.items()
            for address in table.keys()  # noqa: SIM118 - not a mapping
            if self._age_s(table, address) >= NEIGHBOUR_STALE_S
        ]

    def _erase(self, table: SharedTable[K, V], key: K, key_text: str) -> bool:
        """Take our own entry out of effect and out of the store; tell whether that changed the
        effective value. What the store never had leaves no write behind."""
        if not table.has_ours(key) and self._withdraw(table.name, key_text):
            return table.forget(key)
        erased = table.erase(key, self._clock.now_s())
        self._send(DropState(table.name, key_text, self._host_id))
        return erased

    def _give_up_neighbour(self, router_id: RouterId, address: IpAddress) -> None:
        """Take an entry out of the store that is not ours to keep any more."""
        if (router_id, address) in self.neighbours_held:
            self.neighbours_held.discard((router_id, address))
            table = self._neighbour_table(router_id)
            self._send(DropState(table.name, str(address), self._host_id))

    def _put_neighbour(self, table: str, address: IpAddress, mac: int) -> None:
        record = NeighbourRecord(mac=format_mac(mac))
        self._put(table, str(address), ROUTER_ARP_FORMAT.format_value(record))

    def _put(self, table: str, key: str, value: str) -> None:
        self._send(PutState(table, key, value, self._host_id, self._epoch))

    def _age_s(self, table: AddressTable, address: IpAddress) -> float:
        confirmed_s = table.confirmed_s(address)
        return 0.0 if confirmed_s is None else self._clock.now_s() - confirmed_s

    def _mac_table(self, bridge_id: BridgeId, vlan: int) -> MacTable:
        table = self._macs.get((bridge_id, vlan))
        if table is None:
            name = StateTables.mac(bridge_id, vlan)
            table = SharedTable(name, self._host_id, _decode_mac_entry, parse_mac)
            self._macs[bridge_id, vlan] = shared = table

            def write_again(mac: int) -> None:
                port_id = shared.get(mac)
                if port_id is not None:
                    self._put(name, format_mac(mac), str(port_id))

            def find(mac: int) -> None:
                port_id = shared.get(mac)
                if port_id is not None:
                    self._found_macs.append(LearnedMac(bridge_id, vlan, mac, port_id))

            self._add(
                _Known(
                    table,
                    tag=lambda mac: mac_tag(bridge_id, vlan, mac),
                    write_again=write_again,
                    give_up=lambda mac: self._displaced_macs.append((bridge_id, vlan, mac)),
                    find=find,
                )
            )
        return table

    def _bridge_table(self, bridge_id: BridgeId) -> AddressTable:
        table = self._bridge_neighbours.get(bridge_id)
        if table is None:
            name = StateTables.bridge_arp(bridge_id)
            table = SharedTable(name, self._host_id, _decode_bridge_neighbour, parse_ip)
            self._bridge_neighbours[bridge_id] = shared = table

            def write_again(address: IpAddress) -> None:
                mac = shared.get(address)
                if mac is not None:
                    self._put(name, str(address), format_mac(mac))

            self._add(
                _Known(
                    table,
                    tag=lambda address: bridge_neighbour_tag(bridge_id, *address),
                    write_again=write_again,
                    give_up=_leave,
                    find=_leave,
                )
            )
        return table

    def _neighbour_table(self, router_id: RouterId) -> AddressTable:
        table = self._neighbours.get(router_id)
        if table is None:
            name = StateTables.router_arp(router_id)
            table = SharedTable(name, self._host_id, _decode_neighbour, parse_ip)
            self._neighbours[router_id] = shared = table

            def write_again(address: IpAddress) -> None:
                mac = shared.get(address)
                if mac is not None:
                    self._put_neighbour(name, address, mac)

            self._add(
                _Known(
                    table,
                    tag=lambda address: neighbour_tag(router_id, *address),
                    write_again=write_again,
                    give_up=lambda address: self._give_up_neighbour(router_id, address),
                    find=_leave,
                )
            )
        return table

    def _add(self, known: _Known) -> None:
        self._by_name[known.table.name] = known
        self._unwatched[known.table.name] = None


def _settle_ownership(known: _Known) -> None:
    """Put back what the store lost together with our session, give up what others took over,
    and take note of what is ours from before."""
    table = known.table
    for key in table.lost:
        known.write_again(key)
    for key in table.displaced:
        if not table.is_mine(key):
            known.give_up(key)
    for key in table.found:
        known.find(key)
    table.lost.clear()
    table.displaced.clear()
    table.found.clear()


def _decode_mac_entry(key: str, value: str) -> tuple[int, PortId]:
    return MAC_FORMAT.parse_key(key), MAC_FORMAT.parse_value(value)


def _decode_bridge_neighbour(key: str, value: str) -> tuple[IpAddress, int]:
    return BRIDGE_ARP_FORMAT.parse_key(key), BRIDGE_ARP_FORMAT.parse_value(value)


def _decode_neighbour(key: str, value: str) -> tuple[IpAddress, int]:
    record = ROUTER_ARP_FORMAT.parse_value(value)
    return ROUTER_ARP_FORMAT.parse_key(key), parse_mac(record.mac)
