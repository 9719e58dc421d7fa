"""The underlay against the real kernel, in namespaces of the test's own."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest

from midonet.agent.underlay.interfaces import KernelInterfaces
from midonet.agent.underlay.links import Links
from midonet.agent.underlay.probe_engine import PeerState, ProbeEngine
from midonet.agent.underlay.prober import Prober
from midonet.agent.underlay.routes import RouteQueries, UnderlayPath
from midonet.demo.namespaces import Namespace, wire
from midonet.errors import DatapathError
from midonet.model.hosts import Interface
from midonet.model.ids import HostId
from midonet.packets.addresses import parse_ip
from tests.netns.entering import run_inside

NamespaceMaker = Callable[[str], Namespace]
LEFT, RIGHT = HostId(UUID(int=1)), HostId(UUID(int=2))


async def _until(interfaces: KernelInterfaces, wanted: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not wanted():
            await interfaces.changes()


def test_scanner_follows_links_and_addresses(namespace: NamespaceMaker) -> None:
    host = namespace("scan")

    async def scan() -> dict[str, Interface]:
        interfaces = KernelInterfaces()
        await interfaces.open()
        try:
            assert set(interfaces.snapshot()) == {"lo"}
            host.ip(
                "link add port0 type veth peer name port1",
                "link set port0 up mtu 1400",
                "address add 192.0.2.1/24 dev port0",
                "link set port1 up",
            )
            await _until(
                interfaces,
                lambda: bool(
                    (port := interfaces.snapshot().get("port0"))
                    and port.has_link
                    and "192.0.2.1" in port.addresses
                ),
            )
            seen = dict(interfaces.snapshot())
            host.ip("link delete port0")
            await _until(interfaces, lambda: set(interfaces.snapshot()) == {"lo"})
            return seen
        finally:
            await interfaces.close()

    seen = run_inside(host, scan)
    assert seen["port0"].is_up
    assert seen["port0"].mtu_bytes == 1400
    assert seen["port0"].kind == "Virtual"


def test_scanner_reads_anew_what_the_kernel_could_not_tell(namespace: NamespaceMaker) -> None:
    host = namespace("overrun")
    host.ip("link add port0 type veth peer name port1")

    async def scan() -> set[str]:
        interfaces = KernelInterfaces()
        await interfaces.open()
        try:
            # Nobody reads meanwhile, and a socket holds about a megabyte.
            host.ip(*(f"link set port0 mtu {1000 + step % 500}" for step in range(4000)))
            host.ip("link add last0 type veth peer name last1")
            await _until(interfaces, lambda: "last1" in interfaces.snapshot())
            host.ip("link delete last0")
            await _until(interfaces, lambda: not {"last0", "last1"} & interfaces.snapshot().keys())
            return set(interfaces.snapshot())
        finally:
            await interfaces.close()

    assert run_inside(host, scan) == {"lo", "port0", "port1"}


def test_own_links_are_swept_by_prefix(namespace: NamespaceMaker) -> None:
    host = namespace("links")
    host.ip("link add mn-one type veth peer name other", "link add mn-two type veth peer name more")

    async def work() -> tuple[list[str], list[str]]:
        async with Links() as links:
            own = await links.own()
            for name in own:
                await links.remove(name)
            await links.remove("mn-one")
            return own, await links.own()

    assert run_inside(host, work) == (["mn-one", "mn-two"], [])


def test_links_of_others_are_never_removed(namespace: NamespaceMaker) -> None:
    host = namespace("others")

    async def work() -> None:
        async with Links() as links:
            await links.remove("lo")

    with pytest.raises(DatapathError, match="not a link of the agent's own"):
        run_inside(host, work)


def test_path_to_a_peer_names_interface_and_mtu(namespace: NamespaceMaker) -> None:
    host = namespace("path")
    host.ip(
        "link add port0 type veth peer name port1",
        "link set port0 up mtu 1400",
        "link set port1 up",
        "address add 192.0.2.1/24 dev port0",
    )

    async def look() -> tuple[UnderlayPath | None, UnderlayPath | None]:
        with RouteQueries() as routes:
            return routes.path(parse_ip("192.0.2.7")), routes.path(parse_ip("198.51.100.1"))

    found, nowhere = run_inside(host, look)
    assert found is not None
    assert (found.interface_name, found.mtu_bytes) == ("port0", 1400)
    assert nowhere is None


def test_path_takes_the_mtu_of_its_route_and_follows_the_interface(
    namespace: NamespaceMaker,
) -> None:
    host = namespace("mtus")
    host.ip(
        "link add port0 type veth peer name port1",
        "link set port0 up mtu 9000",
        "link set port1 up",
        "address add 192.0.2.1/24 dev port0",
        "address add 2001:db8::1/64 dev port0 nodad",
        "route add 198.51.100.0/24 via 192.0.2.9 mtu 1300",
    )

    async def look() -> list[int]:
        found = []
        with RouteQueries() as routes:
            for text in ("198.51.100.1", "192.0.2.7", "2001:db8::7"):
                path = routes.path(parse_ip(text))
                assert path is not None
                found.append(path.mtu_bytes)
            host.ip("link set port0 mtu 1400")
            routes.forget_links()
            path = routes.path(parse_ip("192.0.2.7"))
            assert path is not None
            return [*found, path.mtu_bytes]

    assert run_inside(host, look) == [1300, 9000, 9000, 1400]


def test_what_talks_to_the_kernel_for_life_does_not_grow(namespace: NamespaceMaker) -> None:
    host = namespace("soak")
    host.ip(
        "link add port0 type veth peer name port1",
        "link set port0 up",
        "link set port1 up",
        "address add 192.0.2.1/24 dev port0",
    )
    rounds = 5

    async def soak() -> list[int]:
        interfaces = KernelInterfaces()
        await interfaces.open()
        sizes = []
        with RouteQueries() as routes:
            for number in range(rounds):
                for peer in range(450 * 4):
                    assert routes.path(parse_ip(f"192.0.2.{2 + peer % 200}")) is not None
                host.ip(*(f"link set port0 mtu {1300 + step}" for step in range(100)))
                wanted = 1400 + number
                host.ip(f"link set port0 mtu {wanted}")
                while interfaces.snapshot()["port0"].mtu_bytes != wanted:
                    await interfaces.changes()
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
        await interfaces.close()
        return sizes

    tracemalloc.start()
    try:
        sizes = run_inside(host, soak)
    finally:
        tracemalloc.stop()
    # The first round warms caches up. A reply that is kept is some 500 bytes at least.
    assert sizes[-1] - sizes[0] < 100_000


@pytest.mark.parametrize(("left_ip", "right_ip"), [("10.1.0.2", "10.2.0.2"), ("fd1::2", "fd2::2")])
def test_narrow_path_behind_a_router_is_probed(
    namespace: NamespaceMaker, left_ip: str, right_ip: str
) -> None:
    left, router, right = namespace("left"), namespace("router"), namespace("right")
    length = 64 if ":" in left_ip else 24
    flags = " nodad" if ":" in left_ip else ""
    for end, ip, name in ((left, left_ip, "l"), (right, right_ip, "r")):
        gateway = ip[:-1] + "1"
        wire(end, "eth0", router, name)
        end.ip(f"address add {ip}/{length} dev eth0{flags}")
        router.ip(f"address add {gateway}/{length} dev {name}{flags}")
        end.ip(f"route add default via {gateway}")
    router.sysctl("net.ipv4.ip_forward", 1)
    router.sysctl("net.ipv6.conf.all.forwarding", 1)
    router.ip("link set r mtu 1420")
    right.ip("link set eth0 mtu 1420")

    proven = asyncio.Event()
    ended: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def probe() -> PeerState | None:
        loop = asyncio.get_running_loop()
        prober = Prober(ProbeEngine(LEFT, 1, b"k" * 16), loop.time)
        prober.open()
        prober.set_peers({RIGHT: (parse_ip(right_ip), 1500)})
        running = asyncio.ensure_future(prober.run())

        def look() -> None:
            state = prober.state(RIGHT)
            if state is not None and state.path_mtu_bytes >= 1412:
                proven.set()
            else:
                loop.call_later(0.1, look)

        look()
        try:
            async with asyncio.timeout(100):
                await proven.wait()
            return prober.state(RIGHT)
        finally:
            running.cancel()
            prober.close()

    async def respond() -> None:
        loop = asyncio.get_running_loop()
        prober = Prober(ProbeEngine(RIGHT, 5, b"k" * 16), loop.time)
        prober.set_peers({LEFT: (parse_ip(left_ip), 1420)})
        prober.open()
        running = asyncio.ensure_future(prober.run())
        end = asyncio.Event()
        ended.append((loop, end))
        await end.wait()
        running.cancel()
        prober.close()

    with ThreadPoolExecutor(1) as other:
        answering = other.submit(run_inside, right, respond)
        state = run_inside(left, probe)
        loop, end = ended[0]
        loop.call_soon_threadsafe(end.set)
        answering.result(timeout=60)
    assert state is not None
    assert state.is_reachable
    assert state.epoch == 5
    assert 1412 <= state.path_mtu_bytes <= 1420
