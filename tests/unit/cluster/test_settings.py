"""What a control node's configuration says for all hosts goes into the store."""

from __future__ import annotations

from midonet.cluster.daemon import publish_settings
from midonet.cluster.settings import ClusterSettings
from midonet.nsdb.memory import MemoryStore
from midonet.nsdb.settings import cluster_settings
from midonet.runtime.clock import ManualClock


async def test_ageing_time_is_stored_for_all_hosts_and_kept_when_nothing_is_said() -> None:
    store = MemoryStore()
    await store.open()
    seed = (await cluster_settings(store)).hash_seed
    await publish_settings(store, ManualClock(), ClusterSettings(nsdb="", mac_ageing_s=77))
    await publish_settings(store, ManualClock(), ClusterSettings(nsdb=""))
    stored = await cluster_settings(store)
    assert (stored.mac_ageing_s, stored.hash_seed) == (77, seed)
    await store.close()
