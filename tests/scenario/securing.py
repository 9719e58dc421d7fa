"""Port security: what a machine may say of itself, and what a hostile one tries."""

from __future__ import annotations

from collections.abc import Callable

from midonet.agent.flows.drop_reason import DropReason
from midonet.packets.addresses import parse_ip, parse_mac
from midonet.packets.arp import ArpMessage
from tests.scenario.dhcp import DISCOVERY, PLAIN, offered, served
from tests.scenario.frames import (
    EVERYONE,
    R1,
    V4,
    V6,
    A,
    B,
    C,
    error,
    fragment,
    icmp,
    raw,
    retagged,
    tcp,
    udp,
)
from tests.scenario.running import Scenario, Step, at, dropped, scenario, sent, taken
from tests.scenario.sequences import Sequence, state
from tests.worlds import World, rule

OWN4, OWN6 = V4.host(1, 5), V6.host(1, 5)
PEER4, PEER6 = V4.host(1, 6), V6.host(1, 6)
LINK_LOCAL = "fe80::aa:ff:fe00:1"
"""Made of `A` by modified EUI-64."""
PAIRS = (f"{A} {OWN4}/32", f"{A} {OWN6}/128", f"{C} 10.0.9.0/24")
ALL_NODES, ALL_ROUTERS = "33:33:00:00:00:01", "33:33:00:00:00:02"


def secured(*pairs: str) -> World:
    """Bridge `b` with port `p1`, secured, and `p2`, `p3`, which are not."""
    world = World().bridge("b")
    for name in ("p1", "p2"):
        world.port(name, on="b", host="h1")
    return world.secure("p1", *(pairs or PAIRS))


def passes(*frames: bytes) -> list[Step]:
    return [sent("p1", frame, at("p2", frame)) for frame in frames]


def refused(reason: DropReason, *frames: bytes) -> list[Step]:
    return [dropped("p1", frame, reason) for frame in frames]


def arp(
    sender: tuple[str, str],
    target: str,
    *,
    source: str = A,
    operation: int = 1,
    to: str = EVERYONE,
) -> bytes:
    """Return an ARP message. sender: hardware and protocol address it claims."""
    message = ArpMessage(
        operation, parse_mac(sender[0]), parse_ip(sender[1]).value, 0, parse_ip(target).value
    )
    return raw(0x0806, (source, to), size=0) + message.serialise() + bytes(18)


def discovery(
    kind: int,
    route: tuple[str, str],
    target: str = "",
    *options: bytes,
    macs: tuple[str, str] = (A, ALL_NODES),
    hops: int = 255,
) -> bytes:
    """Return a message of neighbour discovery; without a target, of router discovery."""
    body = (parse_ip(target).value.to_bytes(16, "big") if target else b"") + b"".join(options)
    if kind == 134:
        body = bytes(8) + body
    return icmp(route, macs, kind, rest=0, payload=body, ttl=hops)


def source_mac(text: str) -> bytes:
    return b"\x01\x01" + parse_mac(text).to_bytes(6, "big")


def target_mac(text: str) -> bytes:
    return b"\x02\x01" + parse_mac(text).to_bytes(6, "big")


def dhcp(route: tuple[str, str] = ("0.0.0.0", "255.255.255.255"), *, sport: int = 68,
         dport: int = 67, macs: tuple[str, str] = (A, EVERYONE)) -> bytes:  # fmt: skip
    return udp(route, macs, ports=(sport, dport), size=240)


NODES = "ff02::1"
SOLICITED = "ff02::1:ff00:5"

SPEAKING = [
    scenario(
        "a secured port speaks from its own addresses",
        secured,
        *passes(
            udp((OWN4, PEER4)),
            tcp((OWN4, "192.0.2.1")),
            udp((OWN6, PEER6)),
            udp(("10.0.9.77", PEER4), (C, B)),
            fragment((OWN4, PEER4), first=True),
            fragment((OWN4, PEER4), first=False),
            icmp((OWN4, PEER4), (A, B), 8, payload=bytes(8)),
            raw(0x88CC),
        ),
    ),
    scenario(
        "a secured port speaks from no other MAC",
        secured,
        *refused(
            DropReason.SPOOFED_MAC,
            udp((OWN4, PEER4), (B, A)),
            udp((OWN6, PEER6), (R1, B)),
            raw(0x88CC, (B, A)),
            arp((B, OWN4), PEER4, source=B),
            dhcp(macs=(B, EVERYONE)),
        ),
    ),
    scenario(
        "a secured port speaks from no other address",
        secured,
        *refused(
            DropReason.SPOOFED_ADDRESS,
            udp((PEER4, OWN4)),
            udp((V4.host(1, 4), PEER4)),
            tcp((PEER6, OWN6)),
            udp(("10.0.9.77", PEER4)),
            udp((OWN4, PEER4), (C, B)),
            udp((OWN6, PEER6), (C, B)),
            fragment((PEER4, OWN4), first=False),
        ),
    ),
    scenario(
        "a port without pairs is silent",
        lambda: World().bridge("b").port("p1", on="b", host="h1").port("p2", on="b", host="h1")
        .secure("p1"),
        *refused(DropReason.SPOOFED_MAC, udp((OWN4, PEER4)), raw(0x88CC), arp((A, OWN4), PEER4)),
    ),
    scenario(
        "a MAC without addresses speaks no IP but of its link",
        lambda: secured(A),
        *passes(raw(0x88CC), udp((LINK_LOCAL, PEER6)), dhcp()),
        *refused(DropReason.SPOOFED_ADDRESS, udp((OWN4, PEER4)), udp((OWN6, PEER6))),
    ),
    scenario(
        "what is sent to a secured port is not looked at",
        secured,
        sent("p2", udp((PEER4, OWN4), (B, A)), at("p1", udp((PEER4, OWN4), (B, A)))),
        sent("p2", arp((B, PEER4), OWN4, source=B), at("p1", arp((B, PEER4), OWN4, source=B))),
    ),
    scenario(
        "reserved sources pass nowhere, whatever is allowed",
        lambda: secured(f"{A} 0.0.0.0/0", f"{A} ::/0"),
        *passes(udp(("203.0.113.9", PEER4)), udp(("2001:db8::9", PEER6))),
        *refused(
            DropReason.SPOOFED_ADDRESS,
            *(
                udp((address, PEER4))
                for address in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "240.0.0.1",
                                "255.255.255.255")
            ),
            *(udp((address, PEER6)) for address in ("::", "::1", "ff02::1")),
        ),
        dropped("p1", arp((A, "255.255.255.255"), PEER4), DropReason.SPOOFED_NEIGHBOUR),
        dropped("p1", arp((A, "127.0.0.1"), PEER4), DropReason.SPOOFED_NEIGHBOUR),
    ),
    scenario(
        "the filter of a secured port meets only what may be sent",
        lambda: secured().chain("c", rule("drop", ip_dst=PEER4)).port(
            "p1", on="b", host="h1", inbound="c"
        ).secure("p1", *PAIRS),
        dropped("p1", udp((OWN4, PEER4)), DropReason.FILTERED),
        dropped("p1", udp((PEER4, PEER4)), DropReason.SPOOFED_ADDRESS),
        *passes(udp((OWN4, V4.host(1, 7)))),
    ),
    scenario(
        "a forged frame teaches a bridge nothing",
        lambda: secured().port("p3", on="b", host="h1").mac_at("b", B, "p3"),
        dropped("p1", udp((PEER4, V4.host(1, 9)), (B, A)), DropReason.SPOOFED_MAC),
        sent("p2", udp((V4.host(1, 9), PEER4), (C, B)),
             at("p3", udp((V4.host(1, 9), PEER4), (C, B)))),
    ),
    scenario(
        "tagged frames are looked into, a second tag is not",
        secured,
        *passes(retagged(udp((OWN4, PEER4)), 10)),
        *refused(DropReason.SPOOFED_ADDRESS, retagged(udp((PEER4, OWN4)), 10),
                 retagged(retagged(udp((OWN4, PEER4)), 10), 11)),
    ),
]  # fmt: skip

ASKING = [
    scenario(
        "a secured port asks and answers for its own addresses (ARP)",
        secured,
        *passes(
            arp((A, OWN4), PEER4),
            arp((A, OWN4), OWN4),
            arp((A, OWN4), PEER4, operation=2, to=B),
            arp((A, "0.0.0.0"), OWN4),
            arp((C, "10.0.9.1"), "10.0.9.9", source=C),
        ),
    ),
    scenario(
        "a secured port claims no address of others (ARP)",
        secured,
        *refused(
            DropReason.SPOOFED_NEIGHBOUR,
            arp((A, PEER4), OWN4),
            arp((A, PEER4), PEER4),
            arp((A, PEER4), OWN4, operation=2, to=B),
            arp((A, "0.0.0.0"), PEER4),
            arp((C, OWN4), PEER4, source=C),
        ),
    ),
    scenario(
        "a secured port names no MAC of others (ARP)",
        secured,
        *refused(
            DropReason.SPOOFED_NEIGHBOUR,
            arp((B, OWN4), PEER4),
            arp((B, OWN4), PEER4, operation=2, to=B),
            arp((C, OWN4), PEER4),
            arp((B, "0.0.0.0"), OWN4),
        ),
        # The same key with an honest body passes before and after.
        *passes(arp((A, OWN4), PEER4)),
        *refused(DropReason.SPOOFED_NEIGHBOUR, arp((B, OWN4), PEER4)),
    ),
    scenario(
        "ARP that cannot be read does not pass a secured port",
        secured,
        *refused(DropReason.SPOOFED_NEIGHBOUR, raw(0x0806, (A, EVERYONE))),
    ),
    scenario(
        "a secured port asks and answers for its own addresses (ND)",
        secured,
        *passes(
            discovery(135, (OWN6, SOLICITED), PEER6, source_mac(A)),
            discovery(135, (LINK_LOCAL, SOLICITED), PEER6, source_mac(A)),
            discovery(135, (OWN6, PEER6), PEER6),
            discovery(136, (OWN6, NODES), OWN6, target_mac(A)),
            discovery(136, (LINK_LOCAL, NODES), OWN6, target_mac(A)),
            discovery(136, (LINK_LOCAL, NODES), LINK_LOCAL, target_mac(A)),
            discovery(133, (LINK_LOCAL, "ff02::2"), "", source_mac(A), macs=(A, ALL_ROUTERS)),
            discovery(133, ("::", "ff02::2"), macs=(A, ALL_ROUTERS)),
        ),
    ),
    scenario(
        "a secured port detects duplicates of its own addresses",
        secured,
        *passes(
            discovery(135, ("::", SOLICITED), OWN6),
            discovery(135, ("::", "ff02::1:ff00:1"), LINK_LOCAL),
            icmp(("::", "ff02::16"), (A, "33:33:00:00:00:16"), 143, payload=bytes(20), ttl=1),
        ),
        *refused(
            DropReason.SPOOFED_NEIGHBOUR,
            discovery(135, ("::", "ff02::1:ff00:6"), PEER6),
            discovery(135, ("::", "ff02::1:ff00:6"), "fe80::6"),
            discovery(135, ("::", SOLICITED), OWN6, source_mac(B)),
        ),
    ),
    scenario(
        "a secured port claims no address of others (ND)",
        secured,
        *refused(
            DropReason.SPOOFED_NEIGHBOUR,
            discovery(136, (OWN6, NODES), PEER6, target_mac(A)),
            discovery(136, (OWN6, NODES), "fe80::1", target_mac(A)),
            discovery(136, (OWN6, NODES), OWN6, target_mac(B)),
            discovery(135, (OWN6, SOLICITED), PEER6, source_mac(B)),
            discovery(133, (LINK_LOCAL, "ff02::2"), "", source_mac(B), macs=(A, ALL_ROUTERS)),
        ),
        *refused(
            DropReason.SPOOFED_ADDRESS,
            discovery(136, (PEER6, NODES), PEER6, target_mac(A)),
            discovery(135, ("fe80::1", SOLICITED), PEER6, source_mac(A)),
            discovery(136, ("::", NODES), OWN6, target_mac(A)),
        ),
    ),
    scenario(
        "a second option or a lying length hides nothing",
        secured,
        *refused(
            DropReason.SPOOFED_NEIGHBOUR,
            discovery(136, (OWN6, NODES), OWN6, target_mac(A), target_mac(B)),
            discovery(135, (OWN6, SOLICITED), PEER6, source_mac(A), source_mac(B)),
            discovery(136, (OWN6, NODES), OWN6, target_mac(A), source_mac(B)),
            discovery(136, (OWN6, NODES), OWN6, b"\x0e\x01" + bytes(6), target_mac(B)),
            discovery(136, (OWN6, NODES), OWN6, b"\x0e\x00" + bytes(6), target_mac(B)),
            discovery(136, (OWN6, NODES), OWN6, target_mac(A), b"\x0e\x09" + bytes(6)),
            discovery(136, (OWN6, NODES), OWN6, b"\x02\x02" + bytes(14)),
        ),
    ),
    scenario(
        "discovery that receivers would not take does not pass either",
        secured,
        *refused(
            DropReason.SPOOFED_NEIGHBOUR,
            discovery(136, (OWN6, NODES), OWN6, target_mac(A), hops=64),
            discovery(135, (OWN6, SOLICITED), "ff02::1", source_mac(A)),
            discovery(133, (OWN6, "ff02::2"), macs=(A, ALL_ROUTERS), hops=1),
            icmp((OWN6, NODES), (A, ALL_NODES), 136, payload=bytes(4), ttl=255),
            icmp((OWN6, NODES), (A, ALL_NODES), 136, 1,
                 payload=parse_ip(OWN6).value.to_bytes(16, "big"), ttl=255),
        ),
    ),
]  # fmt: skip

SERVING = [
    scenario(
        "a DHCP client behind a secured port is heard",
        secured,
        *passes(dhcp(), dhcp((OWN4, PEER4), macs=(A, B)), udp((LINK_LOCAL, "ff02::1:2"),
                (A, "33:33:00:01:00:02"), ports=(546, 547))),
        *refused(
            DropReason.SPOOFED_ADDRESS,
            dhcp(("0.0.0.0", PEER4), macs=(A, B)),
            dhcp(sport=69),
            dhcp(dport=68),
            udp(("0.0.0.0", "255.255.255.255"), (A, EVERYONE), ports=(68, 53)),
        ),
    ),
    scenario(
        "a DHCP client behind a secured port is served",
        lambda: served().secure("p1", f"{A} 10.0.1.5/32"),
        taken("p1", DISCOVERY, at("p1", offered(*PLAIN))),
    ),
    scenario(
        "nobody is told what the client is told whose MAC he forges",
        lambda: served().secure("p1", f"{C} 10.0.1.7/32"),
        dropped("p1", DISCOVERY, DropReason.SPOOFED_MAC),
    ),
    scenario(
        "a secured port is no DHCP server",
        secured,
        *refused(
            DropReason.UNTRUSTED_SERVER,
            dhcp((OWN4, "255.255.255.255"), sport=67, dport=68),
            dhcp((OWN4, PEER4), sport=67, dport=68, macs=(A, B)),
            dhcp((OWN4, PEER4), sport=1067, dport=68, macs=(A, B)),
            udp((LINK_LOCAL, PEER6), ports=(547, 546)),
            udp((OWN6, PEER6), ports=(1547, 546)),
        ),
        *passes(udp((OWN4, PEER4), ports=(67, 69)), udp((OWN6, PEER6), ports=(547, 545)),
                tcp((OWN4, PEER4), ports=(67, 68))),
    ),
    scenario(
        "a secured port is no router",
        secured,
        *refused(
            DropReason.UNTRUSTED_SERVER,
            discovery(134, (LINK_LOCAL, NODES), "", source_mac(A)),
            discovery(134, (OWN6, NODES)),
            icmp((LINK_LOCAL, PEER6), (A, B), 137, payload=bytes(32), ttl=255),
        ),
        *refused(DropReason.SPOOFED_ADDRESS, discovery(134, ("fe80::1", NODES))),
    ),
    scenario(
        "an unsecured port may be all of that",
        lambda: World().bridge("b").port("p1", on="b", host="h1").port("p2", on="b", host="h1"),
        *passes(
            dhcp((OWN4, "255.255.255.255"), sport=67, dport=68),
            discovery(134, ("fe80::1", NODES), "", source_mac(A)),
            arp((B, PEER4), OWN4),
        ),
    ),
    scenario(
        "an error about a packet comes from the port's own address",
        secured,
        *passes(error("port unreachable", (OWN4, PEER4), (A, B), udp((PEER4, OWN4)))),
        *refused(
            DropReason.SPOOFED_ADDRESS,
            error("port unreachable", (PEER4, OWN4), (A, B), udp((OWN4, PEER4))),
        ),
    ),
]  # fmt: skip

SCENARIOS: list[Scenario] = [*SPEAKING, *ASKING, *SERVING]


def _plain() -> World:
    return World().bridge("b").port("p1", on="b", host="h1").port("p2", on="b", host="h1")


def _with(*pairs: str) -> Callable[[], World]:
    return lambda: _plain().secure("p1", *pairs)


_OWN, _FORGED = udp((OWN4, PEER4)), udp((PEER4, OWN4))
_OWN_PASSES, _FORGED_PASSES = passes(_OWN)[0], passes(_FORGED)[0]

SEQUENCE = Sequence(
    "port security comes, changes and goes",
    (
        state("none", _plain, _OWN_PASSES, _FORGED_PASSES),
        state("own address", _with(f"{A} {OWN4}/32"), _OWN_PASSES,
              *refused(DropReason.SPOOFED_ADDRESS, _FORGED)),
        state("another address", _with(f"{A} {PEER4}/32"), _FORGED_PASSES,
              *refused(DropReason.SPOOFED_ADDRESS, _OWN)),
        state("their network", _with(f"{A} 10.0.1.0/24"), _OWN_PASSES, _FORGED_PASSES),
        state("another MAC", _with(f"{B} 10.0.1.0/24"),
              *refused(DropReason.SPOOFED_MAC, _OWN, _FORGED)),
        state("nothing allowed", _with(), *refused(DropReason.SPOOFED_MAC, _OWN, _FORGED)),
    ),
)  # fmt: skip
