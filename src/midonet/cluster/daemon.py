"""What a control node does beside the REST API: its services, each under leadership."""

from __future__ import annotations

from midonet.cluster.collector import collect
from midonet.cluster.leadership import lead
from midonet.cluster.settings import ClusterSettings
from midonet.nsdb.store import Store
from midonet.runtime.clock import Clock
from midonet.runtime.supervisor import Supervisor


def start_services(
    supervisor: Supervisor, store: Store, clock: Clock, settings: ClusterSettings
) -> None:
    """Start the services as tasks of `supervisor`."""

    async def collection() -> None:
        await lead(store, clock, lambda: collect(store, clock, settings.collect_interval_s))

    supervisor.start("collector", collection)
