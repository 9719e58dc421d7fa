"""A port has a filter at once and a link in its place a moment later: no packet is lost, doubled,
or sees neither, and whatever happens in between leaves nothing behind."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from midonet.agent.datapath.ebpf.syscalls import tcx_programs
from midonet.agent.datapath.protocol import PortAttachment
from midonet.agent.flows.classification import masked
from midonet.agent.flows.mask import EMPTY_MASK
from midonet.agent.flows.program import FlowProgram, Guards, InstalledProgram, LocalOutput
from midonet.errors import DatapathError
from midonet.model.ids import PortId
from midonet.packets.frame import parse_frame
from tests.contract.datapath_harness import eventually
from tests.contract.ebpf_harness import HASH_SEED, EbpfHarness, ebpf_harness

IN, OUT = (PortId(UUID(int=number)) for number in (0xB1, 0xB2))
MASK = EMPTY_MASK._replace(eth_dst=(1 << 48) - 1)


def frame(number: int) -> bytes:
    """Return a frame that carries its number."""
    return bytes(
        Ether(src="02:00:00:00:00:0a", dst="02:00:00:00:00:0b")
        / IP(src="10.0.0.1", dst="10.0.0.2")
        / UDP(sport=1, dport=2)
        / Raw(number.to_bytes(8, "big") * 4)
    )


@pytest.fixture
async def harness() -> AsyncIterator[EbpfHarness]:
    """A program sends what enters at IN out at OUT; IN is not attached yet."""
    async with ebpf_harness() as opened:
        opened.add_port(OUT)
        opened.add_interface(IN)
        yield opened


async def connect(harness: EbpfHarness) -> None:
    """Connect IN as the agent does, with a program."""
    await harness.datapath.connect(PortAttachment(IN, harness.interface_name(IN)))
    key = parse_frame(frame(0), hash_seed=HASH_SEED).key
    program = FlowProgram(
        IN, key, MASK, (LocalOutput(OUT),), guards=Guards(1, 9000), lifetime_s=30.0
    )
    harness.datapath.install([InstalledProgram(1, 1, MASK, masked(key, MASK), program)])


def has_link(harness: EbpfHarness) -> bool:
    return len(tcx_programs(harness.ifindex(IN))) == 1


def filters(harness: EbpfHarness) -> str:
    name = harness.interface_name(IN)
    return harness.host.run("tc", "filter", "show", "dev", name, "ingress")


def qdiscs(harness: EbpfHarness) -> str:
    return harness.host.run("tc", "qdisc", "show", "dev", harness.interface_name(IN))


async def changed_over(harness: EbpfHarness) -> None:
    await eventually(lambda: has_link(harness) and "midonet" not in filters(harness))


@contextmanager
def numbered_frames(harness: EbpfHarness) -> Iterator[list[int]]:
    """Send frame after frame meanwhile; yield the numbers sent."""
    sent: list[int] = []
    is_over = threading.Event()

    def send() -> None:
        while not is_over.wait(0.0005):  # a pace
            harness.send(IN, frame(len(sent)))
            sent.append(len(sent))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        is_over.set()
        thread.join()


async def require_each_once(harness: EbpfHarness, sent: list[int]) -> None:
    await eventually(lambda: len(harness.delivered(OUT)) >= len(sent))
    assert [int.from_bytes(got[42:50], "big") for got in harness.delivered(OUT)] == sent


async def test_each_packet_passes_once_while_a_link_takes_over(harness: EbpfHarness) -> None:
    await connect(harness)
    assert not has_link(harness)
    assert "midonet_port" in filters(harness)
    with numbered_frames(harness) as sent:
        await eventually(lambda: len(harness.delivered(OUT)) > 50)
        await changed_over(harness)
        count = len(sent)
        await eventually(lambda: len(harness.delivered(OUT)) > count + 50)
    await require_each_once(harness, sent)
    assert "clsact" not in qdiscs(harness)
    assert harness.datapath.drops() == {}


async def test_filter_that_a_process_left_gives_way_in_the_next(harness: EbpfHarness) -> None:
    await connect(harness)
    with numbered_frames(harness) as sent:
        await harness.datapath.close()
        assert not has_link(harness)
        count = len(sent)
        await eventually(lambda: len(harness.delivered(OUT)) > count + 50)
        await harness.datapath.open()
        await changed_over(harness)
    await require_each_once(harness, sent)


async def test_link_beside_a_filter_that_a_process_left_stays_alone(harness: EbpfHarness) -> None:
    """The process ended after the link was made and before the filter was removed."""
    await connect(harness)
    await changed_over(harness)
    harness.datapath._opened().hooks._put_filter(harness.ifindex(IN), "midonet_port")
    with numbered_frames(harness) as sent:
        await harness.datapath.close()
        assert has_link(harness)
        assert "midonet_port" in filters(harness)
        count = len(sent)
        await eventually(lambda: len(harness.delivered(OUT)) > count + 50)
        await harness.datapath.open()
        await changed_over(harness)
    await require_each_once(harness, sent)


@pytest.mark.parametrize("how", ["disconnect", "detach"])
async def test_port_that_goes_before_its_link_leaves_nothing(
    harness: EbpfHarness, how: str
) -> None:
    await connect(harness)
    if how == "detach":
        harness.datapath.detach(IN)
    else:
        await harness.datapath.disconnect(IN)
    assert not has_link(harness)
    assert "midonet" not in filters(harness)
    # The next one at the same interface is served like any other.
    await connect(harness)
    harness.send(IN, frame(0))
    await require_each_once(harness, [0])
    await changed_over(harness)


async def test_interface_that_goes_before_its_link_concerns_no_other(harness: EbpfHarness) -> None:
    await connect(harness)
    third = PortId(UUID(int=0xB3))
    name = harness.add_interface(third)
    await harness.datapath.connect(PortAttachment(third, name))
    harness.host.ip(f"link delete {name}")
    await eventually(lambda: third not in harness.datapath.attached())
    await changed_over(harness)


async def test_uninstalling_removes_filters_and_links(harness: EbpfHarness) -> None:
    await connect(harness)
    await harness.datapath.uninstall()
    assert not has_link(harness)
    assert "midonet" not in filters(harness)


async def test_filters_of_others_stay(harness: EbpfHarness) -> None:
    await connect(harness)
    name = harness.interface_name(IN)
    passing = "1,6 0 0 4294967295,"  # classic BPF: return -1
    harness.host.run(
        *f"tc filter add dev {name} egress prio 5 bpf bytecode".split(), passing, "classid", "1:"
    )
    await changed_over(harness)
    shown = harness.host.run("tc", "filter", "show", "dev", name, "egress")
    assert "pref 5" in shown


class NoFilters:
    """A kernel that cannot attach by clsact."""

    def attach(self, ifindex: int, program_fd: int, name: str) -> None:
        raise DatapathError(f"no clsact for {name} at {ifindex} ({program_fd})", errno=95)

    def detach(self, ifindex: int) -> None:
        pass

    def withdraw(self, ifindex: int) -> None:
        pass

    def is_attached(self, ifindex: int) -> bool:
        return False

    def found(self) -> dict[int, str]:
        return {}


async def test_kernel_without_filters_makes_links_at_once() -> None:
    async with ebpf_harness(filters=NoFilters()) as harness:
        harness.add_port(OUT)
        harness.add_interface(IN)
        await connect(harness)
        assert has_link(harness)
        harness.send(IN, frame(0))
        await require_each_once(harness, [0])
