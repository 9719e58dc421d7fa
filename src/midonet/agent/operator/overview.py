"""What an agent tells of itself: the answer to `GET /state` of the control socket."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from midonet.agent.datapath.protocol import Datapath
from midonet.agent.decisions.decisions import Decisions
from midonet.agent.flow_exchange.flow_exchange import FlowExchange
from midonet.agent.host.host_keeper import HostKeeper
from midonet.agent.ports.binder import PortBinder
from midonet.agent.soft_state.outbox import Outbox
from midonet.agent.underlay.host_network import HostNetwork
from midonet.model.hosts import Host
from midonet.runtime.logging import lost_log_lines


@dataclass(frozen=True, slots=True)
class Overview:
    """Looks into the parts of an agent. network: None without paths to peers of its own.
    outbox: writes of soft state that the store has not taken yet."""

    host: Host
    datapath: Datapath
    keeper: HostKeeper
    binder: PortBinder
    decisions: Decisions
    network: HostNetwork | None
    outbox: Outbox
    exchange: FlowExchange

    def overview(self) -> dict[str, Any]:
        """Return host, store, ports, peers, paths and counters."""
        counters = self.decisions.counters
        tunnels = self.decisions.view.tunnels.values()
        return {
            "hostId": str(self.host.id),
            "hostName": self.host.name,
            "store": "connected" if self.keeper.is_live else "away",
            "datapath": self.datapath.capabilities.name,
            "ports": [
                {
                    "id": str(port.port_id),
                    "interface": port.interface_name,
                    "attached": port.is_attached,
                    "active": port.is_active,
                    "tunnelKey": port.tunnel_key,
                }
                for port in self.binder.ports.values()
            ],
            "peers": sorted({str(route.remote) for route in tunnels}),
            "paths": [] if self.network is None else self.network.overview(),
            "counters": {
                "upcalls": counters.upcalls,
                "simulations": counters.simulations,
                "duplicates": counters.duplicates,
                "rejudged": counters.rejudged,
                "slow_path": counters.slow_path,
                "programs": len(self.decisions.programs.table),
                "refused": self.decisions.programs.refused,
                "parked": len(self.decisions.parking),
                "queued": len(self.decisions.queue),
                "unwritten": len(self.outbox),
                **self._learning_counters(),
                **self._connection_counters(),
                "log_lines_lost": lost_log_lines(),
            },
        }

    def _connection_counters(self) -> dict[str, int]:
        counters = self.exchange.engine.counters
        told = {f"state_{name}": value for name, value in asdict(counters).items()}
        return {
            "connections": len(self.decisions.connections.table),
            "connections_refused": self.decisions.connections.refused,
            "state_refused": self.exchange.refused,
            **told,
        }

    def _learning_counters(self) -> dict[str, int]:
        macs = self.decisions.learning.holdings
        neighbours = self.decisions.soft_state.neighbours_held
        written = self.outbox.counters
        return {
            "macs": len(macs),
            "macs_evicted": macs.evictions.total(),
            "neighbours": len(neighbours),
            "neighbours_evicted": neighbours.evictions.total(),
            "writes_refused": written.refused,
            "writes_withdrawn": written.withdrawn,
            "write_rate_waits": written.rate_waits,
            "state_entries_malformed": self.decisions.soft_state.malformed,
        }
