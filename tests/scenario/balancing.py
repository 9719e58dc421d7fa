"""Load balancers: named behaviours, each over IPv4 and IPv6, TCP and UDP where it matters.

Every one runs on a live host: what is installed, remembered and judged again is what an agent
would install, remember and judge again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from midonet.agent.flows.drop_reason import DropReason
from midonet.packets.frame import parse_frame
from midonet.packets.tcp import TcpFlag
from tests.scenario.balanced_networks import (
    ACK,
    KINDS,
    MACS,
    MEMBER_PORT,
    MEMBERS,
    SYN,
    SYN_ACK,
    VIP_PORT,
    Kind,
    add_member,
    balanced,
)
from tests.scenario.frames import R1, R2, A
from tests.scenario.live_host import LiveHost, Outcome
from tests.scenario.running import at
from tests.worlds import World

ENDED = Outcome(drops=(DropReason.BALANCING_ENDED,))
NO_MEMBER = Outcome(drops=(DropReason.NO_POOL_MEMBER,))
NO_ROUTE = DropReason.NO_ROUTE
TCP_KINDS = tuple(kind for kind in KINDS if kind.is_tcp)
UDP_KINDS = tuple(kind for kind in KINDS if not kind.is_tcp)


@dataclass(frozen=True)
class Behaviour:
    """A named behaviour: a network, and what happens on it."""

    name: str
    kind: Kind
    make: Callable[[], World]
    happens: Callable[[Talk], Awaitable[None]]


class Talk:
    """Clients, members and an operator at a live host."""

    def __init__(self, host: LiveHost, kind: Kind) -> None:
        self.host = host
        self.kind = kind

    def request(self, port: int, flags: TcpFlag = SYN, *, client: str | None = None) -> bytes:
        """Return a packet of the client outside to the VIP."""
        route = (client or self.kind.client, self.kind.vip)
        return self.kind.frame(route, (A, R1), (port, VIP_PORT), flags=flags)

    def given(self, name: str, port: int, flags: TcpFlag, *, client: str | None = None) -> bytes:
        """Return the same packet as a member gets it."""
        route = (client or self.kind.client, self.kind.member(name))
        macs = (R2, MACS[name])
        return self.kind.frame(route, macs, (port, MEMBER_PORT), flags=flags, ttl=63)

    async def ask(
        self, port: int = 4000, flags: TcpFlag = SYN, *, client: str | None = None
    ) -> str | Outcome:
        """Send to the VIP; return the member that gets it, unchanged but for its address."""
        outcome = await self.host.send("c", self.request(port, flags, client=client))
        for name in MEMBERS:
            if outcome == Outcome((at("m", self.given(name, port, flags, client=client)),)):
                return name
        return outcome

    async def answer(
        self, name: str, port: int = 4000, flags: TcpFlag = SYN_ACK, *, is_balanced: bool = True
    ) -> None:
        """Let a member answer; the client gets it from the VIP (or from the member)."""
        kind = self.kind
        sent = kind.frame(
            (kind.member(name), kind.client), (MACS[name], R2), (MEMBER_PORT, port), flags=flags
        )
        source = (kind.vip, VIP_PORT) if is_balanced else (kind.member(name), MEMBER_PORT)
        got = kind.frame((source[0], kind.client), (R1, A), (source[1], port), flags=flags, ttl=63)
        assert await self.host.send("m", sent) == Outcome((at("c", got),))

    async def converse(self, name: str, port: int = 4000) -> None:
        """Let a connection that has begun at a member go on in both directions."""
        await self.answer(name, port)
        assert await self.ask(port, ACK) == name
        await self.answer(name, port, ACK)

    async def answers_nothing(self, name: str, port: int = 4000) -> Outcome:
        """Let a member send to the client; return what becomes of it."""
        kind = self.kind
        route, macs = (kind.member(name), kind.client), (MACS[name], R2)
        return await self.host.send("m", kind.frame(route, macs, (MEMBER_PORT, port), flags=ACK))

    async def is_reset(self, port: int = 4000) -> None:
        """Expect that the middle of a connection that nobody knows is refused, and told so."""
        outcome = await self.host.send("c", self.request(port, ACK))
        assert outcome.drops == (DropReason.CONNECTION_UNKNOWN,)
        [reset] = outcome.leaving
        segment = parse_frame(reset.frame)
        assert reset.place == "c"
        assert segment.tcp_flags & TcpFlag.RST
        assert (segment.key.l4_src, segment.key.l4_dst) == (VIP_PORT, port)

    async def begin(self, ports: Iterable[int], **client: str) -> dict[str, list[int]]:
        """Begin connections; return their ports by member."""
        found: dict[str, list[int]] = {}
        for port in ports:
            name = await self.ask(port, **client)
            assert isinstance(name, str), name
            found.setdefault(name, []).append(port)
        return found

    async def member(self, name: str, **state: object) -> None:
        """Change a member."""
        await self.host.edit(lambda world: add_member(world, self.kind, name, **state))  # type: ignore[arg-type]

    async def remove(self, name: str) -> None:
        """Delete a member or VIP."""
        await self.host.edit(lambda world: world.balancers.remove(name))


BEHAVIOURS: list[Behaviour] = []
Happening = Callable[[Talk], Awaitable[None]]


def named(
    text: str,
    *members: str,
    over: tuple[Kind, ...] = KINDS,
    make: Callable[[Kind], World] | None = None,
    sticky: bool = False,
) -> Callable[[Happening], Happening]:
    """Enter a behaviour once for each kind of traffic."""

    def enter(happens: Happening) -> Happening:
        for kind in over:

            def network(kind: Kind = kind) -> World:
                return make(kind) if make else balanced(kind, *members, sticky=sticky)

            BEHAVIOURS.append(Behaviour(f"{text} ({kind})", kind, network, happens))
        return happens

    return enter


@named("a connection to a VIP goes to a member, and its answers come from the VIP")
async def _(talk: Talk) -> None:
    assert await talk.ask() == "m1"
    await talk.converse("m1")


@named("what is established comes up no more", over=UDP_KINDS)
async def _(talk: Talk) -> None:
    assert await talk.ask() == "m1"
    await talk.converse("m1")
    before = talk.host.decisions.counters.upcalls
    await talk.converse("m1")
    assert talk.host.decisions.counters.upcalls == before


@named("connections are shared out among all members", "m1", "m2", "m3")
async def _(talk: Talk) -> None:
    found = await talk.begin(range(4000, 4040))
    assert set(found) == {"m1", "m2", "m3"}
    for name, ports in found.items():
        await talk.converse(name, ports[0])


@named("a request that is sent again goes where the first went", "m1", "m2", "m3")
async def _(talk: Talk) -> None:
    found = await talk.begin(range(4000, 4012))
    await talk.remove(next(one for one in MEMBERS if one not in found) if len(found) < 3 else "x")
    for name, ports in found.items():
        assert [await talk.ask(port) for port in ports] == [name] * len(ports)


@named("running connections stay when a member comes", "m1")
async def _(talk: Talk) -> None:
    await talk.begin(range(4000, 4008))
    await talk.answer("m1", 4000)
    await talk.member("m2", weight=1000)
    assert [await talk.ask(port, ACK) for port in range(4000, 4008)] == ["m1"] * 8
    await talk.converse("m1", 4000)
    assert "m2" in await talk.begin(range(4100, 4110))


@named("running connections stay when another member goes", "m1", "m2", "m3")
async def _(talk: Talk) -> None:
    found = await talk.begin(range(4000, 4020))
    await talk.remove("m2")
    for name in ("m1", "m3"):
        for port in found[name]:
            assert await talk.ask(port, ACK) == name
        await talk.converse(name, found[name][0])
    assert "m2" not in await talk.begin(range(4100, 4120))


@named("running connections stay when weights change", "m1", "m2")
async def _(talk: Talk) -> None:
    found = await talk.begin(range(4000, 4010))
    await talk.member("m1", weight=1)
    await talk.member("m2", weight=100)
    for name, ports in found.items():
        assert [await talk.ask(port, ACK) for port in ports] == [name] * len(ports)


@named("a member that is set down keeps what it has and gets nothing new", "m1", "m2")
async def _(talk: Talk) -> None:
    found = await talk.begin(range(4000, 4010))
    await talk.member("m1", up=False)
    for name in ("m1", "m2"):
        await talk.converse(name, found[name][0])
    assert set(await talk.begin(range(4100, 4110))) == {"m2"}


@named("a member of weight 0 keeps what it has and gets nothing new", "m1", "m2")
async def _(talk: Talk) -> None:
    found = await talk.begin(range(4000, 4010))
    await talk.member("m1", weight=0)
    await talk.converse("m1", found["m1"][0])
    assert set(await talk.begin(range(4100, 4110))) == {"m2"}


@named("a member that comes back up gets connections again", "m1", "m2")
async def _(talk: Talk) -> None:
    await talk.member("m1", up=False)
    assert set(await talk.begin(range(4000, 4010))) == {"m2"}
    await talk.member("m1", up=True)
    assert set(await talk.begin(range(4100, 4120))) == {"m1", "m2"}


@named("a member that its monitor finds ill gets nothing new", "m1", "m2")
async def _(talk: Talk) -> None:
    await talk.member("m1", healthy=False)
    assert set(await talk.begin(range(4000, 4010))) == {"m2"}
    await talk.member("m1", healthy=True)
    assert set(await talk.begin(range(4100, 4120))) == {"m1", "m2"}


@named("a running connection to an ill member is reset", "m1", "m2", over=TCP_KINDS)
async def _(talk: Talk) -> None:
    found = await talk.begin(range(4000, 4010))
    await talk.converse("m1", found["m1"][0])
    await talk.member("m1", healthy=False)
    await talk.converse("m2", found["m2"][0])
    await talk.is_reset(found["m1"][0])
    assert len(talk.host.decisions.connections.table) == len(found["m2"])


@named("a connection to a member that is gone ends, and begins anew elsewhere", over=TCP_KINDS)
async def _(talk: Talk) -> None:
    assert await talk.ask() == "m1"
    await talk.converse("m1")
    await talk.host.edit(_replaced("m1", "m2", talk.kind))
    # Judged again at once, it is known no more: what comes from its middle may not begin one.
    await talk.is_reset()
    assert await talk.ask(4000, SYN) == "m2"
    await talk.converse("m2")


def _replaced(old: str, new: str, kind: Kind) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.balancers.remove(old)
        add_member(world, kind, new)

    return change


@named("datagrams to a member that is gone go to another", over=UDP_KINDS)
async def _(talk: Talk) -> None:
    assert await talk.ask() == "m1"
    await talk.converse("m1")
    await talk.host.edit(_replaced("m1", "m2", talk.kind))
    assert await talk.ask() == "m2"
    await talk.converse("m2")


@named("a new connection is dropped by name when every member is down", "m1", "m2")
async def _(talk: Talk) -> None:
    found = await talk.begin(range(4000, 4010))
    await talk.member("m1", up=False)
    await talk.member("m2", up=False)
    assert await talk.ask(4100) == NO_MEMBER
    for name, ports in found.items():
        await talk.converse(name, ports[0])


@named("a VIP of a pool without members drops by name")
async def _(talk: Talk) -> None:
    await talk.remove("m1")
    assert await talk.ask() == NO_MEMBER
    await talk.member("m1")
    assert await talk.ask() == "m1"


@named("a pool that is down takes nothing new and lets run what runs")
async def _(talk: Talk) -> None:
    assert await talk.ask() == "m1"
    await talk.host.edit(
        lambda world: world.balancers.pool("web", on="lb", protocol=talk.kind.protocol, up=False)
    )
    assert await talk.ask(4100) == NO_MEMBER
    await talk.converse("m1")


@named("a client stays with one member where that is asked for", "m1", "m2", "m3", sticky=True)
async def _(talk: Talk) -> None:
    found = await talk.begin(range(4000, 4030))
    assert len(found) == 1
    clients = [talk.kind.family.host(1, host) for host in range(20, 40)]
    firsts = [await talk.ask(5000, client=client) for client in clients]
    assert set(firsts) == {"m1", "m2", "m3"}
    assert [await talk.ask(5001, client=client) for client in clients] == firsts


@named("clients of other members stay when one goes", "m1", "m2", "m3", sticky=True)
async def _(talk: Talk) -> None:
    clients = [talk.kind.family.host(1, host) for host in range(20, 40)]
    firsts = [await talk.ask(5000, client=client) for client in clients]
    await talk.remove("m2")
    for client, first in zip(clients, firsts, strict=True):
        now = await talk.ask(5001, client=client)
        assert now == first if first != "m2" else now in ("m1", "m3")


@named("a pool may ask that clients stay, as a VIP does", "m1", "m2", "m3")
async def _(talk: Talk) -> None:
    await talk.host.edit(
        lambda world: world.balancers.pool("web", on="lb", protocol=talk.kind.protocol, sticky=True)
    )
    assert len(await talk.begin(range(4000, 4030))) == 1


@named("a bound client's connection ends when its member is set down", sticky=True, over=TCP_KINDS)
async def _(talk: Talk) -> None:
    assert await talk.ask() == "m1"
    await talk.converse("m1")
    await talk.member("m1", up=False)
    assert len(talk.host.decisions.connections.table) == 0
    assert await talk.ask(4001) == NO_MEMBER


@named("a VIP that is down is left to the router")
async def _(talk: Talk) -> None:
    await talk.host.edit(
        lambda world: world.balancers.vip("vip", pool="web", at=(talk.kind.vip, VIP_PORT), up=False)
    )
    outcome = await talk.ask()
    assert isinstance(outcome, Outcome)
    assert outcome.drops == (NO_ROUTE,)


@named("a load balancer that is down leaves its VIPs to the router")
async def _(talk: Talk) -> None:
    assert await talk.ask() == "m1"
    await talk.host.edit(lambda world: world.balancers.balancer("lb", up=False))
    outcome = await talk.ask(4001)
    assert isinstance(outcome, Outcome)
    assert outcome.drops == (NO_ROUTE,)
    assert await talk.answers_nothing("m1") == ENDED


@named("a connection ends with its VIP")
async def _(talk: Talk) -> None:
    assert await talk.ask() == "m1"
    await talk.converse("m1")
    await talk.remove("vip")
    assert len(talk.host.decisions.connections.table) == 0
    outcome = await talk.ask(4000, ACK)
    assert isinstance(outcome, Outcome)
    assert outcome.drops == (NO_ROUTE,)
    # What the member sends now is its own traffic.
    await talk.answer("m1", 4000, ACK, is_balanced=False)


@named("a router that names no load balancer balances nothing")
async def _(talk: Talk) -> None:
    await talk.host.edit(lambda world: world.balancers.routers.clear())
    outcome = await talk.ask()
    assert isinstance(outcome, Outcome)
    assert outcome.drops == (NO_ROUTE,)


@named("another port of the VIP's address is not balanced")
async def _(talk: Talk) -> None:
    kind = talk.kind
    sent = kind.frame((kind.client, kind.vip), (A, R1), (4000, VIP_PORT + 1))
    assert (await talk.host.send("c", sent)).drops == (NO_ROUTE,)


@named("the other protocol at a VIP's port is not balanced")
async def _(talk: Talk) -> None:
    other = Kind(talk.kind.family, "UDP" if talk.kind.is_tcp else "TCP")
    sent = other.frame((other.client, other.vip), (A, R1), (4000, VIP_PORT))
    assert (await talk.host.send("c", sent)).drops == (NO_ROUTE,)


@named("two VIPs of one load balancer lead to their own pools")
async def _(talk: Talk) -> None:
    kind = talk.kind

    def change(world: World) -> None:
        world.balancers.pool("other", on="lb", protocol=kind.protocol)
        world.balancers.vip("vip2", pool="other", at=(kind.vip, 443))
        world.balancers.member("m2", pool="other", at=(kind.member("m2"), 8443))

    await talk.host.edit(change)
    assert set(await talk.begin(range(4000, 4010))) == {"m1"}
    sent = kind.frame((kind.client, kind.vip), (A, R1), (4000, 443))
    got = kind.frame((kind.client, kind.member("m2")), (R2, MACS["m2"]), (4000, 8443), ttl=63)
    assert await talk.host.send("c", sent) == Outcome((at("m", got),))


@named("of two VIPs for the same packets one has them all", "m1")
async def _(talk: Talk) -> None:
    kind = talk.kind

    def change(world: World) -> None:
        world.balancers.pool("other", on="lb", protocol=kind.protocol)
        world.balancers.vip("vip2", pool="other", at=(kind.vip, VIP_PORT))
        world.balancers.member("m2", pool="other", at=(kind.member("m2"), MEMBER_PORT))

    await talk.host.edit(change)
    first = min(("vip", "m1"), ("vip2", "m2"), key=lambda one: talk.host.world.id(one[0]).int)
    assert set(await talk.begin(range(4000, 4010))) == {first[1]}


@named("a member with port 0 keeps the VIP's port")
async def _(talk: Talk) -> None:
    kind = talk.kind
    await talk.member("m1", port=0)
    sent = kind.frame((kind.client, kind.vip), (A, R1), (4000, VIP_PORT))
    got = kind.frame((kind.client, kind.member("m1")), (R2, MACS["m1"]), (4000, VIP_PORT), ttl=63)
    assert await talk.host.send("c", sent) == Outcome((at("m", got),))
    back = kind.frame(
        (kind.member("m1"), kind.client), (MACS["m1"], R2), (VIP_PORT, 4000), flags=SYN_ACK
    )
    shown = kind.frame((kind.vip, kind.client), (R1, A), (VIP_PORT, 4000), flags=SYN_ACK, ttl=63)
    assert await talk.host.send("m", back) == Outcome((at("c", shown),))


@named("what a member begins by itself is not the load balancer's")
async def _(talk: Talk) -> None:
    kind = talk.kind
    sent = kind.frame((kind.member("m1"), kind.client), (MACS["m1"], R2), (9000, 53))
    got = kind.frame((kind.member("m1"), kind.client), (R1, A), (9000, 53), ttl=63)
    assert await talk.host.send("m", sent) == Outcome((at("c", got),))
    from_service = kind.frame((kind.member("m1"), kind.client), (MACS["m1"], R2), (8080, 53))
    shown = kind.frame((kind.member("m1"), kind.client), (R1, A), (8080, 53), ttl=63)
    assert await talk.host.send("m", from_service) == Outcome((at("c", shown),))


@named("the middle of a connection that nobody knows is dropped by name, and reset", over=TCP_KINDS)
async def _(talk: Talk) -> None:
    await talk.is_reset()
