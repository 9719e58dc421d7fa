"""Whole agents, with their tasks, store and control socket, under arbitrary input.

No task ends (`Deployment.agent` asserts it when it is left), and what is right still works.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from random import Random

import pytest

from midonet.agent.operator.control_socket import ControlSocket
from midonet.model.devices import Port
from midonet.model.ids import PortId
from midonet.packets.addresses import format_mac
from tests.differential.packets import ROUTER_MACS
from tests.fuzz.hostile_frames import FrameSource
from tests.fuzz.soaking import FACTOR, FAILURES, SEED, named
from tests.multiagent.hosts import Deployment, RunningAgent, eventually, mac, udp

FRAMES = 6_000
REQUESTS = 600
BATCH = 100
VM1, VM2 = mac(1), mac(2)


async def _network(deployment: Deployment, hosts: tuple[RunningAgent, ...]) -> list[PortId]:
    """Make a tenant's network: a bridge over both hosts, and a router. Return the hosts' ports."""
    bridge, router = await deployment.bridge(), await deployment.router()
    ports = []
    for number in range(2):
        name = f"tap{bridge.hex[:6]}{number}"
        ports += [await deployment.bridge_port(bridge, host.id, name) for host in hosts]
    for address, inside in (("10.0.0.1/24", True), ("fd00:1::1/64", False)):
        port = await deployment.router_port(router, format_mac(ROUTER_MACS[0]), address)
        if inside:
            await deployment.link(port, await deployment.bridge_port(bridge))
    return ports


def _queued(hosts: tuple[RunningAgent, ...]) -> int:
    return sum(len(host.agent.decisions.queue) for host in hosts)


async def test_agents_go_on_whatever_comes(tmp_path: Path) -> None:
    """The tenant that is silent hears nothing, and afterwards its own packets pass."""
    random = Random(f"agents {SEED}")
    frames = FrameSource(random)
    deployment = Deployment(tmp_path)
    await deployment.open()
    async with (
        deployment.agent("h1", "192.0.2.1") as h1,
        deployment.agent("h2", "192.0.2.2") as h2,
    ):
        hosts = (h1, h2)
        red, blue = [await _network(deployment, hosts) for _ in range(2)]
        await deployment.settled(*hosts)
        for number in range(FRAMES * FACTOR // BATCH):
            for index in range(BATCH):
                place, frame = random.randrange(len(red)), frames.draw()
                with named(SEED, f"batch {number}, frame {index} at port {place}", frame):
                    hosts[place % 2].datapath.receive(red[place], frame)
            await eventually(lambda: not _queued(hosts))
            await deployment.change(Port, random.choice(red), admin_state_up=number % 3 > 0)
            assert all(host.at(port) == [] for host in hosts for port in blue)
            for host in hosts:
                host.left.clear()
        for host in hosts:
            drops = host.datapath.drops()
            assert {key: count for key, count in drops.items() if key[1] in FAILURES} == {}
            assert len(drops) > 5
        there, back = udp(VM1, VM2, "10.0.0.2", "10.0.0.3"), udp(VM2, VM1, "10.0.0.3", "10.0.0.2")
        h1.datapath.receive(blue[0], there)
        await eventually(lambda: there in h2.at(blue[1]))
        h2.datapath.receive(blue[1], back)
        await eventually(lambda: back in h1.at(blue[0]))
    await deployment.store.close()


# The control socket.

_METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD", "", "G\xe9T", "A" * 300)
_LENGTHS = ("", "0", "5", "\xb2", "-1", "+5", "1e3", "99999999999", "0x10", " 7 ", "1_0")
_WORDS = ("state", "flows", "drops", "inject", "watch", "binding", "..", "%00", "\xff", "")


def _requests(random: Random, port: PortId, frames: FrameSource) -> bytes:
    """Return the bytes of a request that is more or less one."""
    path = "/".join(random.choice((*_WORDS, str(port))) for _ in range(random.randrange(4)))
    query = random.choice(("", "?wait=nan", "?wait=0&after=x", "?after=-1", "?wait=1e999", "?%ff"))
    target = random.choice((f"/{path}{query}", "//[", "*", "http://[::1", f"//[x]/{path}"))
    body: bytes = random.choice(
        (
            b"",
            random.randbytes(20),
            b"[" * 5000,
            b'{"interfaceName": "\\ud800"}',
            json.dumps({"interfaceName": "\0../x" * random.randrange(5)}).encode(),
            json.dumps(
                {
                    "portId": random.choice((str(port), "x", "")),
                    "frame": random.choice((frames.draw().hex(), "f", "zz", "")),
                    "waitSeconds": random.choice((0, -1, 1e999, 0.001)),
                }
            ).encode(),
        )
    )
    length = random.choice((str(len(body)), str(len(body)), random.choice(_LENGTHS)))
    line = f"{random.choice(_METHODS)} {target} HTTP/1.1"
    if random.random() < 0.5:
        route = random.choice(
            ("GET /state", "GET /flows", "GET /drops", "POST /inject", f"PUT /binding/{port}",
             f"GET /watch/{port}", "DELETE /binding/")
        )  # fmt: skip
        line = f"{route}{query} HTTP/1.1"
    head = f"{line}\r\nContent-Length: {length}\r\n{random.choice(('', ':', 'x' * 99))}\r\n\r\n"
    whole = head.encode("latin-1") + body
    return random.choice((whole, whole, whole, whole[: random.randrange(len(whole))]))


async def _ask(path: Path, request: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_control_socket_answers_whatever_is_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each request gets an answer of HTTP; no failure of ours, and no traceback."""
    random = Random(f"control {SEED}")
    frames = FrameSource(random)
    deployment = Deployment(tmp_path)
    await deployment.open()
    async with deployment.agent("h1") as h1:
        port = await deployment.bridge_port(await deployment.bridge(), h1.id, "tap1")
        await deployment.settled(h1)
        listening = ControlSocket(tmp_path / "agent.sock", h1.agent.control.respond)
        await listening.open()
        try:
            statuses = set()
            for number in range(REQUESTS * FACTOR):
                request = _requests(random, port, frames)
                with named(SEED, f"request {number}", request):
                    answer = await _ask(tmp_path / "agent.sock", request)
                    assert answer.startswith(b"HTTP/1.1 ")
                    assert not answer.startswith(b"HTTP/1.1 5")
                statuses.add(answer[9:12])
            good = await _ask(tmp_path / "agent.sock", b"GET /state HTTP/1.1\r\n\r\n")
            assert good.startswith(b"HTTP/1.1 200 ")
        finally:
            await listening.close()
    assert statuses >= {b"200", b"400", b"404"}
    assert caplog.records == []
    await deployment.store.close()
