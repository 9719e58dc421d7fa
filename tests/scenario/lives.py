"""Lives of connections under stateful filters, in both IP versions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from midonet.agent.flows.drop_reason import DropReason
from tests.scenario.frames import FAMILIES, R1, R2, A, B, C, Family, aged, error, raw, tcp, udp
from tests.scenario.guarded_networks import (
    guarded,
    own_address,
    routed,
    shielded,
    shielded_answers,
    trunk,
    uplinks,
)
from tests.scenario.living import ACK, FIN, RST, SYN, After, Becomes, Gone, Known, Life, Talk
from tests.scenario.running import Step, Verdict, at, sent


def _dropped(talk: Talk, port: str, reason: DropReason, *, reply: bool = False) -> Step:
    return Step(port, talk.frame(reply=reply), Verdict("drop", (), reason))


def _udp(family: Family) -> Iterator[Life]:
    talk = Talk(family)
    other = replace(talk, ports=(4001, 53))
    yield Life(
        "answers pass once they were asked for",
        guarded,
        (
            talk.reply(passes=False),
            Known(0),
            talk.first(),
            Known(1),
            talk.reply(),
            talk.says(),
            talk.reply(),
            Known(1),
        ),
    )
    yield Life(
        "an answer to another port is none",
        guarded,
        (talk.first(), other.reply(passes=False), talk.reply()),
    )
    yield Life(
        "an unanswered question is forgotten after two minutes",
        guarded,
        (
            talk.first(),
            After(119.0),
            talk.first(),
            After(121.0),
            Known(0),
            talk.reply(passes=False),
        ),
    )
    yield Life(
        "an answered one is remembered for five minutes",
        guarded,
        (talk.first(), talk.reply(), After(290.0), talk.reply(), After(301.0), Known(0)),
    )
    yield Life(
        "packets keep it alive, whichever way they go",
        guarded,
        (
            talk.first(),
            talk.reply(),
            After(200.0),
            talk.says(),
            After(200.0),
            talk.reply(),
            After(200.0),
            talk.says(),
            Known(1),
        ),
    )
    yield Life(
        "a rule cuts a running stream in both directions",
        guarded,
        (
            talk.first(),
            talk.reply(),
            Becomes(partial(guarded, deny=(4000, 4000))),
            Known(0),
            talk.reply(passes=False),
            talk.says(passes=False),
            Becomes(guarded),
            talk.reply(passes=False),
            talk.first(),
            talk.reply(),
        ),
    )
    yield Life(
        "a rule for others cuts nothing",
        guarded,
        (
            talk.first(),
            other.first(),
            Becomes(partial(guarded, deny=(4001, 4001))),
            Known(1),
            talk.reply(),
            other.reply(passes=False),
        ),
    )
    yield Life(
        "a rule of the other side's filter cuts nothing of what was begun",
        guarded,
        (talk.first(), Becomes(partial(guarded, more=())), talk.reply()),
    )
    yield Life(
        "a port that is down ends nothing",
        guarded,
        (
            talk.first(),
            talk.reply(),
            Becomes(partial(guarded, asks_up=False)),
            Known(1),
            _dropped(talk, "a", DropReason.PORT_DOWN),
            Becomes(guarded),
            talk.reply(),
        ),
    )
    yield Life(
        "a filter that fails closed ends nothing",
        guarded,
        (
            talk.first(),
            talk.reply(),
            Becomes(partial(guarded, missing=True)),
            Known(1),
            _dropped(talk, "a", DropReason.MISSING_CHAIN),
            Becomes(guarded),
            talk.reply(),
        ),
        only_simulated="a store holds no chain that jumps to nowhere",
    )
    yield Life(
        "what is dropped begins nothing",
        partial(guarded, deny=(4000, 4000)),
        (talk.says(passes=False), Known(0), talk.reply(passes=False), other.first(), Known(1)),
    )
    yield Life(
        "what the receiver's filter drops begins nothing",
        shielded,
        (replace(talk, ports=(4000, 80)).says(passes=False), Known(0), talk.first(), Known(1)),
    )
    yield Life(
        "a filter on the way out lets answers through to who has asked",
        shielded,
        (
            replace(talk, ports=(53, 99)).first(passes=False),
            talk.first(),
            talk.reply(),
            talk.says(),
            Known(1),
        ),
    )
    yield Life(
        "nobody is tracked whom no rule asks about",
        partial(guarded, stateless=True),
        (talk.first(), talk.reply(), Known(0)),
    )
    yield Life(
        "a router between them changes nothing",
        partial(routed, family),
        tuple(_routed_talk(family)),
    )


def _routed_talk(family: Family) -> Iterator[Step | Known]:
    there = family.host(1, 2), family.host(2, 2)
    asked = udp(there, (A, R1), ports=(4000, 53))
    delivered = aged(udp(there, (R2, B), ports=(4000, 53)), 1, family)
    answer = udp(there[::-1], (B, R2), ports=(53, 4000))
    back = aged(udp(there[::-1], (R1, A), ports=(53, 4000)), 1, family)
    yield Step("c", answer, Verdict("drop", (), DropReason.FILTERED))
    yield sent("a", asked, at("c", delivered))
    yield sent("c", answer, at("a", back))
    yield Known(1)


def _tcp(family: Family) -> Iterator[Life]:
    talk = Talk(family, 6, ports=(4000, 80))
    yield Life(
        "a connection opens, goes on and closes",
        guarded,
        (
            *talk.accepted(),
            talk.reply(),
            talk.says(FIN | ACK),
            talk.reply(),
            talk.reply(FIN | ACK),
            talk.says(),
            Known(1),
            After(241.0),
            Known(0),
            talk.reply(passes=False),
        ),
    )
    yield Life(
        "a SYN that is sent again belongs to the first",
        guarded,
        (talk.first(), After(3.0), talk.first(), talk.first(), Known(1), talk.reply(SYN | ACK)),
    )
    yield Life(
        "a SYN on what was reset begins anew",
        guarded,
        (
            *talk.accepted(),
            talk.reply(RST),
            Known(1),
            talk.first(),
            Known(1),
            talk.reply(SYN | ACK),
            talk.says(),
            After(3000.0),
            Known(1),
        ),
    )
    yield Life(
        "a SYN on what was closed is judged by the rules of now",
        guarded,
        (
            *talk.accepted(),
            talk.reply(RST),
            Becomes(partial(guarded, deny=(4000, 4000))),
            talk.first(passes=False),
            Known(0),
        ),
    )
    yield Life(
        "a SYN on what is open belongs to it",
        guarded,
        (*talk.accepted(), talk.first(), talk.reply(), Known(1), After(3000.0), talk.says()),
    )
    yield Life(
        "a reset ends it within minutes",
        guarded,
        (*talk.accepted(), talk.says(RST), talk.reply(), After(241.0), Known(0)),
    )
    yield Life(
        "a reset begins nothing",
        guarded,
        (talk.says(RST), Known(0), talk.reply(passes=False)),
    )
    yield Life(
        "an open that is never answered is soon forgotten",
        guarded,
        (talk.first(), After(230.0), talk.reply(SYN | ACK), After(241.0), Known(0)),
    )
    yield Life(
        "who acknowledges what nobody has said holds nothing for long",
        guarded,
        (talk.first(), talk.says(), talk.says(), After(241.0), Known(0)),
    )
    yield Life(
        "an idle connection lives for two hours",
        guarded,
        (*talk.accepted(), After(7400.0), talk.reply(), After(7441.0), Known(0)),
    )
    yield Life(
        "half closed, the other side goes on for as long as it likes",
        guarded,
        (
            *talk.accepted(),
            talk.says(FIN | ACK),
            After(7000.0),
            talk.reply(),
            After(7000.0),
            talk.reply(),
            Known(1),
        ),
    )
    yield Life(
        "from the middle, after nobody knows it, it is tracked",
        guarded,
        (talk.says(), Known(1), talk.reply(), After(7000.0), talk.says()),
    )
    yield Life(
        "from the middle and the wrong side it does not pass",
        guarded,
        (talk.reply(passes=False), talk.reply(SYN | ACK, passes=False), Known(0)),
    )
    yield Life(
        "both ends open at once",
        shielded,
        (
            replace(talk, there=("c", "a"), macs=(B, A), hosts=(3, 2)).first(),
            Step(
                "a",
                replace(talk, ports=(80, 4000)).frame(SYN),
                Verdict("forward", (at("c", replace(talk, ports=(80, 4000)).frame(SYN)),)),
            ),
            Known(1),
        ),
    )
    yield Life(
        "a policy cuts a transfer in both directions",
        guarded,
        (
            *talk.accepted(),
            Becomes(partial(guarded, deny=(4000, 4000))),
            Known(0),
            talk.reply(passes=False),
            talk.says(passes=False),
        ),
    )
    flood = [replace(talk, ports=(port, 80)) for port in range(5000, 5040)]
    yield Life(
        "a flood of opens ends nobody's connection",
        guarded,
        (*talk.accepted(), *(one.first() for one in flood), talk.reply(), talk.says(), Known(8)),
        capacity=64,
        quota=8,
    )
    held = [replace(talk, ports=(port, 80)) for port in range(5000, 5003)]
    yield Life(
        "a port has its share and no more",
        guarded,
        (
            *(step for one in held for step in one.accepted()),
            Known(3),
            replace(talk, refused=DropReason.CONNECTION_LIMIT).first(passes=False),
            talk.reply(SYN | ACK, passes=False),
            *(one.reply() for one in held),
        ),
        capacity=64,
        quota=3,
    )


def _echo(family: Family) -> Iterator[Life]:
    talk = Talk(family, 1, ports=(77, 77))
    yield Life(
        "a ping is answered, another's answer is not wanted",
        guarded,
        (
            talk.first(),
            talk.reply(),
            replace(talk, ports=(78, 78)).reply(passes=False),
            talk.reply(),
            Known(1),
        ),
    )
    yield Life(
        "an answer to no ping does not pass, and begins nothing",
        partial(guarded, more=("d",)),
        (talk.reply(passes=False), Known(0)),
    )
    yield Life(
        "a ping is forgotten after a minute",
        guarded,
        (talk.first(), talk.reply(), After(61.0), Known(0), talk.reply(passes=False)),
    )
    yield Life(
        "a policy cuts a ping, identifier and all",
        guarded,
        (talk.first(), talk.reply(), Becomes(shielded_answers), Known(0), talk.reply(passes=False)),
    )


def _places(family: Family) -> Iterator[Life]:
    talk = Talk(family)
    yield Life(
        "an address that another port has now gets nothing of the old stream",
        lambda: guarded().port("d", on="b", host="h1"),
        (
            _flooded(talk, "c", "d"),
            talk.reply(),
            _announced(talk, "d", "c"),
            talk.reply(passes=False),
            Known(0),
        ),
    )
    yield Life(
        "a port that goes takes along what began there",
        guarded,
        (talk.first(), talk.reply(), Gone("a"), Known(0), talk.reply(passes=False)),
    )
    yield Life(
        "a port that goes takes along what ended there",
        guarded,
        (talk.first(), talk.reply(), Gone("c"), Known(0)),
    )
    tagged, same = replace(talk, vlan=10), replace(talk, vlan=20)
    yield Life(
        "a VLAN is a zone of its own",
        trunk,
        (
            tagged.first(),
            same.reply(passes=False),
            talk.reply(passes=False),
            tagged.reply(),
            same.first(),
            Known(2),
            same.reply(),
        ),
    )
    yield Life(
        "an answer by the other port of a stateful group passes",
        partial(uplinks, stateful=True),
        (_flooded(talk, "c", "d"), talk.reply(at_port="d"), talk.reply(), Known(1)),
    )
    yield Life(
        "an unknown destination may answer wherever it is",
        partial(uplinks, stateful=False),
        (_flooded(talk, "c", "d"), talk.reply(at_port="d"), Known(1)),
    )
    yield Life(
        "without a group, the other port is another place",
        partial(uplinks, stateful=False),
        (
            _flooded(talk, "c", "d"),
            talk.reply(),
            replace(talk, ports=(4001, 53)).first(),
            replace(talk, ports=(4001, 53)).reply(passes=False, at_port="d"),
            replace(talk, ports=(4001, 53)).reply(),
        ),
    )
    group = replace(
        talk, macs=(A, "01:00:5e:00:00:fb" if family.version == 4 else "33:33:00:00:00:fb")
    )
    yield Life(
        "a packet to a group begins nothing",
        guarded,
        (group.first(), Known(0)),
    )
    yield Life(
        "whoever refuses tells it, and the telling passes",
        partial(guarded, deny=(4000, 4000), action="reject"),
        (_refused(replace(talk, protocol=6, ports=(4000, 80))), Known(0)),
    )


def _errors(family: Family) -> Iterator[Life]:
    talk = Talk(family)
    stranger = replace(talk, ports=(4001, 53))

    def told(about: Talk, *, passes: bool) -> Step:
        """Return an error of the server's side about a packet of the client."""
        ends = family.host(1, 9), family.host(1, talk.hosts[0])
        frame = error("prohibited", ends, (B, A), about.frame())
        if passes:
            return sent("c", frame, at("a", frame))
        return Step("c", frame, Verdict("drop", (), DropReason.FILTERED))

    yield Life(
        "an error about what was sent is wanted, about anything else it is not",
        guarded,
        (
            told(talk, passes=False),
            talk.first(),
            told(talk, passes=True),
            told(stranger, passes=False),
            Known(1),
            talk.reply(),
            told(talk, passes=True),
        ),
    )
    yield Life(
        "an error keeps nothing alive",
        guarded,
        (
            talk.first(),
            After(100.0),
            told(talk, passes=True),
            After(21.0),
            Known(0),
            told(talk, passes=False),
        ),
    )


def _flooded(talk: Talk, *ports: str) -> Step:
    frame = talk.frame()
    return sent(talk.there[0], frame, *(at(port, frame) for port in ports))


def _announced(talk: Talk, port: str, *others: str) -> Step:
    """Return a frame with which the client's MAC appears at another port."""
    frame = raw(0x88B5, (talk.macs[0], talk.macs[1]))
    return sent(port, frame, *(at(other, frame) for other in others))


def _refused(talk: Talk) -> Step:
    frame = talk.frame(SYN)
    ends = talk.family.host(1, talk.hosts[1]), talk.family.host(1, talk.hosts[0])
    reset = tcp(
        ends,
        talk.macs[::-1],
        ports=talk.ports[::-1],
        flags=RST | ACK,
        sequence=0,
        acknowledgment=8,
        window=0,
    )
    return Step("a", frame, Verdict("drop", (at("a", reset),), DropReason.REJECTED))


def _own(family: Family) -> Iterator[Life]:
    ends = family.host(1, 5), family.host(1, 5)
    yield Life(
        "a tuple that is its own inverse is one connection",
        lambda: own_address(family).neighbour("r", family.host(1, 5), C),
        (
            sent(
                "a",
                udp(ends, (C, R1), ports=(5000, 5000)),
                at("a", aged(udp(ends, (R1, C), ports=(5000, 5000)), 1, family)),
            ),
            Known(1),
            sent(
                "a",
                udp(ends, (C, R1), ports=(5000, 5000)),
                at("a", aged(udp(ends, (R1, C), ports=(5000, 5000)), 1, family)),
            ),
            Known(1),
            After(121.0),
            Known(0),
        ),
    )


LIVES: list[Life] = [
    replace(life, name=f"{life.name}, {family}")
    for family in FAMILIES
    for life in (
        *_udp(family),
        *_tcp(family),
        *_echo(family),
        *_places(family),
        *_own(family),
        *_errors(family),
    )
]
