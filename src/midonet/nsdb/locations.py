"""Where ports are: claims by compare-and-set, and the tunnel keys that go with them.

A key names one port (or flood group) of one host. `TunnelKeyUse` records, whose identifiers are
derived from (host, key), make it unique there, in the same transaction as the location. When a
location ends in any way (release, another host's claim, deletion of the port), its key rests for
`QUARANTINE_S` before another holder may get it; the same holder may have it back at once.

Key layout (24 bits): bit 23 marks traced packets, bits 22 to 20 tell the type, 20 bits are free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import TypeVar
from uuid import UUID

import msgspec

from midonet.errors import (
    ConflictError,
    DecodeError,
    MidoNetError,
    NotFoundError,
    UnavailableError,
    UserError,
)
from midonet.model.coordination import TunnelKeyUse, tunnel_key_use_id
from midonet.model.hosts import FloodGroup, PortLocation, flood_group_id
from midonet.model.ids import BridgeId, HostId, ObjectId, PortId
from midonet.nsdb.store import Create, Delete, Operation, Store, Update, Versioned

T = TypeVar("T", bound=msgspec.Struct)

QUARANTINE_S = 24 * 3600
"""How long a key that was given up names nothing."""

PORT_KEY_TYPE = 1
"""Type (bits 22 to 20) of the key of a port, chosen by its host."""

FLOOD_GROUP_KEY_TYPE = 3
"""Type (bits 22 to 20) of the key of a flood group."""

_TYPE_SHIFT = 20
_KEY_MASK = (1 << _TYPE_SHIFT) - 1
_ATTEMPTS = 5
_KEY_DRAWS = 64
_COLLECT_BATCH = 250
_PLACE_BATCH = 100
"""Ports placed in one transaction: three or four operations each, of at most MAX_OPERATIONS."""
_OWN_RECORDS = frozenset((PortLocation.__name__, TunnelKeyUse.__name__))


@dataclass(frozen=True, slots=True)
class KeySource:
    """Randomness and time for keys. `now_s` returns Unix seconds; they bound the quarantine."""

    random: Random
    now_s: Callable[[], float]


async def claim(store: Store, port_id: PortId, host_id: HostId, source: KeySource) -> PortLocation:
    """Record that a port is at a host; return its location, key included.

    A location that is there already is kept as it is. One at another host is replaced with a
    higher epoch and is not active until `set_active`. Raises NotFoundError when the port or the
    host does not exist, ConflictError when others keep claiming, UnavailableError.
    """
    for _ in range(_ATTEMPTS):
        found = await store.get(PortLocation, port_id)
        if found is not None and found.value.host_id == host_id:
            return found.value
        key, operations = await _take_key(store, host_id, port_id, PORT_KEY_TYPE, source)
        epoch = 1 if found is None else found.value.epoch + 1
        location = PortLocation(id=port_id, host_id=host_id, tunnel_key=key, epoch=epoch)
        if found is None:
            operations.append(Create(location))
        else:
            operations.append(Update(location, found.version))
            operations += await _give_up_key(
                store, found.value.host_id, found.value.tunnel_key, source
            )
        try:
            await store.transact(operations)
        except ConflictError:
            continue
        except NotFoundError as error:
            if error.kind in _OWN_RECORDS:
                continue
            raise
        return location
    raise ConflictError(f"Port {port_id} is being claimed by another host.")


async def own_places(
    store: Store, host_id: HostId
) -> tuple[dict[PortId, PortLocation], dict[BridgeId, FloodGroup]]:
    """Return what is recorded of a host: its ports' locations, and its flood groups.

    What cannot be understood is left out. Raises UnavailableError.
    """
    locations = await _readable(
        store, PortLocation, await store.referrers(PortLocation, "host_id", host_id)
    )
    groups = await _readable(
        store, FloodGroup, await store.referrers(FloodGroup, "host_id", host_id)
    )
    return (
        {one.id: one for one in locations if one.host_id == host_id},
        {one.bridge_id: one for one in groups},
    )


async def _readable(store: Store, kind: type[T], object_ids: Sequence[ObjectId]) -> list[T]:
    try:
        return [one.value for one in (await store.get_many(kind, object_ids)).values()]
    except DecodeError:
        found = []
        for object_id in object_ids:
            with suppress(DecodeError):
                one = await store.get(kind, object_id)
                found += [] if one is None else [one.value]
        return found


async def place_ports(
    store: Store, host_id: HostId, wanted: Mapping[PortId, bool], source: KeySource
) -> dict[PortId, PortLocation | MidoNetError]:
    """Record that ports are at a host, each active or not; many at a time.

    Does for each port what `claim` and then `set_active` do, and returns its location or why it
    has none (what those two raise). Raises UnavailableError.
    """
    done: dict[PortId, PortLocation | MidoNetError] = {}
    port_ids = list(wanted)
    for start in range(0, len(port_ids), _PLACE_BATCH):
        batch = {one: wanted[one] for one in port_ids[start : start + _PLACE_BATCH]}
        with suppress(ConflictError, NotFoundError, DecodeError):
            done.update(await _place_batch(store, host_id, batch, source))
        for port_id in batch.keys() - done.keys():
            try:
                done[port_id] = await _place_one(store, host_id, port_id, batch[port_id], source)
            except (ConflictError, UserError, DecodeError) as error:
                done[port_id] = error
    return done


async def _place_one(
    store: Store, host_id: HostId, port_id: PortId, is_active: bool, source: KeySource
) -> PortLocation:
    for _ in range(_ATTEMPTS):
        location = await claim(store, port_id, host_id, source)
        if await set_active(store, location, is_active=is_active):
            return msgspec.structs.replace(location, active=is_active)
    raise ConflictError(f"Port {port_id} is being claimed by another host.")


async def _place_batch(
    store: Store, host_id: HostId, wanted: Mapping[PortId, bool], source: KeySource
) -> dict[PortId, PortLocation]:
    """Place ports in one transaction. Those whose key is not easily found are left out."""
    found = await store.get_many(PortLocation, list(wanted))
    uses = await store.get_many(TunnelKeyUse, list(_uses_concerned(host_id, wanted, found)))
    done: dict[PortId, PortLocation] = {}
    operations: list[Operation] = []
    taken: set[ObjectId] = set()
    for port_id, is_active in wanted.items():
        there = found.get(port_id)
        if there is not None and there.value.host_id == host_id:
            done[port_id] = msgspec.structs.replace(there.value, active=is_active)
            if there.value.active is not is_active:
                operations.append(Update(done[port_id], there.version))
            continue
        use = _preferred_use(host_id, port_id)
        if use.id in taken:
            continue
        taking = _take(use, uses.get(use.id), source)
        if taking is None:
            continue
        taken.add(use.id)
        epoch = 1 if there is None else there.value.epoch + 1
        location = PortLocation(
            id=port_id, host_id=host_id, tunnel_key=use.tunnel_key, epoch=epoch, active=is_active
        )
        operations.append(taking)
        if there is None:
            operations.append(Create(location))
        else:
            operations.append(Update(location, there.version))
            operations += _give_up(uses.get(_use_id(there.value)), source)
        done[port_id] = location
    if operations:
        await store.transact(operations)
    return done


def _uses_concerned(
    host_id: HostId,
    wanted: Iterable[PortId],
    found: Mapping[ObjectId, Versioned[PortLocation]],
) -> Iterator[ObjectId]:
    """Yield the records of the keys that ports would take here, and give up elsewhere."""
    for port_id in wanted:
        there = found.get(port_id)
        if there is None or there.value.host_id != host_id:
            yield _preferred_use(host_id, port_id).id
        if there is not None and there.value.host_id != host_id:
            yield _use_id(there.value)


async def release(store: Store, location: PortLocation, source: KeySource) -> bool:
    """Remove a location; False when it is no longer this one (another epoch, or gone)."""
    for _ in range(_ATTEMPTS):
        found = await store.get(PortLocation, location.id)
        if found is None or not _is_same_stay(found.value, location):
            return False
        operations: list[Operation] = [Delete(PortLocation, location.id, found.version)]
        operations += await _give_up_key(store, location.host_id, location.tunnel_key, source)
        try:
            await store.transact(operations)
        except (ConflictError, NotFoundError):
            continue
        return True
    raise ConflictError(f"The location of port {location.id} keeps changing.")


async def set_active(store: Store, location: PortLocation, *, is_active: bool) -> bool:
    """Set whether a location is active; False when it is no longer this one."""
    for _ in range(_ATTEMPTS):
        found = await store.get(PortLocation, location.id)
        if found is None or not _is_same_stay(found.value, location):
            return False
        wanted = msgspec.structs.replace(found.value, active=is_active)
        if wanted == found.value:
            return True
        try:
            await store.transact([Update(wanted, found.version)])
        except (ConflictError, NotFoundError):
            continue
        return True
    raise ConflictError(f"The location of port {location.id} keeps changing.")


async def claim_flood_group(
    store: Store, bridge_id: BridgeId, host_id: HostId, source: KeySource
) -> FloodGroup:
    """Return the flood group of a bridge at a host, created with a key when there is none.

    Raises NotFoundError when the bridge or the host does not exist.
    """
    group_id = flood_group_id(host_id, bridge_id)
    for _ in range(_ATTEMPTS):
        found = await store.get(FloodGroup, group_id)
        if found is not None:
            return found.value
        key, operations = await _take_key(store, host_id, group_id, FLOOD_GROUP_KEY_TYPE, source)
        group = FloodGroup(id=group_id, host_id=host_id, bridge_id=bridge_id, tunnel_key=key)
        try:
            await store.transact([*operations, Create(group)])
        except ConflictError:
            continue
        except NotFoundError as error:
            if error.kind in _OWN_RECORDS:
                continue
            raise
        return group
    raise ConflictError(f"The flood group of bridge {bridge_id} keeps changing.")


async def release_flood_group(store: Store, group: FloodGroup, source: KeySource) -> bool:
    """Remove a flood group; False when it is gone already."""
    for _ in range(_ATTEMPTS):
        if await store.get(FloodGroup, group.id) is None:
            return False
        operations: list[Operation] = [Delete(FloodGroup, group.id)]
        operations += await _give_up_key(store, group.host_id, group.tunnel_key, source)
        try:
            await store.transact(operations)
        except (ConflictError, NotFoundError):
            continue
        return True
    raise ConflictError(f"The flood group of bridge {group.bridge_id} keeps changing.")


async def collect_keys(store: Store, host_id: HostId, source: KeySource) -> int:
    """Begin the quarantine of keys whose holder is gone, and forget those whose is over.

    Each host runs it for itself now and then; it is what frees the keys of deleted ports. Returns
    how many records changed. Records that change meanwhile are left for the next run.
    """
    changed = 0
    use_ids = await store.referrers(TunnelKeyUse, "host_id", host_id)
    for start in range(0, len(use_ids), _COLLECT_BATCH):
        uses = await store.get_many(TunnelKeyUse, use_ids[start : start + _COLLECT_BATCH])
        holders = [use.value.holder_id for use in uses.values()]
        keys_held: set[tuple[ObjectId, int]] = {
            (one.value.id, one.value.tunnel_key)
            for one in (await store.get_many(PortLocation, holders)).values()
            if one.value.host_id == host_id
        }
        keys_held |= {
            (one.value.id, one.value.tunnel_key)
            for one in (await store.get_many(FloodGroup, holders)).values()
        }
        for use in uses.values():
            operation = _collect(use, keys_held, source.now_s())
            if operation is None:
                continue
            try:
                await store.transact([operation])
            except (ConflictError, NotFoundError):
                continue
            changed += 1
    return changed


def _collect(
    use: Versioned[TunnelKeyUse], keys_held: set[tuple[ObjectId, int]], now_s: float
) -> Operation | None:
    if (use.value.holder_id, use.value.tunnel_key) in keys_held:
        return None
    if use.value.released_at_s is None:
        released = msgspec.structs.replace(use.value, released_at_s=int(now_s))
        return Update(released, use.version)
    if _is_rested(use.value, now_s):
        return Delete(TunnelKeyUse, use.value.id, use.version)
    return None


def _is_same_stay(found: PortLocation, location: PortLocation) -> bool:
    return (found.host_id, found.epoch) == (location.host_id, location.epoch)


def _is_rested(use: TunnelKeyUse, now_s: float) -> bool:
    return use.released_at_s is not None and now_s - use.released_at_s >= QUARANTINE_S


async def _take_key(
    store: Store, host_id: HostId, holder_id: ObjectId, key_type: int, source: KeySource
) -> tuple[int, list[Operation]]:
    """Choose a key and return it with the operations that take it.

    The first choice follows from the holder, so that one that comes back mostly finds its old
    key; after that they are random.
    """
    bits = _preferred_bits(holder_id)
    for _ in range(_KEY_DRAWS):
        use = _use(host_id, holder_id, key_type, bits)
        taking = _take(use, await store.get(TunnelKeyUse, use.id), source)
        if taking is not None:
            return use.tunnel_key, [taking]
        bits = source.random.getrandbits(_TYPE_SHIFT)
    raise UnavailableError(f"Host {host_id} has no free tunnel key.")


async def _give_up_key(
    store: Store, host_id: HostId, key: int, source: KeySource
) -> list[Operation]:
    return _give_up(await store.get(TunnelKeyUse, tunnel_key_use_id(host_id, key)), source)


def _give_up(found: Versioned[TunnelKeyUse] | None, source: KeySource) -> list[Operation]:
    if found is None:
        return []
    released = msgspec.structs.replace(found.value, released_at_s=int(source.now_s()))
    return [Update(released, found.version)]


def _take(
    use: TunnelKeyUse, found: Versioned[TunnelKeyUse] | None, source: KeySource
) -> Operation | None:
    """Return the operation that takes a key; None when it is another's or rests."""
    if found is None:
        return Create(use)
    if found.value.holder_id == use.holder_id or _is_rested(found.value, source.now_s()):
        return Update(use, found.version)
    return None


def _use(host_id: HostId, holder_id: ObjectId, key_type: int, bits: int) -> TunnelKeyUse:
    key = key_type << _TYPE_SHIFT | bits
    return TunnelKeyUse(
        id=tunnel_key_use_id(host_id, key), host_id=host_id, tunnel_key=key, holder_id=holder_id
    )


def _preferred_use(host_id: HostId, port_id: PortId) -> TunnelKeyUse:
    return _use(host_id, port_id, PORT_KEY_TYPE, _preferred_bits(port_id))


def _use_id(location: PortLocation) -> ObjectId:
    return tunnel_key_use_id(location.host_id, location.tunnel_key)


def _preferred_bits(holder_id: UUID) -> int:
    # Folding keeps the random bits of every version of UUID.
    folded = holder_id.int ^ holder_id.int >> 64
    return (folded ^ folded >> 20 ^ folded >> 40) & _KEY_MASK
