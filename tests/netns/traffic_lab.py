"""The lab of the traffic tests: three hosts, two tenants, both ways to attach programs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from midonet.demo.lab import Lab, VirtualMachine
from midonet.demo.topology import Tenant
from midonet.model.hosts import TunnelKind
from tests.netns.labs import Network, lab

ONE, TWO = "10.0.1.", "10.0.2."
SIX_ONE, SIX_TWO = "fd00:0:1::", "fd00:0:2::"

LOCAL, REMOTE, ROUTED, ROUTED_LOCAL = "bridge, local", "bridge, remote", "routed", "routed, local"

TARGETS = {
    LOCAL: (f"{ONE}12", f"{SIX_ONE}12"),
    REMOTE: (f"{ONE}13", f"{SIX_ONE}13"),
    ROUTED: (f"{TWO}14", f"{SIX_TWO}14"),
    ROUTED_LOCAL: (f"{TWO}16", f"{SIX_TWO}16"),
}
"""Addresses as `red1` sees them."""

UNDERLAYS = [
    (kind, is_ipv6) for kind in (TunnelKind.VXLAN, TunnelKind.GRE) for is_ipv6 in (False, True)
]


@dataclass(slots=True)
class Traffic:
    """A built lab.

    h1: red1, red2 (bridge one), red6 (bridge two), blue1, blue2.  h2: red3.  h3: red4 (bridge
    two), blue5.
    """

    lab: Lab
    network: Network
    red: Tenant
    blue: Tenant

    def vm(self, name: str) -> VirtualMachine:
        """Return a machine by name."""
        return self.lab.machines[name]


@contextmanager
def traffic_lab(
    prefix: str, directory: Path, agent_arguments: tuple[str, ...] = ()
) -> Iterator[Traffic]:
    """Build the lab; return when every port is active."""
    with lab(prefix, directory, hosts=3, agent_arguments=agent_arguments) as made:
        network = Network(made)
        network.use_zone(TunnelKind.VXLAN)
        red, blue = network.make_tenant("red"), network.make_tenant("blue")
        first, second, third = made.hosts
        for name, host, segment, number in (
            ("red1", first, red.segments[1], 11),
            ("red2", first, red.segments[1], 12),
            ("red3", second, red.segments[1], 13),
            ("red4", third, red.segments[2], 14),
            ("red6", first, red.segments[2], 16),
            ("blue1", first, blue.segments[1], 11),
            ("blue2", first, blue.segments[1], 12),
            ("blue5", third, blue.segments[1], 15),
        ):
            network.plug(name, host, segment, number)
        network.wait_active()
        try:
            yield Traffic(made, network, red, blue)
        finally:
            network.close()
