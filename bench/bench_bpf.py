"""The kernel programs alone: load, verifier, and nanoseconds a packet by test runs.

A test run repeats a program on one packet, which is right only where the packet stays as it
is, and always finds what the packet before it found. What rewrites or encapsulates is run once at a
time (rows `_once`) and the lower quartile taken; that includes starting a run, so compare such rows
with each other. So are new connections (`bpf_new_connection_*`): each frame has another source
port, and the class is found by the last of so many masks. `bpf_miss_*` finds nothing: all masks are
tried, then the upcall is refused for its rate. `bpf_forward_cpus_2` runs one program on two CPUs.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from midonet.agent.datapath.ebpf import abi, codec
from midonet.agent.datapath.ebpf.loader import LoadedObject, load_object
from midonet.agent.datapath.ebpf.syscalls import run_program, verified_instructions
from midonet.agent.flows.mask import EMPTY_MASK, FlowMask
from midonet.agent.flows.program import NO_REWRITE, Rewrite
from midonet.packets.addresses import parse_ip
from midonet.packets.frame import parse_frame
from midonet.packets.overlay import encapsulate_vxlan

RUNS = 7
REPEAT = 200_000
SINGLES = 3000
CONNECTIONS = 500
LOOPBACK = 1
FRAME = bytes(
    Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b")
    / IP(src="10.0.0.1", dst="10.0.0.2")
    / TCP(sport=1000, dport=2000, flags="A")
    / Raw(b"x" * 18)
)
KEY = parse_frame(FRAME).key
LOCAL, REMOTE = parse_ip("192.0.2.1"), parse_ip("192.0.2.2")
ROUTED = Rewrite(eth_dst=1 << 41 | 5, eth_src=1 << 41 | 6, ttl_decrement=1)
NAT = Rewrite(
    eth_dst=1 << 41 | 5, eth_src=1 << 41 | 6, ip_dst=0x0A000063, l4_dst=53, ttl_decrement=1
)


def index(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def prepare(loaded: LoadedObject) -> None:
    """Make a host with one attached port, which is both ways, and one tunnel."""
    maps = loaded.maps
    maps["config"].update(
        index(0),
        abi.CONFIG.pack(
            abi_version=abi.ABI_VERSION,
            vxlan_port=(6677).to_bytes(2, "big"),
            statistics_width=2,
            statistics_stride=maps["statistics"].entries // 2,
            output_slots=maps["outputs"].entries,
        ),
    )
    set_upcall_burst(loaded, 1 << 62)
    maps["interfaces"].update(index(LOOPBACK), abi.INTERFACE.pack(slot=1, incarnation=1))
    ends = {"local": codec.pack_ip(LOCAL), "remote": codec.pack_ip(REMOTE), "family": 4}
    maps["tunnels"].update(
        index(1), abi.TUNNEL.pack(sequence=2, identifier=1, **ends, ifindex=LOOPBACK)
    )
    maps["peers"].update(abi.PEER_KEY.pack(**ends), abi.PEER.pack())
    maps["deliveries"].update(
        index(1), abi.DELIVERY.pack(sequence=2, tunnel_key=7, port=1, incarnation=1)
    )
    maps["tunnel_keys"].update(index(7), index(1))


def set_upcall_burst(loaded: LoadedObject, burst_ns: int) -> None:
    """Write the port; with a burst of 0 it takes nothing up."""
    loaded.maps["ports"].update(
        index(1),
        abi.PORT.pack(
            port_id=UUID(int=1).bytes,
            flags=abi.PortFlag.ATTACHED | abi.PortFlag.IN_USE,
            ifindex=LOOPBACK,
            incarnation=1,
            upcall_interval_ns=1,
            upcall_burst_ns=burst_ns,
            copy_burst_ns=1 << 62,
        ),
    )


def output(rewrite: Rewrite, *, tunnel: bool = False) -> bytes:
    packed = codec.pack_rewrite(rewrite, is_ipv6=False)
    if tunnel:
        return abi.OUTPUT.pack(kind=abi.OutputKind.VXLAN, target=7, tunnel=1, rewrite=packed)
    return abi.OUTPUT.pack(kind=abi.OutputKind.LOCAL, target=1, incarnation=1, rewrite=packed)


def install(loaded: LoadedObject, way: bytes | None, masks: int = 1) -> None:
    """Install one program and no other, under the last of `masks` masks; None drops."""
    for earlier, _ in loaded.maps["classes"].items():
        loaded.maps["classes"].delete(earlier)
    table = bytearray(abi.PORT_MASKS.size)
    table[:16] = abi.PORT_MASKS.pack(valid=(1 << masks) - 1)[:16]
    mask = EMPTY_MASK
    for number in range(masks):
        mask = FlowMask(0, 0, 0xFFFF, ip_proto=0xFF, ip_dst=0xFFFF_FFFF, l4_src=number)
        start = 16 + number * abi.CLASS_KEY.size
        table[start : start + abi.CLASS_KEY.size] = codec.pack_masks(mask)[0]
    loaded.maps["port_masks"].update(index(1), bytes(table))
    fields = KEY._make(a & b for a, b in zip(KEY, mask, strict=True))
    key = codec.pack_key(1, masks - 1, fields, is_ipv6=False)
    action = abi.ACTION.pack(
        program_id=1,
        drop_reason=0 if way else 10,
        output_count=1 if way else 0,
        output=way or b"",
    )
    form = codec.pack_masks(mask)[0]
    loaded.maps["programs"].update(
        index(1), abi.PROGRAM.pack(sequence=2, key=key, mask=form, action=action)
    )
    loaded.maps["classes"].update(key, index(1))


def repeated(program: int, frame: bytes) -> float:
    runs = (run_program(program, frame, repeat=REPEAT).duration_ns for _ in range(RUNS))
    return statistics.median(runs)


def single(program: int, frame: bytes) -> float:
    durations = [run_program(program, frame).duration_ns for _ in range(SINGLES)]
    return statistics.quantiles(durations, n=4)[0]


def new_connections(program: int, first: int) -> float:
    """Run packets of one class that no hint knows yet, one at a time. first: source port."""
    # The masks read the low five bits of the source port, and each port is used once.
    ports = range(first, first + 32 * CONNECTIONS, 32)
    frames = [FRAME[:34] + port.to_bytes(2, "big") + FRAME[36:] for port in ports]
    durations = [run_program(program, frame).duration_ns for frame in frames]
    return statistics.quantiles(durations, n=4)[0]


def on_cpus(program: int, cpus: list[int]) -> float:
    """Run a program on several CPUs at the same time; return the mean duration of a packet."""

    def run(cpu: int) -> float:
        os.sched_setaffinity(threading.get_native_id(), {cpu})
        return repeated(program, FRAME)

    with ThreadPoolExecutor(len(cpus)) as pool:
        return statistics.mean(pool.map(run, cpus))


def rows() -> Iterator[tuple[str, float, str]]:
    started = time.perf_counter()
    loaded = load_object()
    yield "bpf_load", (time.perf_counter() - started) * 1000, "ms"
    for name, descriptor in loaded.programs.items():
        yield f"bpf_verified_{name}", verified_instructions(descriptor), "instructions"
    prepare(loaded)
    port = loaded.programs["midonet_port"]
    install(loaded, None)
    yield "bpf_drop", repeated(port, FRAME), "ns/packet"
    yield "bpf_drop_once", single(port, FRAME), "ns/packet"
    install(loaded, output(NO_REWRITE))
    yield "bpf_forward", repeated(port, FRAME), "ns/packet"
    available = sorted(os.sched_getaffinity(0))[:2]
    if len(available) == 2:
        yield "bpf_forward_cpus_2", on_cpus(port, available), "ns/packet"
    first = 1000
    for masks in (1, 8, 32):
        first += 32 * CONNECTIONS
        install(loaded, output(NO_REWRITE), masks)
        yield f"bpf_new_connection_masks_{masks}_once", new_connections(port, first), "ns/packet"
    other = FRAME[:30] + bytes((10, 0, 0, 99)) + FRAME[34:]
    set_upcall_burst(loaded, 0)
    for masks in (1, 8, 32):
        install(loaded, output(NO_REWRITE), masks)
        yield f"bpf_miss_masks_{masks}", repeated(port, other), "ns/packet"
    set_upcall_burst(loaded, 1 << 62)
    install(loaded, output(NO_REWRITE))
    yield "bpf_forward_once", single(port, FRAME), "ns/packet"
    install(loaded, output(ROUTED))
    yield "bpf_route_once", single(port, FRAME), "ns/packet"
    install(loaded, output(NAT))
    yield "bpf_nat_once", single(port, FRAME), "ns/packet"
    install(loaded, output(ROUTED, tunnel=True))
    yield "bpf_route_vxlan_once", single(port, FRAME), "ns/packet"
    outer = encapsulate_vxlan(
        FRAME, key=7, local=REMOTE, remote=LOCAL, source_port=50000, udp_port=6677
    )
    received = bytes(12) + b"\x08\x00" + outer
    underlay = loaded.programs["midonet_underlay"]
    yield "bpf_deliver_vxlan_once", single(underlay, received), "ns/packet"
    foreign = bytes(Ether() / IP(src="192.0.2.9", dst="192.0.2.1") / TCP())
    yield "bpf_host_traffic", repeated(underlay, foreign), "ns/packet"
    loaded.close()


def main() -> int:
    """Print one row a line."""
    if os.geteuid() != 0:
        print("needs root to load BPF programs", file=sys.stderr)
        return 1
    for name, value, unit in rows():
        print(json.dumps({"name": name, "value": round(value, 1), "unit": unit}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
