"""Packets simulated per second on one core.

Prints one JSON row a line: {"name", "value", "unit"}. Run: python -m bench.bench_simulation
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

from midonet.agent.flow_state.connection_table import ConnectionTable
from midonet.agent.flow_state.effects import ConfirmConnection
from midonet.agent.simulation.result import Drop, Forward, SimulationResult
from midonet.agent.simulation.simulate import simulate
from midonet.model.chains import PortRange
from midonet.packets.addresses import parse_ip, parse_mac
from midonet.packets.build import Envelope, udp_frame
from midonet.packets.frame import parse_frame
from tests.worlds import NOW, World, rule

SECONDS = 2.5
ROUNDS = 5


def routed_world(rules: int = 3) -> World:
    """Return bridge - router - bridge with three filters of `rules` rules on the way."""
    world = World("h1")
    others = [
        rule("drop", ip_proto=6, ip_src=f"172.{16 + index // 256}.{index % 256}.0/24")
        for index in range(rules - 1)
    ]
    for name in ("in", "router", "out"):
        world.chain(name, *others, rule("accept", ip_proto=17, ip_dst="10.0.2.0/24"))
    world.bridge("b1").bridge("b2").router("r", inbound="router")
    world.port("vm1", on="b1", host="h1", inbound="in")
    world.port("vm2", on="b2", host="h2", outbound="out")
    world.port("rp1", on="r", mac="02:00:00:00:00:01", addresses=("10.0.1.1/24",))
    world.port("rp2", on="r", mac="02:00:00:00:00:02", addresses=("10.0.2.1/24",))
    world.attach("rp1", "b1").attach("rp2", "b2")
    world.neighbour("r", "10.0.2.5", "02:aa:00:00:00:05")
    return world.mac_at("b2", "02:aa:00:00:00:05", "vm2")


def long_chain(rules: int) -> World:
    """Return a bridge with a filter of `rules` rules for as many servers and services, behind
    which what belongs to nothing is dropped."""
    world = World("h1")
    services = [
        rule(
            "accept",
            ip_proto=6 if index % 3 else 17,
            ip_src=f"10.0.{index % 8}.0/24",
            ip_dst=f"10.{1 + index // 50_000}.{index // 200 % 250}.{index % 200}",
            l4_dst=PortRange(1000 + index % 7, 1000 + index % 7),
        )
        for index in range(rules - 1)
    ]
    world.chain("in", *services, rule("drop"))
    world.bridge("b").port("vm1", on="b", host="h1", inbound="in")
    return world.port("vm2", on="b", host="h1").mac_at("b", "02:00:00:00:00:01", "vm2")


def group_member() -> World:
    """Return a bridge with a filter that drops what a group of 10,000 prefixes holds."""
    members = [f"10.{index // 250}.{index % 250}.0/26" for index in range(10_000)]
    world = World("h1").address_group("g", *members)
    world.chain("in", rule("drop", ip_address_group_src_id="g"))
    world.bridge("b").port("vm1", on="b", host="h1", inbound="in")
    return world.port("vm2", on="b", host="h1").mac_at("b", "02:00:00:00:00:01", "vm2")


def routed_frame() -> bytes:
    """Return a UDP packet from behind one bridge to behind the other."""
    return udp_frame(
        Envelope(
            parse_mac("02:aa:00:00:00:01"),
            parse_mac("02:00:00:00:00:01"),
            parse_ip("10.0.1.5"),
            parse_ip("10.0.2.5"),
        ),
        4000,
        5000,
        b"payload",
    )


def stateful_world(rules: int) -> World:
    """Return the routed world with filters that let answers and new connections by."""
    world = routed_world(rules)
    others = [
        rule("drop", ip_proto=6, ip_src=f"172.{16 + index // 256}.{index % 256}.0/24")
        for index in range(rules - 3)
    ]
    for name in ("in", "router", "out"):
        begins = rule("accept", match_forward_flow=True, ip_proto=17, ip_dst="10.0.2.0/24")
        world.chain(name, rule("accept", match_return_flow=True), *others, begins, rule("drop"))
    return world


def measure_connections() -> None:
    """Measure packets that begin connections, and such as belong to one."""
    for rules in (100, 1000):
        world = stateful_world(rules)
        view, soft = world.view(), world.soft_state()
        ingress = world.port_id("vm1")
        packet = parse_frame(routed_frame(), hash_seed=view.hash_seed)
        table = ConnectionTable()

        def walk() -> SimulationResult:
            return simulate(view, soft, packet, ingress, NOW, connections=table)  # noqa: B023

        first = walk()
        assert isinstance(first, Forward)
        name = f"connection state, 3 chains of {rules} rules"
        measure(f"simulate a first packet, {name}", walk)
        for effect in first.effects:
            if isinstance(effect, ConfirmConnection):
                table.confirm(effect.connection, NOW, sample=effect.sample)
        assert isinstance(walk(), Forward)
        measure(f"simulate a packet, {name}", walk)


def measure(name: str, work: Callable[[], object]) -> None:
    """Print how often a second `work` runs, by CPU time; the median of ROUNDS rounds."""
    for _ in range(200):
        work()
    rates = []
    for _ in range(ROUNDS):
        count = 0
        start = time.process_time()
        while (elapsed := time.process_time() - start) < SECONDS / ROUNDS:
            for _ in range(100):
                work()
            count += 100
        rates.append(count / elapsed)
    row = {"name": name, "value": round(statistics.median(rates)), "unit": "packets/s"}
    sys.stdout.write(json.dumps(row) + "\n")


def _measure_filter(name: str, world: World) -> None:
    view, soft, ingress = world.view(), world.soft_state(), world.port_id("vm1")
    packet = parse_frame(routed_frame())
    assert isinstance(simulate(view, soft, packet, ingress, NOW), Forward | Drop)
    measure(name, lambda: simulate(view, soft, packet, ingress, NOW))


def main() -> None:
    """Measure the walks that matter."""
    for rules in (3, 100):
        world = routed_world(rules)
        view, soft = world.view(), world.soft_state()
        ingress, frame = world.port_id("vm1"), routed_frame()
        packet = parse_frame(frame, hash_seed=view.hash_seed)
        assert isinstance(simulate(view, soft, packet, ingress, NOW), Forward)

        def walk() -> object:
            return simulate(view, soft, packet, ingress, NOW)  # noqa: B023

        def parse_and_walk() -> object:
            parsed = parse_frame(frame, hash_seed=view.hash_seed)  # noqa: B023
            return simulate(view, soft, parsed, ingress, NOW)  # noqa: B023

        def trace() -> object:
            return simulate(view, soft, packet, ingress, NOW, trace=True)  # noqa: B023

        measure(f"simulate bridge-router-bridge, 3 chains of {rules} rules", walk)
        measure(f"parse and simulate, 3 chains of {rules} rules", parse_and_walk)
        measure(f"simulate with trace, 3 chains of {rules} rules", trace)
    for rules in (100, 1000, 10_000):
        _measure_filter(f"simulate a bridge with a chain of {rules} rules", long_chain(rules))
    _measure_filter("simulate a bridge with a group of 10,000 prefixes", group_member())
    measure_connections()
    world = World("h1").bridge("b")
    world.port("in", on="b", host="h1")
    for index in range(100):
        world.port(f"p{index}", on="b", host=f"h{2 + index % 10}")
    view, soft = world.view(), world.soft_state()
    packet = parse_frame(routed_frame())
    ingress = world.port_id("in")
    assert not isinstance(simulate(view, soft, packet, ingress, NOW), Drop)
    measure(
        "simulate a flood to 100 remote ports", lambda: simulate(view, soft, packet, ingress, NOW)
    )


if __name__ == "__main__":
    main()
