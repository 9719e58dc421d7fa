"""Leases, stateless configuration and addresses from router advertisements, with real clients.

The machines are on two hosts; the bridge's DHCP, DHCPv6 and router advertisements are set through
REST. Clients: udhcpc, dhclient, and the kernel itself for what it does alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from midonet.demo.checks import ping
from midonet.demo.lab import Lab, LabHost, VirtualMachine
from midonet.demo.topology import Tenant
from midonet.model.hosts import TunnelKind
from midonet.model.schema_chains import ChainResource
from midonet.model.schema_dhcp import (
    DhcpHostResource,
    DhcpOptionResource,
    DhcpRouteResource,
    DhcpSubnetResource,
    DhcpV6HostResource,
    DhcpV6SubnetResource,
)
from midonet.model.schema_ports import PortResource
from midonet.model.schema_rules import RuleResource
from tests.netns.labs import Network, answers, lab, own_mac, require_pings, until
from tests.netns.traffic_lab import ONE, SIX_ONE, SIX_TWO, TWO

pytestmark = pytest.mark.timeout(400)

OVERLAY_MTU = 1450
SCRIPT = """#!/bin/sh
# Does what a distribution's script does, and writes down what it was told.
env > "${TOLD:?}.part"; echo "reason=${reason:-$1}" >> "$TOLD.part"
case "${reason:-$1}" in
bound|renew)
  ip address replace "$ip/$mask" dev "$interface"
  [ -z "$mtu" ] || ip link set dev "$interface" mtu "$mtu"
  [ -z "$router" ] || ip route replace default via "$router" ;;
BOUND|REBOOT|RENEW)
  ip address replace "$new_ip_address/$new_subnet_mask" dev "$interface" ;;
BOUND6|REBIND6|RENEW6)
  [ -z "$new_ip6_address" ] || ip address replace "$new_ip6_address/64" dev "$interface" ;;
*)
  [ -n "$new_dhcp6_name_servers" ] || exit 0 ;;
esac
mv "$TOLD.part" "$TOLD"
"""


@dataclass(slots=True)
class Leasing:
    """A lab of two hosts, and what its first bridge serves."""

    lab: Lab
    network: Network
    tenant: Tenant
    subnet: DhcpSubnetResource
    subnet6: DhcpV6SubnetResource
    directory: Path

    def plug(self, name: str, host: LabHost, number: int, segment: int = 1) -> VirtualMachine:
        """Make a machine that knows nothing yet, with its port."""
        machine = self.lab.plug(
            name, host, mac=f"02:00:00:00:0d:{number:02x}", addresses=[], gateways=[]
        )
        machine.namespace.ip("link set eth0 mtu 1500")
        self.network.ports[name] = self.network.bind(
            host, self.tenant.segments[segment], machine.tap
        )
        self.network.wait_active(name)
        return machine

    def router_port(self) -> PortResource:
        """Return the router port of the first bridge as it is."""
        port = self.tenant.segments[1].router_port
        return self.network.api.get(PortResource, str(port.id))

    def advertise(self, **properties: object) -> None:
        """Change what the router port of the first bridge advertises."""
        self.network.api.update(msgspec.structs.replace(self.router_port(), **properties))

    def script(self) -> str:
        """Return the path of the clients' script."""
        path = self.directory / "configure"
        if not path.exists():
            path.write_text(SCRIPT)
            path.chmod(0o755)
        return str(path)


@pytest.fixture(scope="module")
def leasing(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Leasing]:
    directory = tmp_path_factory.mktemp("dhcp")
    with lab(f"{prefix}d", directory) as made:
        network = Network(made)
        network.use_zone(TunnelKind.VXLAN)
        tenant = network.make_tenant("red")
        # A machine with addresses of its own on the other bridge, at the other host.
        network.plug("far", made.hosts[1], tenant.segments[2], 14)
        network.wait_active("far")
        bridge = tenant.segments[1].bridge
        subnet = network.api.create(
            DhcpSubnetResource(
                network=f"{ONE}0", length=24, gateway=f"{ONE}1",
                dns_addresses=("192.0.2.53", "192.0.2.54"),
                routes=(DhcpRouteResource(destination_prefix="192.0.2.0", destination_length=24,
                                          gateway=f"{ONE}9"),),
            ),
            parent=bridge,
        )  # fmt: skip
        subnet6 = network.api.create(
            DhcpV6SubnetResource(
                network=SIX_ONE, length=64, dns_addresses=("2001:db8::53",),
                domains=("example.org",),
            ),
            parent=bridge,
        )  # fmt: skip
        try:
            yield Leasing(made, network, tenant, subnet, subnet6, directory)
        finally:
            network.close()


def enter(leasing: Leasing, machine: VirtualMachine, number: int, **more: object) -> None:
    """Give a machine an entry in both versions."""
    mac = own_mac(machine)
    api = leasing.network.api
    api.create(
        DhcpHostResource(mac=mac, address=f"{ONE}{number}", **more),  # type: ignore[arg-type]
        parent=leasing.subnet,
    )
    api.create(
        DhcpV6HostResource(client_id=mac, address=f"{SIX_ONE}{number}"), parent=leasing.subnet6
    )


def require(program: str) -> str:
    """Return where a program is; skip the test where it is not installed."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


@contextmanager
def client(
    leasing: Leasing, machine: VirtualMachine, *command: str
) -> Iterator[tuple[dict[str, str], str]]:
    """Run a client until it has been told something; yield that and what it printed so far."""
    told = leasing.directory / f"{machine.name}.told"
    told.unlink(missing_ok=True)
    printed = leasing.directory / f"{machine.name}.printed"
    environment = {**os.environ, "TOLD": str(told)}
    with (
        printed.open("w") as output,
        subprocess.Popen(
            machine.namespace.enter(command), env=environment, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT,
        ) as process,
    ):  # fmt: skip
        try:
            until(told.exists, f"{command[0]} on {machine.name} told something")
            lines = (line.partition("=") for line in told.read_text().splitlines())
            yield {name: value for name, _, value in lines}, printed.read_text()
        finally:
            process.terminate()


def udhcpc(leasing: Leasing, *more: str) -> tuple[str, ...]:
    busybox = require("busybox")
    options = ("-O", "mtu", "-O", "staticroutes", "-O", "lease", *more)
    return (busybox, "udhcpc", "-f", "-i", "eth0", "-s", leasing.script(), *options)


def dhclient(leasing: Leasing, machine: VirtualMachine, *more: str) -> tuple[str, ...]:
    files = leasing.directory / machine.name
    leases = f"{files}.leases"
    Path(leases).touch()
    return (
        require("dhclient"), "-d", "-v", "-cf", "/dev/null", "-sf", leasing.script(),
        "-e", f"TOLD={files}.told",
        "-lf", leases, "-pf", f"{files}.pid", *more, "eth0",
    )  # fmt: skip


def test_a_lease_of_ipv4_carries_across_hosts(leasing: Leasing) -> None:
    machine = leasing.plug("lease4", leasing.lab.hosts[0], 41)
    enter(leasing, machine, 41)
    with client(leasing, machine, *udhcpc(leasing)) as (told, _):
        assert told["ip"] == f"{ONE}41"
        assert told["mask"] == "24"
        assert told["router"] == f"{ONE}1"
        assert told["dns"] == "192.0.2.53 192.0.2.54"
        assert told["mtu"] == str(OVERLAY_MTU)
        assert told["lease"] == "86400"
        assert told["serverid"] == f"{ONE}1"
        assert told["staticroutes"].split() == [
            "192.0.2.0/24", f"{ONE}9", "0.0.0.0/0", f"{ONE}1"
        ]  # fmt: skip
        answers(machine, f"{TWO}14")
        require_pings(machine, f"{TWO}14")
        # What the client was told is what passes: whole and no more.
        size = OVERLAY_MTU - 28
        sent = machine.namespace.run(
            "ping", "-n", "-c", "2", "-M", "do", "-s", str(size), f"{TWO}14"
        )
        assert "2 received" in sent


def test_a_client_that_remembers_another_address_is_refused_it(leasing: Leasing) -> None:
    machine = leasing.plug("nak", leasing.lab.hosts[1], 42)
    enter(leasing, machine, 42)
    command = dhclient(leasing, machine, "-4")
    remembered = f"""lease {{
  interface "eth0";
  fixed-address {ONE}99;
  option subnet-mask 255.255.255.0;
  option dhcp-server-identifier {ONE}1;
  renew 4 2037/01/01 00:00:00;
  rebind 4 2037/01/01 00:00:00;
  expire 4 2037/01/01 00:00:00;
}}
"""
    (leasing.directory / "nak.leases").write_text(remembered)
    with client(leasing, machine, *command) as (told, printed):
        assert "DHCPNAK" in printed
        assert told["new_ip_address"] == f"{ONE}42"
        assert told["new_domain_name_servers"] == "192.0.2.53 192.0.2.54"


def test_extra_options_reach_their_client(leasing: Leasing) -> None:
    machine = leasing.plug("extra", leasing.lab.hosts[0], 43)
    options = (
        DhcpOptionResource(name="domain-name", value="example.net"),
        DhcpOptionResource(name="ntp-server", value="192.0.2.123"),
        DhcpOptionResource(name="bootfile-name", value="pxelinux.0"),
    )
    enter(leasing, machine, 43, options=options)
    command = udhcpc(leasing, "-O", "ntpsrv", "-O", "bootfile")
    with client(leasing, machine, *command) as (told, _):
        assert told["domain"] == "example.net"
        assert told["ntpsrv"] == "192.0.2.123"


def test_a_lease_passes_a_port_that_lets_nothing_else_pass(leasing: Leasing) -> None:
    api = leasing.network.api
    machine = leasing.plug("closed", leasing.lab.hosts[0], 44)
    enter(leasing, machine, 44)
    chain = api.create(ChainResource(name="nothing"))
    api.create(RuleResource(kind="drop"), parent=chain)
    port = api.get(PortResource, str(leasing.network.ports["closed"].id))
    api.update(
        msgspec.structs.replace(port, inbound_filter_id=chain.id, outbound_filter_id=chain.id)
    )
    with client(leasing, machine, *udhcpc(leasing)) as (told, _):
        assert told["ip"] == f"{ONE}44"
        assert ping(machine, f"{ONE}1", count=2, wait_s=1).received == 0


def test_a_lease_of_ipv6_carries_across_hosts(leasing: Leasing) -> None:
    machine = leasing.plug("lease6", leasing.lab.hosts[1], 45)
    enter(leasing, machine, 45)
    with client(leasing, machine, *dhclient(leasing, machine, "-6")) as (told, _):
        assert told["new_ip6_address"] == f"{SIX_ONE}45"
        assert told["new_dhcp6_name_servers"] == "2001:db8::53"
        assert told["new_dhcp6_domain_search"].rstrip(".") == "example.org"
        machine.namespace.ip(f"route add default via {SIX_ONE}1")
        answers(machine, f"{SIX_TWO}14")
        require_pings(machine, f"{SIX_TWO}14")


def test_a_machine_without_an_entry_is_told_the_rest_by_dhcpv6(leasing: Leasing) -> None:
    machine = leasing.plug("stateless", leasing.lab.hosts[0], 46)
    with client(leasing, machine, *dhclient(leasing, machine, "-6", "-S")) as (told, _):
        assert told["new_dhcp6_name_servers"] == "2001:db8::53"
        assert "new_ip6_address" not in told


@pytest.fixture
def advertised(leasing: Leasing) -> Iterator[Leasing]:
    """The router of the first bridge advertises."""
    leasing.advertise(ra_enabled=True)
    yield leasing
    leasing.advertise(ra_enabled=False, ra_interval_s=600)


def listen(machine: VirtualMachine, *, solicitations: int = 3) -> None:
    """Let a machine's kernel configure itself, from the moment its interface comes up."""
    machine.namespace.ip("link set eth0 down")
    machine.namespace.sysctl("net.ipv6.conf.eth0.accept_ra", 1)
    machine.namespace.sysctl("net.ipv6.conf.eth0.router_solicitations", solicitations)
    machine.namespace.ip("link set eth0 up")


def own_address(machine: VirtualMachine) -> str | None:
    """Return the address that a machine made of the subnet."""
    found = [one for one in machine.namespace.addresses("eth0") if one.startswith(SIX_ONE)]
    return found[0] if found else None


def default_routes(machine: VirtualMachine) -> str:
    return machine.namespace.run("ip", "-6", "route", "show", "default")


def test_a_machine_makes_its_address_of_what_it_solicits(advertised: Leasing) -> None:
    for index in (0, 1):
        machine = advertised.plug(f"slaac{index}", advertised.lab.hosts[index], 50 + index)
        listen(machine)
        until(lambda machine=machine: own_address(machine), f"an address of {machine.name}")
        until(lambda machine=machine: "proto ra" in default_routes(machine), "a default route")
        assert " via fe80::" in default_routes(machine)
        shown = machine.namespace.run("sysctl", "-n", "net.ipv6.conf.eth0.mtu")
        assert shown.strip() == str(OVERLAY_MTU)
        answers(machine, f"{SIX_TWO}14")
        require_pings(machine, f"{SIX_TWO}14")
    first, second = (advertised.lab.machines[f"slaac{index}"] for index in (0, 1))
    address = own_address(second)
    assert address is not None
    require_pings(first, address)


def test_a_machine_that_only_listens_hears_the_router_until_it_ends(advertised: Leasing) -> None:
    machine = advertised.plug("listener", advertised.lab.hosts[1], 52)
    listen(machine, solicitations=0)
    advertised.advertise(ra_interval_s=4, ra_lifetime_s=9000)
    until(lambda: own_address(machine), "an address")
    until(lambda: "proto ra" in default_routes(machine), "a default route")
    advertised.advertise(ra_enabled=False)
    until(lambda: "proto ra" not in default_routes(machine), "no default route")
