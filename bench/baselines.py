"""What a virtual network is measured against: the same ends, joined by the kernel's own means.

BARE    one veth pair between the two ends
BRIDGE  a Linux bridge on one host
ROUTE   plain kernel routing over two hosts, no overlay, no policy
KREF    Linux bridge + kernel VXLAN over two hosts, tuned as an expert would: bridge netfilter
        off, outer packets not tracked
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from midonet.demo.namespaces import Namespace, run, wire

MTU = 1450
"""Of the ends, in every scenario: room for the outer headers in an underlay of 1500."""


@dataclass(frozen=True, slots=True)
class Path:
    """Two ends that can reach each other. `target` is the server's address."""

    name: str
    client: Namespace
    server: Namespace
    target: str


def _end(prefix: str, name: str) -> Namespace:
    namespace = Namespace(f"{prefix}-{name}")
    namespace.create()
    return namespace


def _address(end: Namespace, *lines: str) -> None:
    end.ip(f"link set eth0 mtu {MTU}", *lines)


@contextmanager
def _namespaces(prefix: str, *names: str) -> Iterator[list[Namespace]]:
    made: list[Namespace] = []
    try:
        for name in names:
            made.append(_end(prefix, name))
        yield made
    finally:
        for namespace in made:
            namespace.delete()


@contextmanager
def bare(prefix: str) -> Iterator[Path]:
    """One veth pair."""
    with _namespaces(prefix, "c", "s") as (client, server):
        wire(client, "eth0", server, "eth0")
        _address(client, "address add 10.0.0.1/24 dev eth0")
        _address(server, "address add 10.0.0.2/24 dev eth0")
        yield Path("bare", client, server, "10.0.0.2")


@contextmanager
def bridge(prefix: str) -> Iterator[Path]:
    """A bridge, its netfilter hooks off."""
    with _namespaces(prefix, "c", "s", "h") as (client, server, host):
        host.ip("link add br0 type bridge stp_state 0 mcast_snooping 0", "link set br0 up")
        _quiet(host)
        for end, port, address in ((client, "p1", "10.0.0.1"), (server, "p2", "10.0.0.2")):
            wire(end, "eth0", host, port)
            host.ip(f"link set dev {port} master br0")
            _address(end, f"address add {address}/24 dev eth0")
        yield Path("bridge", client, server, "10.0.0.2")


@contextmanager
def route(prefix: str) -> Iterator[Path]:
    """Two hosts that route."""
    with _namespaces(prefix, "c", "s", "h1", "h2") as (client, server, left, right):
        wire(left, "eth0", right, "eth0")
        for index, (end, host) in enumerate(((client, left), (server, right)), start=1):
            other = 3 - index
            wire(end, "eth0", host, "p0")
            host.sysctl("net.ipv4.ip_forward", 1)
            host.ip(
                f"address add 10.0.{index}.254/24 dev p0",
                f"address add 172.31.0.{index}/24 dev eth0",
                f"route add 10.0.{other}.0/24 via 172.31.0.{other}",
            )
            _address(
                end,
                f"address add 10.0.{index}.1/24 dev eth0",
                f"route add default via 10.0.{index}.254",
            )
        yield Path("route", client, server, "10.0.2.1")


@contextmanager
def kref(prefix: str) -> Iterator[Path]:
    """Two hosts with bridge and kernel VXLAN, tuned."""
    with _namespaces(prefix, "c", "s", "h1", "h2") as (client, server, left, right):
        wire(left, "eth0", right, "eth0")
        for index, (end, host) in enumerate(((client, left), (server, right)), start=1):
            other = 3 - index
            wire(end, "eth0", host, "p0")
            host.ip(
                f"address add 172.31.0.{index}/24 dev eth0",
                "link add br0 type bridge stp_state 0 mcast_snooping 0",
                f"link add vx0 type vxlan id 42 dstport 4789 local 172.31.0.{index}"
                f" remote 172.31.0.{other}",
                "link set vx0 master br0",
                "link set p0 master br0",
                "link set vx0 up",
                "link set br0 up",
            )
            _quiet(host)
            _untracked(host)
            _address(end, f"address add 10.0.0.{index}/24 dev eth0")
        yield Path("kref", client, server, "10.0.0.2")


def _quiet(host: Namespace) -> None:
    """Turn bridge netfilter off, where the kernel has it."""
    for key in ("iptables", "ip6tables", "arptables"):
        name = f"net.bridge.bridge-nf-call-{key}"
        if host.run("sysctl", "-e", "-n", name).strip():
            host.sysctl(name, 0)


def _untracked(host: Namespace) -> None:
    """Keep connection tracking off the outer packets."""
    rules = """table ip tunnel {
 chain in { type filter hook prerouting priority raw; udp dport 4789 notrack; }
 chain out { type filter hook output priority raw; udp dport 4789 notrack; }
}
"""
    run(host.enter(["nft", "-f", "-"]), stdin=rules)
