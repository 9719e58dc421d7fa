"""What a control node does beside the REST API: its services, each under leadership."""

from __future__ import annotations

from midonet.cluster.collector import collect
from midonet.cluster.leadership import lead
from midonet.cluster.settings import ClusterSettings
from midonet.errors import UnavailableError
from midonet.nsdb.settings import set_mac_ageing
from midonet.nsdb.store import Store
from midonet.runtime.clock import Clock
from midonet.runtime.supervisor import Supervisor

_RETRY_S = 1.0


def start_services(
    supervisor: Supervisor, store: Store, clock: Clock, settings: ClusterSettings
) -> None:
    """Start the services as tasks of `supervisor`."""

    async def collection() -> None:
        await lead(store, clock, lambda: collect(store, clock, settings.collect_interval_s))

    async def publication() -> None:
        await publish_settings(store, clock, settings)

    supervisor.start("collector", collection)
    supervisor.start("settings", publication)


async def publish_settings(store: Store, clock: Clock, settings: ClusterSettings) -> None:
    """Put what is configured here for all hosts into the store, as soon as it can be reached."""
    while settings.mac_ageing_s:
        try:
            await set_mac_ageing(store, settings.mac_ageing_s)
        except UnavailableError:
            await clock.sleep(_RETRY_S)
        else:
            return
