"""The demo itself: build, check, tell, take down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from midonet.demo.checks import (
    Check,
    check_carrier,
    check_identity,
    check_no_answer,
    check_ping,
    check_restart,
    check_stream,
    check_traceroute,
    ping,
    seconds_until_answer,
)
from midonet.demo.lab import Lab, VirtualMachine
from midonet.demo.processes import wait_until
from midonet.demo.service_checks import ServiceScene, add_services, service_checks
from midonet.demo.topology import Segment, Tenant, VirtualNetworks
from midonet.errors import MidoNetError
from midonet.model.hosts import TunnelKind


@dataclass(slots=True)
class Scene:
    """Everything the checks look at."""

    lab: Lab
    networks: VirtualNetworks
    red: Tenant
    blue: Tenant
    machines: dict[str, VirtualMachine]
    services: ServiceScene


def build(lab: Lab, say: Callable[[str], None]) -> Scene:
    """Make hosts, topology and VMs; return when every port is active."""
    lab.build()
    networks = VirtualNetworks(lab)
    say("topology: tunnel zone, two tenants with the same addresses")
    networks.make_tunnel_zone(TunnelKind.VXLAN)
    red, blue = networks.make_tenant("red"), networks.make_tenant("blue")
    first, second, third = lab.hosts
    plan = (
        ("red1", first, red.segments[1], 11),
        ("red2", first, red.segments[1], 12),
        ("red3", second, red.segments[1], 13),
        ("red4", third, red.segments[2], 14),
        ("blue1", first, blue.segments[1], 11),
        ("blue2", second, blue.segments[1], 12),
        ("blue5", third, blue.segments[1], 15),
    )
    machines = {}
    for name, host, segment, number in plan:
        say(f"vm {name} on {host.name}: {', '.join(segment.subnet_address(number))}")
        machines[name] = networks.plug(name, host, segment, number)
    say("services of red: outside host, NAT, DHCP, router advertisements, a trunk")
    services = add_services(lab, networks, red)
    wanted = len(plan) + 3
    wait_until(lambda: networks.active_ports() >= wanted, what="ports active", timeout_s=60)
    return Scene(lab, networks, red, blue, machines, services)


def checks(scene: Scene) -> Iterator[Callable[[], Check]]:
    """Yield the checks in order; each is run by calling it."""
    vm = scene.machines
    red1, blue1 = vm["red1"], vm["blue1"]
    one, two = "10.0.1", "10.0.2"
    six_one, six_two = "fd00:0:1::", "fd00:0:2::"
    yield lambda: check_ping("ping within a bridge, one host", red1, f"{one}.12")
    yield lambda: check_ping("ping6 within a bridge, one host", red1, f"{six_one}12")
    yield lambda: check_ping("ping within a bridge, across hosts", red1, f"{one}.13")
    yield lambda: check_ping("ping6 within a bridge, across hosts", red1, f"{six_one}13")
    yield lambda: check_ping("ping across the router", red1, f"{two}.14")
    yield lambda: check_ping("ping6 across the router", red1, f"{six_two}14")
    yield lambda: check_traceroute(
        "traceroute shows the router", red1, f"{two}.14", (f"{one}.1", f"{two}.14")
    )
    yield lambda: check_traceroute(
        "traceroute6 shows the router", red1, f"{six_two}14", (f"{six_one}1", f"{six_two}14")
    )
    yield lambda: check_ping("the other tenant's own address answers it", blue1, f"{one}.15")
    yield lambda: check_no_answer("and does not answer this tenant", red1, f"{one}.15")
    yield lambda: check_identity(
        "one address, two tenants, two machines",
        ((red1, vm["red2"]), (blue1, vm["blue2"])),
        f"{one}.12",
    )
    yield lambda: check_stream("TCP 100 MB intact across hosts", red1, vm["red4"], f"{two}.14", 100)
    yield lambda: check_stream(
        "TCP 100 MB intact across hosts, IPv6", red1, vm["red4"], f"{six_two}14", 100
    )
    yield from service_checks(scene.services)
    yield lambda: check_restart("agent killed and restarted under traffic", red1, f"{two}.14")
    yield lambda: check_replug(scene, red1, f"{two}.14", scene.red.segments[2])
    yield lambda: check_carrier("VXLAN zone", scene.lab.fabric, red1, f"{two}.14", "vxlan")
    yield lambda: check_gre(scene, red1, f"{two}.14")


def check_replug(scene: Scene, source: VirtualMachine, target: str, segment: Segment) -> Check:
    """Unplug a router under traffic and plug it in again: silence, then answers."""
    scene.networks.unlink(segment)
    silent_after = seconds_until_answer(source, target, wanted=False)
    still_silent = ping(source, target, count=2, wait_s=0.5).received == 0
    scene.networks.link(segment)
    answered_after = seconds_until_answer(source, target, wanted=True)
    return Check(
        "router unplugged and replugged live",
        still_silent,
        round(answered_after, 3),
        "s",
        f"silent {silent_after:.2f} s after unplugging, answered {answered_after:.2f} s after"
        " replugging",
    )


def check_gre(scene: Scene, source: VirtualMachine, target: str) -> Check:
    """Move the hosts from the VXLAN zone to a GRE zone: traffic goes on, in GRE."""
    networks = scene.networks
    zones = networks.tunnel_zones()
    networks.make_tunnel_zone(TunnelKind.GRE)
    for zone in zones:
        networks.api.delete(zone)
    return check_carrier("GRE zone", scene.lab.fabric, source, target, "gre")


def run_checks(scene: Scene, report: Callable[[Check], None]) -> list[Check]:
    """Run all checks in order and report each; one that breaks is one that failed."""
    results = []
    for check in checks(scene):
        try:
            result = check()
        except MidoNetError as error:
            result = Check("check could not be carried out", False, None, "", str(error))
        results.append(result)
        report(result)
    return results
