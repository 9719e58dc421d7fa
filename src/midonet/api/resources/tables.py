"""State tables of a bridge: MAC entries per VLAN, and the neighbours it answers for.

Entries that are posted are persistent; what agents learn beats them. `StateTables.mac_vlans`
tells which VLANs of a bridge have entries that were posted, because a store cannot list tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from midonet.api.call import NO_CONTENT, Call, Endpoint, Reply
from midonet.api.crud import require
from midonet.errors import DecodeError, NotFoundError
from midonet.model.devices import Bridge, Port
from midonet.model.ids import ObjectId
from midonet.model.schema import checked
from midonet.model.schema_devices import BRIDGE
from midonet.model.schema_hosts import ARP_ENTRY, MAC_ENTRY, ArpEntryResource, MacEntryResource
from midonet.model.validation import canonical_ip, canonical_mac, invalid
from midonet.nsdb.store import Check, DropState, PutState, StateTables, Store

POSTED_BY: ObjectId = UUID("6d69646f-6e65-5400-8000-726573742d61")
"""Owner of the entries that were posted, whichever process took the request."""

VLAN_MAX = 4094


@dataclass(frozen=True, slots=True)
class _Row:
    """Key and value of an entry as its URI names them."""

    key: str
    value: str


async def _bridge(call: Call) -> UUID:
    bridge_id = call.object_id("id", "Bridge")
    await require(call.store, BRIDGE, bridge_id)
    return bridge_id


async def _vlans(store: Store, bridge_id: UUID) -> list[int]:
    """Return the VLANs of a bridge that have a MAC table: untagged, its ports', posted ones."""
    vlans = {0}
    ports = await store.get_many(Port, await store.referrers(Port, "bridge_id", bridge_id))
    vlans.update(port.value.vlan_id for port in ports.values())
    for entry in await store.table(StateTables.mac_vlans(bridge_id)):
        vlans.add(int(entry.key))
    return sorted(vlans)


async def forget_tables(store: Store, bridge_id: UUID) -> None:
    """Remove what was posted for a bridge that is gone."""
    index = StateTables.mac_vlans(bridge_id)
    tables = [StateTables.mac(bridge_id, int(entry.key)) for entry in await store.table(index)]
    for table in (StateTables.mac(bridge_id), *tables, index, StateTables.bridge_arp(bridge_id)):
        for entry in await store.entries(table):
            if entry.owner == POSTED_BY:
                await store.transact([DropState(table, entry.key, POSTED_BY)])


async def _url_vlan(call: Call, bridge_id: UUID) -> int:
    """Return the VLAN of the path, 0 when it has none. NotFoundError when it has no table."""
    given = call.path.get("vlan")
    if given is None:
        return 0
    if not given.isascii() or not given.isdigit() or len(given) > 4:
        raise NotFoundError("VLAN", given)
    vlan = int(given)
    if vlan not in await _vlans(call.store, bridge_id):
        raise NotFoundError("VLAN", given)
    return vlan


def _row(call: Call, title: str, *, is_mac_first: bool) -> _Row:
    """Split `{mac}_{port}` or `{ip}_{mac}`; MAC octets are joined by `-` in URIs."""
    given = call.path["entry"]
    first, _, second = given.partition("_")
    try:
        if is_mac_first:
            return _Row(canonical_mac(first), str(UUID(second)))
        return _Row(canonical_ip(first), canonical_mac(second))
    except (DecodeError, ValueError):
        raise NotFoundError(title, given) from None


def _mac_uri(bridge_id: UUID, vlan: int, mac: str, port_id: str) -> str:
    below = f"/vlans/{vlan}" if vlan else ""
    return f"/bridges/{bridge_id}{below}/mac_table/{mac.replace(':', '-')}_{port_id}"


def _mac_entry(bridge_id: UUID, vlan: int, mac: str, port_id: str) -> MacEntryResource:
    return MacEntryResource(
        uri=_mac_uri(bridge_id, vlan, mac, port_id),
        mac=mac,
        port_id=UUID(port_id),
        vlan_id=vlan,
        bridge_id=bridge_id,
    )


async def _list_macs(call: Call) -> Reply:
    bridge_id = await _bridge(call)
    vlans = (
        [await _url_vlan(call, bridge_id)]
        if "vlan" in call.path
        else await _vlans(call.store, bridge_id)
    )
    listed: list[Any] = []
    for vlan in vlans:
        for entry in await call.store.table(StateTables.mac(bridge_id, vlan)):
            listed.append(_mac_entry(bridge_id, vlan, entry.key, entry.value))
    return Reply(200, listed)


async def _add_mac(call: Call) -> Reply:
    bridge_id = await _bridge(call)
    entry = checked(MacEntryResource, call.body)
    vlan = _posted_vlan(call, entry)
    assert entry.port_id is not None
    port = await call.store.get(Port, entry.port_id)
    if port is None or port.value.bridge_id != bridge_id:
        raise invalid("portId", "must be a port of this bridge")
    if port.value.vlan_id not in (0, vlan):
        raise invalid("vlanId", f"the port is in VLAN {port.value.vlan_id}")
    index = StateTables.mac_vlans(bridge_id)
    table = StateTables.mac(bridge_id, vlan)
    port_id = str(entry.port_id)
    await call.store.transact(
        [
            Check(Port, entry.port_id),
            PutState(table, entry.mac, port_id, POSTED_BY, is_persistent=True),
            PutState(index, str(vlan), "", POSTED_BY, is_persistent=True),
        ]
    )
    return Reply(201, location=_mac_uri(bridge_id, vlan, entry.mac, port_id))


def _posted_vlan(call: Call, entry: MacEntryResource) -> int:
    given = call.path.get("vlan")
    if given is None:
        return entry.vlan_id
    if not given.isascii() or not given.isdigit() or len(given) > 4 or int(given) > VLAN_MAX:
        raise NotFoundError("VLAN", given)
    return int(given)


async def _read_mac(call: Call) -> Reply:
    bridge_id = await _bridge(call)
    vlan = await _url_vlan(call, bridge_id)
    row = _row(call, "MacPort", is_mac_first=True)
    await _require_entry(call.store, StateTables.mac(bridge_id, vlan), row, "MacPort")
    return Reply(200, _mac_entry(bridge_id, vlan, row.key, row.value))


async def _delete_mac(call: Call) -> Reply:
    bridge_id = await _bridge(call)
    vlan = await _url_vlan(call, bridge_id)
    row = _row(call, "MacPort", is_mac_first=True)
    await _drop(call.store, StateTables.mac(bridge_id, vlan), row)
    return NO_CONTENT


async def _require_entry(store: Store, table: str, row: _Row, title: str) -> None:
    if all(entry.value != row.value for entry in await store.entries(table, row.key)):
        raise NotFoundError(title, f"{row.key}_{row.value}")


async def _drop(store: Store, table: str, row: _Row) -> None:
    """Remove the entries of exactly this key and value, learned ones too."""
    for entry in await store.entries(table, row.key):
        if entry.value == row.value:
            await store.transact([DropState(table, row.key, entry.owner, row.value)])


def _arp_uri(bridge_id: UUID, ip: str, mac: str) -> str:
    return f"/bridges/{bridge_id}/arp_table/{ip}_{mac.replace(':', '-')}"


def _arp_entry(bridge_id: UUID, ip: str, mac: str) -> ArpEntryResource:
    return ArpEntryResource(uri=_arp_uri(bridge_id, ip, mac), ip=ip, mac=mac, bridge_id=bridge_id)


async def _list_neighbours(call: Call) -> Reply:
    bridge_id = await _bridge(call)
    entries = await call.store.table(StateTables.bridge_arp(bridge_id))
    return Reply(200, [_arp_entry(bridge_id, entry.key, entry.value) for entry in entries])


async def _add_neighbour(call: Call) -> Reply:
    bridge_id = await _bridge(call)
    entry = checked(ArpEntryResource, call.body)
    table = StateTables.bridge_arp(bridge_id)
    await call.store.transact(
        [
            Check(Bridge, bridge_id),
            PutState(table, entry.ip, entry.mac, POSTED_BY, is_persistent=True),
        ]
    )
    return Reply(201, location=_arp_uri(bridge_id, entry.ip, entry.mac))


async def _read_neighbour(call: Call) -> Reply:
    bridge_id = await _bridge(call)
    row = _row(call, "IP4Mac", is_mac_first=False)
    await _require_entry(call.store, StateTables.bridge_arp(bridge_id), row, "IP4Mac")
    return Reply(200, _arp_entry(bridge_id, row.key, row.value))


async def _delete_neighbour(call: Call) -> Reply:
    bridge_id = await _bridge(call)
    row = _row(call, "IP4Mac", is_mac_first=False)
    await _drop(call.store, StateTables.bridge_arp(bridge_id), row)
    return NO_CONTENT


def endpoints() -> list[Endpoint]:
    """Return the endpoints of this module."""
    listed: list[Endpoint] = []
    for path in ("/bridges/{id}/mac_table", "/bridges/{id}/vlans/{vlan}/mac_table"):
        listed += [
            Endpoint(
                "GET", path, MAC_ENTRY, _list_macs, "List MAC entries", 200, is_collection=True
            ),
            Endpoint(
                "POST",
                path,
                MAC_ENTRY,
                _add_mac,
                "Add a persistent MAC entry",
                201,
                takes_body=True,
                media_error=415,
            ),
            Endpoint("GET", path + "/{entry}", MAC_ENTRY, _read_mac, "Read a MAC entry", 200),
            Endpoint("DELETE", path + "/{entry}", MAC_ENTRY, _delete_mac, "Drop a MAC entry", 204),
        ]
    path = "/bridges/{id}/arp_table"
    listed += [
        Endpoint(
            "GET", path, ARP_ENTRY, _list_neighbours, "List neighbours", 200, is_collection=True
        ),
        Endpoint(
            "POST",
            path,
            ARP_ENTRY,
            _add_neighbour,
            "Add a persistent neighbour",
            201,
            takes_body=True,
            media_error=415,
        ),
        Endpoint("GET", path + "/{entry}", ARP_ENTRY, _read_neighbour, "Read a neighbour", 200),
        Endpoint(
            "DELETE", path + "/{entry}", ARP_ENTRY, _delete_neighbour, "Drop a neighbour", 204
        ),
    ]
    return listed
