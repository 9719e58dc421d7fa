"""Measure how long bound ports take to their first answer: `python -m bench.bench_binding`.

An agent with the kernel datapath in a network namespace of its own; all ports are bound in one
moment, and a process of its own asks each port's router for its MAC until it answers. Needs root;
prints nothing without. Prints one JSON row a figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import multiprocessing
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from uuid import UUID

from bench.rows import quantile
from midonet.agent.daemon import Agent
from midonet.agent.datapath.ebpf import EbpfDatapath
from midonet.agent.host.host_keeper import host_record
from midonet.agent.host.state_directory import StateDirectory
from midonet.agent.underlay.clsact import Clsact
from midonet.agent.underlay.interfaces import KernelInterfaces
from midonet.model.devices import NextHopKind, Port, Route, Router
from midonet.model.ids import HostId, PortId, RouteId, RouterId
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import Create, Update
from midonet.packets.addresses import format_mac, parse_ip
from midonet.packets.neighbour import arp_request
from midonet.runtime.clock import SystemClock
from midonet.runtime.logging import LogFormat, configure_logging
from midonet.runtime.supervisor import Supervisor

_CLONE_NEWNET = 0x40000000
_ASK_EVERY_S = 0.05
_GIVE_UP_S = 60.0
_GATEWAY, _MACHINE = "10.0.0.1", "10.0.0.2"
_random = Random(1)


def row(name: str, value: float, unit: str) -> None:
    """Print one figure."""
    sys.stdout.write(json.dumps({"name": name, "value": round(value, 3), "unit": unit}) + "\n")


def new_id() -> UUID:
    """Return a random id."""
    return UUID(int=_random.getrandbits(128))


def make_links(count: int) -> None:
    """Make veth pairs tap0/end0 and so on, up, in this namespace."""
    lines = [
        f"link add tap{n} type veth peer name end{n}\nlink set tap{n} up\nlink set end{n} up"
        for n in range(count)
    ]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)


def ask(count: int, pipe: Connection) -> None:
    """Ask every port for its router until it answers; report when each did."""
    sockets = []
    for number in range(count):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
        made.bind((f"end{number}", 0))
        made.setblocking(False)
        sockets.append(made)
    by_descriptor = {made.fileno(): made for made in sockets}
    poll = select.epoll()
    for made in sockets:
        poll.register(made, select.EPOLLIN)
    question = arp_request(0x02AA00000001, parse_ip(_MACHINE).value, parse_ip(_GATEWAY).value)
    pipe.send("ready")
    pipe.recv()
    answered: dict[int, float] = {}
    ask_s = time.monotonic()
    end_s = ask_s + _GIVE_UP_S
    while len(answered) < count and time.monotonic() < end_s:
        if time.monotonic() >= ask_s:
            ask_s = time.monotonic() + _ASK_EVERY_S
            for descriptor, made in by_descriptor.items():
                if descriptor not in answered:
                    with contextlib.suppress(OSError):
                        made.send(question)
        for descriptor, _ in poll.poll(max(0.0, ask_s - time.monotonic())):
            with contextlib.suppress(OSError):
                while frame := by_descriptor[descriptor].recv(2048):
                    if frame[20:22] == b"\x00\x02":
                        answered.setdefault(descriptor, time.monotonic())
    pipe.send(sorted(answered.values()))


def ports(count: int, host_id: HostId) -> list[list[Port | Router | Route]]:
    """Return a router with a port for each machine, in transactions, unbound."""
    groups = []
    for number in range(count):
        router_id, port_id = RouterId(new_id()), PortId(new_id())
        port = Port(
            id=port_id,
            router_id=router_id,
            mac=format_mac(0x02BB00000000 + number),
            addresses=(f"{_GATEWAY}/24",),
        )
        local = Route(
            id=RouteId(new_id()),
            router_id=router_id,
            kind=NextHopKind.LOCAL,
            destination=f"{_GATEWAY}/32",
            next_hop_port_id=port_id,
        )
        groups.append([Router(id=router_id), port, local])
    return groups


async def measure(count: int, directory: Path) -> None:
    """Bind `count` ports at once and print the quantiles of their first answers."""
    import msgspec

    store = SqliteStore(directory / "nsdb.db")
    await store.open()
    state = StateDirectory(directory / "state")
    filters = Clsact()
    datapath = EbpfDatapath(directory / "state", hash_seed=1, filters=filters)
    agent = Agent(
        host_record(state.host_id(), "bench"),
        store,
        datapath,
        state,
        SystemClock(),
        interfaces=KernelInterfaces(),
        hash_seed=1,
    )
    near, far = multiprocessing.Pipe()
    asking = multiprocessing.get_context("fork").Process(target=ask, args=(count, far))
    asking.start()
    assert near.recv() == "ready"
    try:
        async with Supervisor() as supervisor:
            await agent.start(supervisor)
            await agent.keeper.registered.wait()
            made = ports(count, agent.host.id)
            for start in range(0, count, 100):
                batch = [one for group in made[start : start + 100] for one in group]
                await store.transact([Create(one) for one in batch])
            await asyncio.sleep(1.0)
            bound = [
                Update(
                    msgspec.structs.replace(
                        group[1], host_id=agent.host.id, interface_name=f"tap{number}"
                    )
                )
                for number, group in enumerate(made)
            ]
            begun_s = time.monotonic()
            near.send("go")
            for start in range(0, count, 250):
                await store.transact(bound[start : start + 250])
            answers = await asyncio.to_thread(near.recv)
            times = [answer_s - begun_s for answer_s in answers]
            row(f"bind_{count}_answered", len(times), "ports")
            if times:
                row(f"bind_{count}_first_answer", quantile(times, 0.5), "s")
                row(f"bind_{count}_first_answer_p99", quantile(times, 0.99), "s")
    finally:
        await agent.stop()
        await datapath.uninstall()
        filters.close()
        await store.close()
        state.close()
        asking.join()


def main() -> None:
    """Measure with 100 and with 500 ports."""
    if os.geteuid() != 0:
        return
    configure_logging("error", LogFormat.TEXT)
    for count in [int(text) for text in sys.argv[1:]] or [100, 500]:
        child = os.fork()
        if child == 0:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
                os._exit(1)
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            make_links(count)
            with tempfile.TemporaryDirectory() as directory:
                asyncio.run(measure(count, Path(directory)))
            sys.stdout.flush()
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
