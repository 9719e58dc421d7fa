"""The same traffic where programs are attached by clsact, as on kernels without TCX."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from midonet.agent.datapath.ebpf.syscalls import tcx_programs
from midonet.demo.checks import check_stream, check_traceroute, ping
from midonet.demo.namespaces import Namespace
from midonet.demo.steady_ping import steady_ping
from midonet.model.hosts import TunnelKind
from tests.netns.entering import entered
from tests.netns.labs import answers, require_pings, wait_ready
from tests.netns.traffic_lab import ONE, REMOTE, ROUTED, TARGETS, Traffic, traffic_lab

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def traffic(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traffic]:
    directory = tmp_path_factory.mktemp("clsact")
    with traffic_lab(f"{prefix}c", directory, ("--attach-mode", "clsact")) as made:
        yield made


def has_filter(namespace: Namespace, interface: str) -> bool:
    return "midonet_" in namespace.run("tc", "filter", "show", "dev", interface, "ingress")


def test_programs_are_filters(traffic: Traffic) -> None:
    for host in traffic.lab.hosts:
        machines = [vm for vm in traffic.lab.machines.values() if vm.host is host]
        for interface in ("eth0", *(machine.tap for machine in machines)):
            assert has_filter(host.namespace, interface)
            with entered(host.namespace):
                assert tcx_programs(socket.if_nametoindex(interface)) == []


@pytest.mark.parametrize("way", list(TARGETS))
def test_pings(traffic: Traffic, way: str) -> None:
    for target in TARGETS[way]:
        answers(traffic.vm("red1"), target)
        require_pings(traffic.vm("red1"), target)


def test_smoke(traffic: Traffic) -> None:
    """Router, stream, GRE over IPv6, tenants."""
    red1, red4 = traffic.vm("red1"), traffic.vm("red4")
    target = TARGETS[ROUTED][0]
    answers(red1, target)
    for found in (
        check_traceroute("way", red1, target, (f"{ONE}1", target)),
        check_stream("stream", red1, red4, target, 20),
        check_stream("stream", red1, red4, TARGETS[ROUTED][1], 20),
    ):
        assert found.ok, found.detail
    assert ping(red1, f"{ONE}15", count=2, wait_s=1).received == 0
    traffic.network.use_zone(TunnelKind.GRE, is_ipv6=True)
    answers(red1, target)
    found = check_stream("stream", red1, red4, target, 20)
    assert found.ok, found.detail
    traffic.network.use_zone(TunnelKind.VXLAN)
    answers(red1, target)


def test_no_packet_is_lost_when_the_agent_is_killed(traffic: Traffic) -> None:
    source, target = traffic.vm("red1"), TARGETS[REMOTE][0]
    answers(source, target)
    with steady_ping(source, target) as pinging:
        for host in traffic.lab.hosts[:2]:
            host.agent.kill()
            pinging.wait_answers(100)
            host.agent.start()
            wait_ready(host)
            pinging.wait_answers(100)
        _, lost = pinging.stop()
    assert lost == []
