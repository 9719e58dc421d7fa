"""Load balancers among other things on the way: filters, the members' own subnet, neighbour
discovery, errors, fragments."""

from __future__ import annotations

from functools import partial

from midonet.agent.flows.drop_reason import DropReason
from midonet.packets.addresses import format_ip, parse_ip
from midonet.packets.frame import ParsedFrame, parse_frame
from midonet.packets.neighbour import neighbour_reply
from tests.scenario.balanced_networks import (
    ACK,
    KINDS,
    MACS,
    MEMBER_PORT,
    SYN,
    SYN_ACK,
    VIP_PORT,
    Kind,
    balanced,
)
from tests.scenario.balancing import BEHAVIOURS, NO_ROUTE, UDP_KINDS, Talk, named
from tests.scenario.frames import R1, R2, R3, V4, V6, A, B, echo, error, fragment, mac
from tests.scenario.live_host import Outcome
from tests.scenario.neighbours import request, solicitation
from tests.scenario.running import at
from tests.worlds import World, rule

__all__ = ["BEHAVIOURS"]  # those of `tests.scenario.balancing`, and these

INNER_VIPS = {str(kind): kind.family.host(2, 100) for kind in KINDS}


# Filters of the router.


def _filtered(kind: Kind, *, hook: str, **condition: object) -> World:
    world = balanced(kind, **{hook: "denied"})  # type: ignore[arg-type]
    return world.chain("denied", rule("drop", **condition))


@named(
    "the inbound filter is not asked about what goes to a VIP",
    make=partial(_filtered, hook="inbound"),
)
async def _(talk: Talk) -> None:
    kind = talk.kind
    assert await talk.ask() == "m1"
    other = kind.frame((kind.client, kind.member("m1")), (A, R1), (4000, MEMBER_PORT))
    assert await talk.host.send("c", other) == Outcome(drops=(DropReason.FILTERED,))


def _answers_denied(kind: Kind) -> World:
    return _filtered(kind, hook="outbound", ip_src=f"{kind.member('m1')}")


@named("the outbound filter is not asked about a member's answers", make=_answers_denied)
async def _(talk: Talk) -> None:
    kind = talk.kind
    assert await talk.ask() == "m1"
    await talk.converse("m1")
    other = kind.frame((kind.member("m1"), kind.client), (MACS["m1"], R2), (9, 9))
    assert await talk.host.send("m", other) == Outcome(drops=(DropReason.FILTERED,))


def _members_denied(kind: Kind) -> World:
    return _filtered(kind, hook="outbound", ip_dst=f"{kind.member('m1')}")


@named("the outbound filter is asked about what goes to a member", make=_members_denied)
async def _(talk: Talk) -> None:
    assert await talk.ask() == Outcome(drops=(DropReason.FILTERED,))
    assert len(talk.host.decisions.connections.table) == 0


def _guarded_port(kind: Kind) -> World:
    """Return the network with a filter at the members' port that knows answers only."""
    world = balanced(kind, answers="answers")
    return world.chain("answers", rule("accept", match_return_flow=True), rule("drop"))


@named("a member's answers are answers to a filter at its port", make=_guarded_port)
async def _(talk: Talk) -> None:
    assert await talk.ask() == "m1"
    await talk.converse("m1")
    assert await talk.answers_nothing("m1", 4001) == Outcome(drops=(DropReason.FILTERED,))


# Clients on the members' own subnet.


class InnerTalk(Talk):
    """A client on the members' subnet, and a VIP there."""

    @property
    def vip(self) -> str:
        """The VIP."""
        return INNER_VIPS[str(self.kind)]

    async def ask_inside(
        self, client: tuple[str, str], port: int = 4000
    ) -> tuple[str, ParsedFrame]:
        """Send a client's packet to the VIP; return which member gets it, and what."""
        sent = self.kind.frame((client[0], self.vip), (client[1], R2), (port, VIP_PORT))
        outcome = await self.host.send("m", sent)
        assert outcome.drops == ()
        [leaving] = outcome.leaving
        assert leaving.place == "m"
        got = parse_frame(leaving.frame)
        address = format_ip(self.kind.family.version, got.key.ip_dst)
        return next(one for one in MACS if self.kind.member(one) == address), got

    async def answer_inside(self, name: str, got: ParsedFrame, client: tuple[str, str]) -> None:
        """Let the member answer what it got; the client hears it from the VIP."""
        kind = self.kind
        source = format_ip(kind.family.version, got.key.ip_src)
        assert source == kind.family.host(2, 1), "the member would answer the client directly"
        ports = (MEMBER_PORT, got.key.l4_src)
        sent = kind.frame((kind.member(name), source), (MACS[name], R2), ports, flags=SYN_ACK)
        shown = kind.frame(
            (self.vip, client[0]), (R2, client[1]), (VIP_PORT, 4000), flags=SYN_ACK, ttl=63
        )
        assert await self.host.send("m", sent) == Outcome((at("m", shown),))


def _inside(kind: Kind) -> World:
    return balanced(kind, "m1", "m2", vip=INNER_VIPS[str(kind)])


@named("a client on the members' subnet is answered by the VIP there", make=_inside)
async def _(talk: Talk) -> None:
    inside, client = InnerTalk(talk.host, talk.kind), (talk.kind.inner_client, B)
    name, got = await inside.ask_inside(client)
    assert got.key.l4_dst == MEMBER_PORT
    await inside.answer_inside(name, got, client)
    again, same = await inside.ask_inside(client)
    assert (again, same.key.l4_src) == (name, got.key.l4_src)


@named("a member is a client of its own VIP", make=_inside)
async def _(talk: Talk) -> None:
    inside, client = InnerTalk(talk.host, talk.kind), (talk.kind.member("m1"), MACS["m1"])
    name, got = await inside.ask_inside(client)
    await inside.answer_inside(name, got, client)


@named("hidden clients are told apart", make=_inside)
async def _(talk: Talk) -> None:
    inside = InnerTalk(talk.host, talk.kind)
    clients = [(talk.kind.inner_client, B), (talk.kind.member("m1"), MACS["m1"])]
    found = [await inside.ask_inside(client) for client in clients]
    for client, (name, got) in zip(clients, found, strict=True):
        await inside.answer_inside(name, got, client)


@named(
    "a VIP on the members' subnet is reached from outside, by the client's own address",
    make=_inside,
)
async def _(talk: Talk) -> None:
    kind, vip = talk.kind, INNER_VIPS[str(talk.kind)]
    sent = kind.frame((kind.client, vip), (A, R1), (4000, VIP_PORT))
    outcome = await talk.host.send("c", sent)
    [leaving] = outcome.leaving
    got = parse_frame(leaving.frame)
    assert (leaving.place, format_ip(kind.family.version, got.key.ip_src)) == ("m", kind.client)


@named("the router answers for a VIP on a subnet of its port", make=_inside, over=UDP_KINDS)
async def _(talk: Talk) -> None:
    kind = talk.kind
    asked = _question(kind, kind.inner_client, INNER_VIPS[str(kind)])
    told = neighbour_reply(parse_frame(asked), mac(R2), is_router=kind.family is V6)
    assert (await talk.host.send("m", asked)).leaving == (at("m", told),)
    assert (await talk.host.send("o", asked)).leaving == ()
    await talk.host.edit(lambda world: world.balancers.balancer("lb", up=False))
    assert (await talk.host.send("m", asked)).leaving == ()


def _on_a_bridge(kind: Kind) -> World:
    """Return the network with the members' port linked to a bridge, where the client is."""
    world = _inside(kind).bridge("lan").port("vm", on="lan", host="h1")
    world.port("g", on="r", mac=R3, addresses=(V4.router(2), V6.router(2)))
    world.attach("g", "lan")
    return world


@named("a bridge answers for the VIPs of its routers", make=_on_a_bridge, over=UDP_KINDS)
async def _(talk: Talk) -> None:
    kind = talk.kind
    asked = _question(kind, kind.inner_client, INNER_VIPS[str(kind)])
    told = neighbour_reply(parse_frame(asked), mac(R3), is_router=kind.family is V6)
    assert (await talk.host.send("vm", asked)).leaving == (at("vm", told),)
    await talk.remove("vip")
    assert (await talk.host.send("vm", asked)).leaving == ()


def _question(kind: Kind, client: str, vip: str) -> bytes:
    if kind.family is V4:
        return request(client, vip)
    return solicitation(vip, source=client)


# Errors, echoes and fragments.


@named("an echo to a VIP is not balanced")
async def _(talk: Talk) -> None:
    kind = talk.kind
    sent = echo((kind.client, kind.vip), (A, R1))
    assert (await talk.host.send("c", sent)).drops == (NO_ROUTE,)


@named("an error about an answer goes to the member that sent it", over=UDP_KINDS)
async def _(talk: Talk) -> None:
    kind = talk.kind
    assert await talk.ask() == "m1"
    await talk.answer("m1")
    shown = kind.frame((kind.vip, kind.client), (R1, A), (VIP_PORT, 4000), ttl=60)
    about = error("port unreachable", (kind.client, kind.vip), (A, R1), shown)
    real = kind.frame((kind.member("m1"), kind.client), (R1, A), (MEMBER_PORT, 4000), ttl=60)
    got = error("port unreachable", (kind.client, kind.member("m1")), (R2, MACS["m1"]), real)
    [leaving] = (await talk.host.send("c", about)).leaving
    assert leaving.place == "m"
    assert _without_ttl(leaving.frame) == _without_ttl(got)


@named("a member's error about a request reaches the client as the VIP's", over=UDP_KINDS)
async def _(talk: Talk) -> None:
    kind = talk.kind
    assert await talk.ask() == "m1"
    request = talk.given("m1", 4000, SYN)
    about = error("port unreachable", (kind.member("m1"), kind.client), (MACS["m1"], R2), request)
    sent = kind.frame((kind.client, kind.vip), (A, R1), (4000, VIP_PORT), ttl=63)
    got = error("port unreachable", (kind.vip, kind.client), (R1, A), sent)
    [leaving] = (await talk.host.send("m", about)).leaving
    assert leaving.place == "c"
    assert _without_ttl(leaving.frame) == _without_ttl(got)


def _without_ttl(frame: bytes) -> bytes:
    """Return a frame with zero for what one hop changes."""
    if frame[12:14] == b"\x86\xdd":
        return frame[:21] + b"\0" + frame[22:]
    return frame[:22] + b"\0" + frame[23:24] + b"\0\0" + frame[26:]


@named("later fragments follow the first to its member", over=UDP_KINDS)
async def _(talk: Talk) -> None:
    kind = talk.kind
    route, macs = (kind.client, kind.vip), (A, R1)
    ports = (4000, VIP_PORT)
    outcome = await talk.host.send(
        "c",
        fragment(route, macs, first=True, ports=ports),
        fragment(route, macs, first=False, ports=ports),
    )
    assert outcome.drops == ()
    member = parse_ip(kind.member("m1")).value
    assert [one.place for one in outcome.leaving] == ["m", "m"]
    assert {parse_frame(one.frame).key.ip_dst for one in outcome.leaving} == {member}


@named("a later fragment whose first is not known does not leave", over=UDP_KINDS)
async def _(talk: Talk) -> None:
    kind = talk.kind
    later = fragment((kind.client, kind.vip), (A, R1), first=False, ports=(4000, VIP_PORT))
    assert (await talk.host.send("c", later)).leaving == ()


# The router's own address as a VIP.


def _at_router(kind: Kind) -> World:
    return balanced(kind, vip=kind.family.host(1, 1))


@named("a VIP may be an address of the router", make=_at_router)
async def _(talk: Talk) -> None:
    kind, own = talk.kind, talk.kind.family.host(1, 1)
    sent = kind.frame((kind.client, own), (A, R1), (4000, VIP_PORT))
    assert await talk.host.send("c", sent) == Outcome((at("m", talk.given("m1", 4000, SYN)),))
    back = kind.frame(
        (kind.member("m1"), kind.client), (MACS["m1"], R2), (MEMBER_PORT, 4000), flags=SYN_ACK
    )
    shown = kind.frame((own, kind.client), (R1, A), (VIP_PORT, 4000), flags=SYN_ACK, ttl=63)
    assert await talk.host.send("m", back) == Outcome((at("c", shown),))
    ping = echo((kind.client, own), (A, R1))
    pong = echo((own, kind.client), (R1, A), reply=True)
    assert await talk.host.send("c", ping) == Outcome((at("c", pong),))


@named("what is decided is explained", over=KINDS)
async def _(talk: Talk) -> None:
    result = talk.host.explain("c", talk.request(4000, ACK if talk.kind.is_tcp else SYN))
    kinds = [type(step.event).__name__ for step in result.steps]
    assert ("ChoseMember" in kinds) is not talk.kind.is_tcp
    await talk.ask()
    result = talk.host.explain("c", talk.request(4000, ACK))
    kinds = [type(step.event).__name__ for step in result.steps]
    assert "KeptMember" in kinds
