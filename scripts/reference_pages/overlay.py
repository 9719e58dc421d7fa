"""`docs/reference/overlay.md`: the numbers of the overlay, from the code that uses them."""

from __future__ import annotations

from midonet.agent.datapath.memory.carriers import UDP_UNDERLAY_PORT
from midonet.agent.host.settings import AgentSettings
from midonet.agent.underlay import probe_engine, prober
from midonet.nsdb import locations
from scripts.reference_pages.tables import table


def numbers() -> str:
    """Return ports, key types and times."""
    return table(
        ("what", "value"),
        (
            ("UDP port of VXLAN (option `vxlan_port`)", str(AgentSettings(nsdb="").vxlan_port)),
            ("UDP port of probes", str(prober.PROBE_PORT)),
            ("UDP port between memory datapaths (option `underlay_port`)", str(UDP_UNDERLAY_PORT)),
            ("key type of a port", str(locations.PORT_KEY_TYPE)),
            ("key type of a flood group", str(locations.FLOOD_GROUP_KEY_TYPE)),
            ("rest of a key that was given up", f"{locations.QUARANTINE_S // 3600} h"),
            ("bytes of a probe without padding", str(probe_engine.PROBE_SIZE)),
            ("time between two probes, at least", f"{probe_engine.INTERVAL_S:g} s"),
            ("most probes a second, to all peers together", str(probe_engine.PROBES_PER_S)),
            (
                "a peer is reachable after an answer for",
                f"{probe_engine.REACHABLE_INTERVALS:g} times that time",
            ),
            ("IP packet that every path is held to take", f"{probe_engine.BASE_MTU} bytes"),
            ("unanswered probes until a size is too large", str(probe_engine.MAX_PROBES)),
            ("a found size is confirmed every", f"{probe_engine.CONFIRM_S:g} s"),
            ("a larger size is tried again every", f"{probe_engine.RAISE_S:g} s"),
        ),
    )
