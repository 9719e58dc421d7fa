"""What the demo shows of a tenant's services, over IPv4 and IPv6."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from midonet.demo.checks import Check, check_no_answer, check_ping, check_seen_as, ping, program
from midonet.demo.lab import Lab, VirtualMachine
from midonet.demo.leases import has_client, obtain_lease
from midonet.demo.namespaces import CommandError
from midonet.demo.processes import wait_until
from midonet.demo.services import (
    BEGINS,
    OUTSIDE,
    OUTSIDE6,
    REPLIES_ONLY,
    SNAT,
    SNAT6,
    Outside,
    Services,
    vlan_interfaces,
)
from midonet.demo.topology import Tenant, VirtualNetworks

_FLOATING = {"10.0.1.13": "198.51.100.13", "fd00:0:1::13": "2001:db8:0:a::13"}
_SIX = ("fd00:0:1::13", "fd00:0:1::11")
_VIPS = {
    "198.51.100.80": ("10.0.1.12", "10.0.1.13"),
    "2001:db8:0:a::80": ("fd00:0:1::12", "fd00:0:1::13"),
}
_BALANCED_PORT, _CONNECTIONS = 5004, 40
_LEASED, _LEASED_MAC, _MADE = "10.0.1.50", "02:00:00:00:05:05", "fd00:0:1::ff:fe00:505"


@dataclass(slots=True)
class ServiceScene:
    """red1 goes out by the shared address, red3 has a floating one; `leased` has no address yet,
    `guest` is on a trunk of both segments."""

    lab: Lab
    networks: VirtualNetworks
    tenant: Tenant
    services: Services
    outside: Outside
    leased: VirtualMachine
    guest: VirtualMachine

    def vm(self, name: str) -> VirtualMachine:
        """Return a machine by name."""
        return self.lab.machines[name]


def add_services(lab: Lab, networks: VirtualNetworks, tenant: Tenant) -> ServiceScene:
    """Add an outside, a trunk and a machine without address to a tenant, three ports in all."""
    first, second, third = lab.hosts
    one = tenant.segments[1]
    services = Services(lab, networks, tenant)
    outside = services.plug_outside("outside", third, "02:00:00:00:09:09")
    services.translate(outside, _FLOATING)
    services.balance(_VIPS, _BALANCED_PORT)
    leased = lab.plug("leased", second, mac=_LEASED_MAC, addresses=[], gateways=[])
    leased.namespace.sysctl("net.ipv6.conf.eth0.accept_ra", 2)
    leased.namespace.sysctl("net.ipv6.conf.eth0.addr_gen_mode", 0)
    services.lease(one, _LEASED_MAC, _LEASED)
    services.advertise(one)
    networks.bind(second, one, leased.tap)
    guest = lab.plug("guest", first, mac="02:00:00:00:08:08", addresses=[], gateways=[])
    services.trunk(first, guest.tap)
    return ServiceScene(lab, networks, tenant, services, outside, leased, guest)


def service_checks(scene: ServiceScene) -> Iterator[Callable[[], Check]]:
    """Yield the checks in order."""
    red1, red3, outside = scene.vm("red1"), scene.vm("red3"), scene.outside.machine
    yield lambda: _check_lease(scene)
    yield lambda: _check_made_address(scene)
    for ip, target, shared in (("", OUTSIDE, SNAT), ("6", OUTSIDE6, SNAT6)):
        yield lambda ip=ip, target=target, shared=shared: check_seen_as(  # type: ignore[misc]
            f"SNAT{ip and ' IPv6'} to an outside host and back", red1, outside, target, shared
        )
        yield lambda ip=ip, target=target: check_ping(  # type: ignore[misc]
            f"ping{ip} through SNAT", red1, target
        )
    for own, public in _FLOATING.items():
        version, target = ("IPv6", OUTSIDE6) if ":" in own else ("IPv4", OUTSIDE)
        yield lambda public=public, version=version: check_ping(  # type: ignore[misc]
            f"floating {version} address, from outside", outside, public
        )
        yield lambda public=public, version=version, target=target: check_seen_as(  # type: ignore[misc]
            f"floating {version} address, to outside", red3, outside, target, public
        )
    for version, own, other in (("IPv4", "10.0.1.13", "10.0.1.11"), ("IPv6", *_SIX)):
        yield lambda version=version, own=own, other=other: _check_group(  # type: ignore[misc]
            scene, version, own, other
        )
    for version, vip in zip(("IPv4", "IPv6"), _VIPS, strict=True):
        yield lambda version=version, vip=vip: _check_balanced(  # type: ignore[misc]
            f"balanced VIP, {version}", scene, vip
        )
    yield lambda: _check_trunk(scene)


def _check_lease(scene: ServiceScene) -> Check:
    name = "DHCP lease"
    if not has_client():
        return Check(name, True, detail="not checked: BusyBox (udhcpc) is not installed")
    try:
        obtain_lease(scene.leased, scene.lab.options.directory)
    except CommandError as error:
        return Check(name, False, detail=str(error))
    if _LEASED not in scene.leased.namespace.addresses("eth0"):
        return Check(name, False, detail="another address than the one leased")
    return check_ping(f"{name}: {_LEASED}", scene.leased, "10.0.1.11")


def _check_made_address(scene: ServiceScene) -> Check:
    namespace = scene.leased.namespace
    wait_until(
        lambda: _MADE in namespace.addresses("eth0"), what="an address by SLAAC", timeout_s=30
    )
    return check_ping(f"SLAAC: {_MADE}", scene.leased, "fd00:0:1::11")


def _check_group(scene: ServiceScene, version: str, own: str, other: str) -> Check:
    """Blocked from outside the group, answered when it began itself."""
    red1, red3 = scene.vm("red1"), scene.vm("red3")
    name = f"security group blocks and lets replies pass, {version}"
    port = scene.networks.port_of(red3)
    both = {"sent": (BEGINS, {"type": "accept"}), "received": REPLIES_ONLY}
    with scene.services.filters(port, **both):
        wait_until(
            lambda: ping(red1, own, count=1, wait_s=0.5).received == 0,
            what="the group in force",
            timeout_s=30,
        )
        blocked = check_no_answer(name, red1, own)
        passed = check_ping(name, red3, other)
    return Check(name, blocked.ok and passed.ok, detail=f"{blocked.detail}; {passed.detail}")


def _check_balanced(name: str, scene: ServiceScene, vip: str) -> Check:
    """Every connection is answered, and each member answers some."""
    client, members = scene.vm("red4"), [scene.vm("red2"), scene.vm("red3")]
    with ExitStack() as stack:
        for member in members:
            stack.enter_context(
                program(member.namespace, "identify", str(_BALANCED_PORT), member.name)
            )
        poll = [vip, str(_BALANCED_PORT), str(_CONNECTIONS)]
        try:
            shown = client.namespace.run(
                *(sys.executable, "-m", "midonet.demo.ends", "poll", *poll), timeout_s=120
            )
        except CommandError as error:
            return Check(name, False, detail=str(error))
    counts: dict[str, int] = json.loads(shown)
    ok = set(counts) == {member.name for member in members} and sum(counts.values()) == _CONNECTIONS
    said = ", ".join(f"{who} {count}" for who, count in sorted(counts.items()))
    return Check(name, ok, sum(counts.values()), "connections", f"{client.name} to {vip}: {said}")


def _check_trunk(scene: ServiceScene) -> Check:
    """Each VLAN leads to its segment, and to no other."""
    name = "VLAN trunk: each VLAN its own segment"
    segments = tuple(scene.tenant.segments.values())
    with vlan_interfaces(scene.guest, segments, 60):
        reached = [
            check_ping(name, scene.guest, target)
            for target in ("10.0.1.13", "10.0.2.14", *_SIX[:1], "fd00:0:2::14")
        ]
        wrong = ping(scene.guest, "10.0.1.13", count=2, wait_s=1, interface="vlan20")
    detail = "; ".join(each.detail for each in reached)
    ok = all(each.ok for each in reached) and wrong.received == 0
    return Check(name, ok, detail=f"{detail}; 10.0.1.13 by the other VLAN: {wrong.received}")
