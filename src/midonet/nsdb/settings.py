"""Values that all hosts of a deployment must agree on."""

from __future__ import annotations

import secrets

import msgspec

from midonet.errors import ConflictError
from midonet.model.coordination import CLUSTER_SETTINGS_ID, ClusterSettings
from midonet.nsdb.store import Create, Store, Update

_HASH_SEED_BITS = 64


async def cluster_settings(store: Store) -> ClusterSettings:
    """Return the settings, made at random by whichever process asks first.

    Raises UnavailableError, DecodeError.
    """
    found = await store.get(ClusterSettings, CLUSTER_SETTINGS_ID)
    if found is not None:
        return found.value
    settings = ClusterSettings(id=CLUSTER_SETTINGS_ID, hash_seed=secrets.randbits(_HASH_SEED_BITS))
    try:
        await store.transact([Create(settings)])
    except ConflictError:
        # Another process was first; its settings count, and they are never deleted.
        return await cluster_settings(store)
    return settings


async def set_mac_ageing(store: Store, mac_ageing_s: int) -> None:
    """Set how long (s) bridges that say nothing else keep an unused MAC. Hosts follow at once.

    Raises UnavailableError, DecodeError.
    """
    while True:
        await cluster_settings(store)
        found = await store.get(ClusterSettings, CLUSTER_SETTINGS_ID)
        assert found is not None
        wanted = msgspec.structs.replace(found.value, mac_ageing_s=mac_ageing_s)
        if wanted == found.value:
            return
        try:
            await store.transact([Update(wanted, found.version)])
        except ConflictError:
            continue
        return
