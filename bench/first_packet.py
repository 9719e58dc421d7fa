"""First packets: what a class costs that the kernel has not seen, and a port just bound."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath

import msgspec

from bench.baselines import MTU
from bench.rows import Row, plain, quantile
from bench.virtual import VirtualPaths
from midonet.demo.lab import VirtualMachine
from midonet.demo.namespaces import Namespace, run
from midonet.errors import UnavailableError
from midonet.model.schema_chains import ChainResource
from midonet.model.schema_ports import PortResource
from midonet.model.schema_rules import RuleResource

_RULE_PORTS = (0x9001, 0x9101)
"""The filter drops these UDP ports, so every other port of the two blocks of 256 is a class of
its own: the mask must tell it from the rule's. The first is dropped as a source port too, which
makes pairs of ports classes."""

_BOUND_PORTS = 20
MIDONET = (sys.executable, "-m", "midonet.commands.main")
_UPCALL_SECONDS = 4.0


@contextmanager
def _echo(end: Namespace) -> Iterator[None]:
    process = subprocess.Popen(
        end.enter([sys.executable, "-m", "bench.datagrams", "echo", str(0x9000), "512"]),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise UnavailableError("the datagram echo did not start")
        yield
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _ask(end: Namespace, *arguments: str) -> dict[str, list[float]]:
    output = run(end.enter([sys.executable, "-m", "bench.datagrams", *arguments]), timeout_s=120)
    return dict(json.loads(output))


def first_packet_rows(made: VirtualPaths) -> list[Row]:
    """Return latency and loss of first packets, the rate of upcalls, and bound to first answer.

    The client's port gets a filter that makes UDP ports classes; it is taken off again.
    """
    networks = made.networks
    chain = networks.api.create(ChainResource(name="bench", project_id="bench"))
    for port in _RULE_PORTS:
        networks.api.create(_drop_udp("tpDst", port), parent=chain)
    networks.api.create(_drop_udp("tpSrc", _RULE_PORTS[0]), parent=chain)
    client, far = made.lab.machines["c"], made.lab.machines["f"]
    filtered = _set_filter(made, client, chain)
    with _echo(far.namespace):
        rows = _latency_rows(client)
        rows += _upcall_rows(made, client)
        rows += _bound_rows(made)
    networks.api.update(_without_filter(filtered))
    networks.api.delete(chain)
    return rows


def _drop_udp(field: str, port: int) -> RuleResource:
    body = {"type": "drop", "dlType": 0x0800, "nwProto": 17, field: {"start": port, "end": port}}
    return msgspec.convert(body, RuleResource)


def _set_filter(made: VirtualPaths, machine: VirtualMachine, chain: ChainResource) -> PortResource:
    port = next(
        each
        for each in made.networks.api.list_all(PortResource)
        if each.interface_name == machine.tap
    )
    return made.networks.api.update(msgspec.structs.replace(port, inbound_filter_id=chain.id))


def _without_filter(port: PortResource) -> PortResource:
    return msgspec.structs.replace(port, inbound_filter_id=None)


def _latency_rows(client: VirtualMachine) -> list[Row]:
    target = "10.0.1.13"
    warm = _ask(client.namespace, "ask", target, str(0x9000 + 255), "50", "same")
    first = _ask(client.namespace, "ask", target, str(0x9002), "250", "next")
    lost = len(first["lost"])
    times = first["times"]
    return [
        plain("known class, datagram there and back", "ms", warm["times"][1:]),
        plain("first packet of a class, there and back, p50", "ms", times),
        Row("first packet of a class, there and back, p99", quantile(times, 0.99), "ms"),
        Row("first packets lost", lost, f"of {lost + len(times)}"),
    ]


def _upcall_rows(made: VirtualPaths, client: VirtualMachine) -> list[Row]:
    host = made.lab.hosts[0]
    before = _counters(host.state_dir)
    started = time.monotonic()
    _ask(client.namespace, "spray", "10.0.1.13", str(_UPCALL_SECONDS))
    seconds = time.monotonic() - started
    after = _counters(host.state_dir)
    rate = (after["simulations"] - before["simulations"]) / seconds
    return [Row("packets decided by the agent under a flood of new classes", rate, "1/s")]


def _counters(state_dir: FilePath) -> dict[str, float]:
    output = run([*MIDONET, "state", "--json", "--state-dir", str(state_dir)])
    return dict(json.loads(output)["counters"])


def _bound_rows(made: VirtualPaths) -> list[Row]:
    """Bind ports one by one; the VM asks all the time and notes its first answer."""
    lab, networks = made.lab, made.networks
    host, segment = lab.hosts[0], made.tenant.segments[1]
    far_mac = run(["ip", "-n", lab.machines["f"].namespace.name, "-j", "link", "show", "eth0"])
    mac = json.loads(far_mac)[0]["address"]
    delays = []
    for number in range(_BOUND_PORTS):
        machine = lab.plug(
            f"b{number}",
            host,
            mac=f"02:00:00:00:01:{number:02x}",
            addresses=[f"10.0.1.{100 + number}/24"],
            gateways=[],
        )
        machine.namespace.ip(
            f"link set dev eth0 mtu {MTU}",
            f"neighbour replace 10.0.1.13 lladdr {mac} dev eth0 nud permanent",
        )
        asking = subprocess.Popen(
            machine.namespace.enter(
                [sys.executable, "-m", "bench.datagrams", "first", "10.0.1.13", str(0x9000)]
            ),
            stdout=subprocess.PIPE,
            text=True,
        )
        assert asking.stdout is not None
        asking.stdout.readline()
        started = time.monotonic()
        networks.bind(host, segment, machine.tap)
        answered = json.loads(asking.communicate(timeout=30)[0])["at"]
        delays.append(answered - started)
        lab.unplug(machine.name)
    return [
        plain("port bound to first answer, p50", "s", delays),
        Row("port bound to first answer, p99", quantile(delays, 0.99), "s"),
    ]
