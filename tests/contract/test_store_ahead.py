"""What every Store promises of a watcher that is told what its consumer will ask for next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from midonet.model.devices import Bridge, Port
from midonet.nsdb.store import (
    Change,
    Create,
    Delete,
    IdsChange,
    ObjectChange,
    ObjectKey,
    Referrers,
    Store,
    Update,
    WatchKey,
)
from tests.contract.store_steps import (
    DEADLINE_S,
    bridge,
    bridge_port,
    changes_until,
    next_changes,
)


def follow(change: Change) -> Iterable[WatchKey]:
    """A bridge leads to the list of its ports, the list to each port."""
    if isinstance(change, ObjectChange) and change.key.kind is Bridge:
        return [Referrers(Port, "bridge_id", change.key.object_id)]
    if isinstance(change, IdsChange):
        return [ObjectKey(Port, port_id) for port_id in change.ids]
    return []


async def everything(store: Store, root: WatchKey, *, is_told: bool) -> dict[WatchKey, Change]:
    """Return the first change of each key that a consumer meets who watches all it is led to."""
    watcher = store.watcher(follow if is_told else None)
    watcher.add([root])
    wanted: set[WatchKey] = {root}
    seen: dict[WatchKey, Change] = {}
    async with asyncio.timeout(DEADLINE_S):
        while seen.keys() < wanted:
            for change in await watcher.changes():
                assert change.key not in seen
                seen[change.key] = change
                wanted.update(follow(change))
                watcher.add(list(follow(change)))
    await watcher.close()
    return seen


class TestReadingAhead:
    async def test_the_answers_are_the_same(self, store: Store) -> None:
        blue = bridge()
        ports = [bridge_port(blue) for _ in range(20)]
        await store.transact([Create(blue), *(Create(one) for one in ports)])
        root = ObjectKey(Bridge, blue.id)
        told = await everything(store, root, is_told=True)
        assert told == await everything(store, root, is_told=False)
        assert len(told) == 22

    async def test_what_nobody_adds_is_never_reported(self, store: Store, other: Store) -> None:
        blue, green = bridge("blue"), bridge("green")
        port = bridge_port(blue)
        await store.transact([Create(blue), Create(green), Create(port)])
        watcher = store.watcher(follow)
        watcher.add([ObjectKey(Bridge, blue.id), ObjectKey(Bridge, green.id)])
        await changes_until(watcher, lambda seen: len(seen) == 2)
        await other.transact([Update(msgspec.structs.replace(port, vlan_id=7))])
        await other.transact([Update(msgspec.structs.replace(green, name="last"))])
        seen = await changes_until(watcher, bool)
        assert [change.key for change in seen] == [ObjectKey(Bridge, green.id)]

    async def test_a_change_before_the_key_is_added_is_not_missed(
        self, store: Store, other: Store
    ) -> None:
        blue = bridge()
        port = bridge_port(blue)
        await store.transact([Create(blue), Create(port)])
        for vlan_id in range(1, 40):
            watcher = store.watcher(follow)
            watcher.add([ObjectKey(Bridge, blue.id)])
            reading = asyncio.ensure_future(watcher.changes())
            for _ in range(vlan_id % 5):
                await asyncio.sleep(0)
            await other.transact([Update(msgspec.structs.replace(port, vlan_id=vlan_id))])
            await reading
            watcher.add([ObjectKey(Port, port.id)])
            await changes_until(watcher, lambda seen, last=vlan_id: _vlans(seen)[-1:] == [last])
            await watcher.close()

    async def test_what_is_seen_of_an_object_never_goes_back(
        self, store: Store, other: Store
    ) -> None:
        blue = bridge()
        port = bridge_port(blue)
        await store.transact([Create(blue), Create(port)])
        root, key = ObjectKey(Bridge, blue.id), ObjectKey(Port, port.id)
        watcher = store.watcher(follow)
        vlans: list[int] = []

        async def write() -> None:
            for number in range(1, 101):
                changed = msgspec.structs.replace(port, vlan_id=number)
                await other.transact([Update(changed), Update(blue)])

        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
            group.create_task(write())
            while vlans[-1:] != [100]:
                watcher.remove([root, key])
                watcher.add([root])
                await next_changes(watcher)
                watcher.add([key])
                while not (found := _vlans(await next_changes(watcher))):
                    pass
                vlans += found
        assert vlans == sorted(vlans)

    async def test_a_key_that_went_is_reported_gone(self, store: Store, other: Store) -> None:
        blue = bridge()
        port = bridge_port(blue)
        await store.transact([Create(blue), Create(port)])
        watcher = store.watcher(follow)
        watcher.add([ObjectKey(Bridge, blue.id)])
        await next_changes(watcher)
        await other.transact([Delete(Port, port.id)])
        key = ObjectKey(Port, port.id)
        watcher.add([key])
        await changes_until(watcher, lambda seen: seen[-1:] == [ObjectChange(key, None)])


def _vlans(changes: Sequence[Change]) -> list[int]:
    return [
        change.current.value.vlan_id
        for change in changes
        if isinstance(change, ObjectChange)
        and change.current is not None
        and isinstance(change.current.value, Port)
    ]
