"""Networks whose filters know connections."""

from __future__ import annotations

from midonet.model.chains import PortRange
from tests.scenario.frames import R1, R2, A, B, Family
from tests.worlds import World, rule

ANSWERS_ONLY = (rule("accept", match_return_flow=True), rule("drop"))


def guarded(
    *,
    deny: tuple[int, int] | None = None,
    action: str = "drop",
    stateless: bool = False,
    more: tuple[str, ...] = (),
    asks_up: bool = True,
    missing: bool = False,
) -> World:
    """Return a bridge with a client's port `a` and a server's `c`, which may only answer.

    deny: ports of clients that may not ask, with what they are told. more: further ports like `c`.
    missing: a chain that the client's filter jumps to is not there.
    """
    world = World().bridge("b").port("a", on="b", host="h1", inbound="asks", up=asks_up)
    for name in ("c", *more):
        world.port(name, on="b", host="h1", inbound=None if stateless else "answers")
    refusal = (rule(action, l4_src=PortRange(*deny)),) if deny else ()
    jump = (rule("jump", jump="nowhere"),) if missing else ()
    if missing:
        world.absent("nowhere")
    world.chain("asks", *jump, *refusal, rule("accept", match_forward_flow=not stateless))
    if not stateless:
        world.chain("answers", *ANSWERS_ONLY)
    return world


def shielded() -> World:
    """Return a bridge where port `c` takes only what belongs to what it has asked for itself,
    and DNS."""
    world = World().bridge("b").port("a", on="b", host="h1")
    world.port("c", on="b", host="h1", inbound="asks", outbound="shield")
    world.chain("asks", rule("accept", match_forward_flow=True))
    dns = rule("accept", ip_proto=17, l4_dst=PortRange(53, 53), match_forward_flow=True)
    return world.chain("shield", rule("accept", match_return_flow=True), dns, rule("drop"))


def trunk() -> World:
    """Return a bridge of tagged frames: two trunks, the second may only answer."""
    return guarded()


def uplinks(*, stateful: bool) -> World:
    """Return a bridge with a client and two ports towards the same servers."""
    world = guarded(more=("d",))
    return world.port_group("both", "c", "d", stateful=True) if stateful else world


def routed(family: Family) -> World:
    """Return two networks with a router between them; the server's port may only answer."""
    world = World().bridge("left").bridge("right").router("r")
    world.port("a", on="left", host="h1", inbound="asks")
    world.port("c", on="right", host="h1", inbound="answers")
    world.chain("asks", rule("accept", match_forward_flow=True))
    world.chain("answers", *ANSWERS_ONLY)
    world.port("r1", on="r", mac=R1, addresses=(family.router(1),)).attach("r1", "left")
    world.port("r2", on="r", mac=R2, addresses=(family.router(2),)).attach("r2", "right")
    world.mac_at("left", A, "a").mac_at("right", B, "c")
    world.neighbour("r", family.host(1, 2), A)
    return world.neighbour("r", family.host(2, 2), B)


def own_address(family: Family) -> World:
    """Return a router with one port, which sends back whatever is not its own."""
    world = World().router("r", inbound="asks")
    world.port("a", on="r", host="h1", mac=R1, addresses=(family.router(1),))
    return world.chain("asks", rule("accept", match_forward_flow=True))


def shielded_answers() -> World:
    """Return the guarded network in which nobody may ask anything any more."""
    world = guarded()
    return world.chain("asks", rule("drop"))
