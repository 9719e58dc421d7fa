"""The product between two ends: agents on two wired hosts, or one host, topology through REST."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path as FilePath

from bench.baselines import MTU, Path
from midonet.demo.checks import ping
from midonet.demo.lab import Lab, LabOptions, VirtualMachine
from midonet.demo.processes import wait_until
from midonet.demo.topology import Tenant, VirtualNetworks
from midonet.errors import UnavailableError
from midonet.model.hosts import TunnelKind


@dataclass(frozen=True, slots=True)
class VirtualPaths:
    """The lab, and a path for each of its scenarios."""

    lab: Lab
    networks: VirtualNetworks
    tenant: Tenant
    paths: dict[str, Path]


@contextmanager
def virtual(prefix: str, directory: FilePath, kind: TunnelKind) -> Iterator[VirtualPaths]:
    """Two hosts, one tenant: paths `local` (one bridge, one host), `remote` (one bridge, two
    hosts) and `routed` (bridge, router, bridge, two hosts)."""
    lab = Lab(LabOptions(prefix=prefix, directory=directory, hosts=2, is_wired=True))
    lab.clean()
    networks: VirtualNetworks | None = None
    try:
        lab.build()
        networks = VirtualNetworks(lab)
        networks.make_tunnel_zone(kind)
        tenant = networks.make_tenant("bench")
        left, right = lab.hosts
        one, two = tenant.segments[1], tenant.segments[2]
        client = networks.plug("c", left, one, 11)
        near = networks.plug("n", left, one, 12)
        far = networks.plug("f", right, one, 13)
        routed = networks.plug("r", right, two, 14)
        for machine in (client, near, far, routed):
            machine.namespace.ip(f"link set dev eth0 mtu {MTU}")
        wait_until(
            lambda: active(networks) >= 4, what="bench ports active", timeout_s=30, interval_s=0.1
        )
        paths = {
            "local": _path("midonet-local", client, near, "10.0.1.12"),
            "remote": _path(f"midonet-{kind}", client, far, "10.0.1.13"),
            "routed": _path(f"midonet-{kind}-routed", client, routed, "10.0.2.14"),
        }
        yield VirtualPaths(lab, networks, tenant, paths)
    finally:
        if networks is not None:
            networks.close()
        lab.clean()


def active(networks: VirtualNetworks) -> int:
    """Return how many ports are active."""
    return networks.active_ports()


def _path(name: str, client: VirtualMachine, server: VirtualMachine, target: str) -> Path:
    if ping(client, target, count=5).received == 0:
        raise UnavailableError(f"{name}: no answer from {target}")
    return Path(name, client.namespace, server.namespace, target)
