"""What all hosts of a deployment agree on."""

from __future__ import annotations

import secrets

from midonet.errors import ConflictError, InternalError
from midonet.model.coordination import CLUSTER_SETTINGS_ID, ClusterSettings
from midonet.nsdb.store import Create, Store


async def deployment_hash_seed(store: Store) -> int:
    """Return the 64-bit key of the flow hash; the first process of a deployment chooses it."""
    for _ in range(2):
        found = await store.get(ClusterSettings, CLUSTER_SETTINGS_ID)
        if found is not None:
            return found.value.hash_seed
        chosen = ClusterSettings(id=CLUSTER_SETTINGS_ID, hash_seed=secrets.randbits(64))
        try:
            await store.transact([Create(chosen)])
        except ConflictError:
            continue
        return chosen.hash_seed
    raise InternalError("the cluster settings exist and cannot be read")
