"""What routers learn of their neighbours, and from which messages: validity, flags, proxies."""

from __future__ import annotations

from collections.abc import Iterator

from midonet.agent.flows.drop_reason import DropReason
from midonet.packets.addresses import IpAddress, IpVersion, parse_ip
from midonet.packets.arp import ArpMessage
from midonet.packets.build import Envelope, ethernet_frame, icmpv6_frame
from midonet.packets.frame import parse_frame
from midonet.packets.nd import (
    NdOption,
    NdOptionKind,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    link_address_option,
)
from midonet.packets.neighbour import (
    ALL_NODES,
    multicast_mac,
    neighbour_reply,
    solicited_node_address,
)
from tests.scenario.frames import EVERYONE, R1, R2, V4, V6, B, C, mac, udp
from tests.scenario.routed_networks import edge, networks
from tests.scenario.running import Scenario, Step, at, dropped, scenario, sent, taken, waits
from tests.worlds import World

D = "02:aa:00:00:00:04"
ASKER4, ASKER6 = V4.host(1, 7), V6.host(1, 7)
OWN4, OWN6 = V4.host(1, 1), V6.host(1, 1)
GROUP_MAC = "01:00:5e:00:00:01"


def value(text: str) -> int:
    return parse_ip(text).value


def arp(
    operation: int, sender: tuple[str, str], target: tuple[str, str], *, to: str = EVERYONE,
    by: str = "",
) -> bytes:  # fmt: skip
    """Return an ARP message. sender, target: MAC and address; by: another Ethernet source."""
    message = ArpMessage(
        operation, mac(sender[0]), value(sender[1]), mac(target[0]), value(target[1])
    )
    return ethernet_frame(mac(to), mac(by or sender[0]), 0x0806, message.serialise())


NOBODY = "00:00:00:00:00:00"


def request(of: str, target: str, *, at_mac: str = C) -> bytes:
    return arp(1, (at_mac, of), (NOBODY, target))


def advertisement(
    at_mac: str | None,
    *,
    solicited: bool = False,
    override: bool = False,
    to: str = "",
    hop_limit: int = 255,
    target: str = ASKER6,
    more: tuple[NdOption, ...] = (),
    by: str = C,
    eth_dst: str = "",
) -> bytes:
    """Return an advertisement of ASKER6 to all nodes or to `to`."""
    options = () if at_mac is None else (
        link_address_option(NdOptionKind.TARGET_LINK_ADDRESS, mac(at_mac)),
    )  # fmt: skip
    message = NeighbourAdvertisement(
        value(target), is_solicited=solicited, is_override=override, options=(*options, *more)
    )
    destination = value(to) if to else ALL_NODES
    link = mac(eth_dst or R1) if to else multicast_mac(ALL_NODES)
    envelope = Envelope(mac(by), link, _v6(value(ASKER6)), _v6(destination), ttl=hop_limit)
    return icmpv6_frame(envelope, message.serialise())


def solicitation(
    of: str, *, source: str = ASKER6, at_mac: str | None = C, hop_limit: int = 255, to: str = ""
) -> bytes:
    """Return a solicitation to the solicited-node group of `of`, or to `to`."""
    options = () if at_mac is None else (
        link_address_option(NdOptionKind.SOURCE_LINK_ADDRESS, mac(at_mac)),
    )  # fmt: skip
    group = solicited_node_address(value(of))
    destination = value(to) if to else group
    link = mac(R1) if to else multicast_mac(group)
    envelope = Envelope(mac(C), link, _v6(value(source)), _v6(destination), ttl=hop_limit)
    return icmpv6_frame(envelope, NeighbourSolicitation(value(of), options).serialise())


def _v6(address: int) -> IpAddress:
    return IpAddress(IpVersion.V6, address)


def damaged(frame: bytes) -> bytes:
    """Return the frame with a wrong checksum."""
    return frame[:-1] + bytes((frame[-1] ^ 1,))


def answered(port: str, asked: bytes, *, by: str = R1, is_router: bool = False) -> Step:
    """Expect a question to be answered in a router's name."""
    return taken(port, asked, at(port, neighbour_reply(
        parse_frame(asked), mac(by), is_router=is_router)))  # fmt: skip


def reaches(at_mac: str, *, version: int = 4, port: str = "a", source: str = "b") -> Step:
    """Expect a packet through the router to the asker to go to a MAC."""
    family, asker = (V4, ASKER4) if version == 4 else (V6, ASKER6)
    route = family.host(2, 5), asker
    return sent(source, udp(route, (B, R2)), at(port, udp(route, (R1, at_mac), ttl=63)))


def unknown(version: int = 4) -> Step:
    """Expect the router not to know the asker."""
    family, asker = (V4, ASKER4) if version == 4 else (V6, ASKER6)
    return waits("b", udp((family.host(2, 5), asker), (B, R2)), f"a {asker}")


def known_at(at_mac: str) -> World:
    """`edge`, where the router knows the asker at a MAC, over both versions."""
    return edge().neighbour("r", ASKER4, at_mac).neighbour("r", ASKER6, at_mac)


def proxied() -> World:
    """`networks`, where the router knows the asker at D, over both versions."""
    world = networks().neighbour("r", ASKER4, D).neighbour("r", ASKER6, D)
    return world.mac_at("n1", C, "vm3").mac_at("n1", D, "vm1")


def _advertised() -> Iterator[Scenario]:
    """RFC 4861 section 7.2.5, flag by flag."""
    unicast = {"solicited": True, "to": OWN6}
    yield scenario(
        "an advertisement without override does not replace an entry",
        lambda: known_at(D),
        taken("a", advertisement(C)),
        reaches(D, version=6),
        taken("a", advertisement(C, solicited=True, to=OWN6)),
        reaches(D, version=6),
    )
    yield scenario(
        "an advertisement with override replaces an entry, solicited or not",
        lambda: known_at(D),
        taken("a", advertisement(C, override=True)),
        reaches(C, version=6),
        taken("a", advertisement(D, override=True, solicited=True, to=OWN6)),
        reaches(D, version=6),
    )
    yield scenario(
        "an advertisement without an address confirms what is known and enters nothing",
        edge,
        dropped("a", advertisement(None, solicited=True, to=OWN6), DropReason.NOT_FOR_ROUTER),
        unknown(6),
        taken("a", advertisement(D, solicited=True, to=OWN6)),
        taken("a", advertisement(None, solicited=True, to=OWN6)),
        reaches(D, version=6),
    )
    yield scenario(
        "an advertisement that nobody asked for enters a neighbour, once",
        edge,
        taken("a", advertisement(C)),
        reaches(C, version=6),
        taken("a", advertisement(D)),
        reaches(C, version=6),
    )
    refused = [
        (advertisement(C, override=True, hop_limit=254), "came through a router"),
        (advertisement(C, override=True, solicited=True), "tells a group that it asked"),
        (damaged(advertisement(C, override=True, **unicast)), "has a wrong checksum"),  # type: ignore[arg-type]
        (advertisement(C, override=True, target="ff02::7"), "is about a group"),
        (
            advertisement(C, override=True, more=(NdOption(200, b""),))[:-1] + b"\0",
            "has an option of length 0",
        ),
    ]
    for frame, why in refused:
        yield scenario(
            f"an advertisement that {why} is not valid",
            lambda: known_at(D),
            dropped("a", frame, DropReason.MALFORMED),
            reaches(D, version=6),
        )
    for at_mac in (GROUP_MAC, EVERYONE, NOBODY):
        yield scenario(
            f"an advertisement of the MAC {at_mac} teaches nothing",
            lambda: known_at(D),
            taken("a", advertisement(at_mac, override=True)),
            reaches(D, version=6),
        )
    yield scenario(
        "an advertisement of the router's own address teaches nothing",
        edge,
        dropped("a", advertisement(C, override=True, target=OWN6), DropReason.NOT_FOR_ROUTER),
        dropped("a", advertisement(C, override=True, target="2001:db8::1"),
                DropReason.NOT_FOR_ROUTER),
    )  # fmt: skip


def _solicited() -> Iterator[Scenario]:
    """RFC 4861 sections 7.1.1 and 7.2.3."""
    yield scenario(
        "a solicitation moves the entry of its sender",
        lambda: known_at(D),
        answered("a", solicitation(OWN6), is_router=True),
        reaches(C, version=6),
    )
    yield scenario(
        "a solicitation without a link-layer address is answered and moves nothing",
        lambda: known_at(D),
        answered("a", solicitation(OWN6, at_mac=None), is_router=True),
        reaches(D, version=6),
        answered("a", solicitation(OWN6, at_mac=GROUP_MAC), is_router=True),
        reaches(D, version=6),
    )
    yield scenario(
        "a probe teaches nothing",
        lambda: known_at(D),
        answered("a", solicitation(OWN6, source="::", at_mac=None), is_router=True),
        reaches(D, version=6),
    )
    for frame, why in (
        (solicitation(OWN6, hop_limit=64), "came through a router"),
        (damaged(solicitation(OWN6)), "has a wrong checksum"),
        (solicitation(OWN6, source="::"), "is a probe and names its MAC"),
        (solicitation(OWN6, source="::", at_mac=None, to=OWN6), "is a probe to one host"),
    ):
        yield scenario(
            f"a solicitation that {why} is not valid",
            lambda: known_at(D),
            dropped("a", frame, DropReason.MALFORMED),
            reaches(D, version=6),
        )
    yield scenario(
        "a solicitation for somebody else is discarded",
        lambda: known_at(D),
        dropped("a", solicitation(V6.host(1, 9)), DropReason.NOT_FOR_ROUTER),
        reaches(D, version=6),
    )


def _arp() -> Iterator[Scenario]:
    """RFC 826 "packet reception", RFC 5227, RFC 1812 section 3.3.2."""
    yield scenario(
        "a request for somebody else moves a known neighbour and enters no new one",
        lambda: known_at(D),
        dropped("a", request(ASKER4, V4.host(1, 9)), DropReason.NOT_FOR_ROUTER),
        reaches(C),
        dropped("a", request(V4.host(1, 8), V4.host(1, 9)), DropReason.NOT_FOR_ROUTER),
        waits("b", udp((V4.host(2, 5), V4.host(1, 8)), (B, R2)), f"a {V4.host(1, 8)}"),
    )
    yield scenario(
        "a probe teaches nothing (ARP)",
        lambda: known_at(D),
        answered("a", request("0.0.0.0", OWN4)),
        dropped("a", request("0.0.0.0", ASKER4), DropReason.NOT_FOR_ROUTER),
        reaches(D),
    )
    for at_mac in (GROUP_MAC, EVERYONE, NOBODY):
        yield scenario(
            f"a message of the MAC {at_mac} is believed by nobody",
            lambda: known_at(D),
            *(
                dropped("a", arp(operation, (at_mac, ASKER4), (to_mac, target), by=C),
                        DropReason.MALFORMED)
                for operation, to_mac, target in
                ((1, NOBODY, OWN4), (1, NOBODY, ASKER4), (2, R1, OWN4), (2, EVERYONE, ASKER4),
                 (1, NOBODY, V4.host(1, 9)))
            ),
            reaches(D),
        )  # fmt: skip
    yield scenario(
        "no neighbour is called like the router, its subnet's broadcast or a reserved address",
        edge,
        *(
            dropped("a", request(sender, OWN4), DropReason.NOT_FOR_ROUTER)
            for sender in (OWN4, V4.host(1, 255), V4.host(9, 5), "127.0.0.1", "224.0.0.1")
        ),
    )
    yield scenario(
        "an operation that is neither request nor reply teaches nothing",
        lambda: known_at(D),
        *(
            dropped("a", arp(operation, (C, ASKER4), (NOBODY, target)), DropReason.NOT_FOR_ROUTER)
            for operation in (0, 3, 8)
            for target in (OWN4, ASKER4)
        ),
        reaches(D),
    )


def _proxied() -> Iterator[Scenario]:
    """What a bridge keeps from its routers teaches them all the same."""

    def seen(version: int, at_mac: str) -> Step:
        port = {C: "vm3", D: "vm1"}[at_mac]
        return reaches(at_mac, version=version, port=port, source="vm2")

    yield scenario(
        "an answer in a router's name moves the router's entry of who asked",
        proxied,
        seen(4, D),
        answered("vm3", request(ASKER4, OWN4)),
        seen(4, C),
        seen(6, D),
        answered("vm3", solicitation(OWN6), is_router=True),
        seen(6, C),
    )
    yield scenario(
        "an answer in a router's name enters who asked",
        lambda: networks().mac_at("n1", C, "vm3"),
        answered("vm3", request(ASKER4, OWN4)),
        seen(4, C),
        answered("vm3", solicitation(OWN6), is_router=True),
        seen(6, C),
    )
    for what, asked in (
        ("a request for another host", request(ASKER4, V4.host(1, 9))),
        ("an announcement", request(ASKER4, ASKER4)),
        ("an announcement as a reply", arp(2, (C, ASKER4), (EVERYONE, ASKER4))),
    ):
        yield scenario(
            f"{what} on a bridge moves the entry of an attached router",
            proxied,
            sent("vm3", asked, at("vm1", asked)),
            seen(4, C),
        )
    for what, frame, place in (
        ("with override", advertisement(C, override=True), C),
        ("without override", advertisement(C), D),
        ("that is not valid", advertisement(C, override=True, hop_limit=1), D),
    ):
        yield scenario(
            f"an announcement {what} on a bridge as an attached router takes it",
            proxied,
            sent("vm3", frame, at("vm1", frame)),
            seen(6, place),
        )
    yield scenario(
        "an announcement on a bridge enters nobody in a router's table",
        networks,
        sent("vm3", request(ASKER4, ASKER4), at("vm1", request(ASKER4, ASKER4))),
        waits("vm2", udp((V4.host(2, 5), ASKER4), (B, R2)), f"g1 {ASKER4}"),
        sent("vm3", advertisement(C, override=True), at("vm1", advertisement(C, override=True))),
        waits("vm2", udp((V6.host(2, 5), ASKER6), (B, R2)), f"g1 {ASKER6}"),
    )
    yield scenario(
        "a probe that a bridge answers teaches the router nothing",
        proxied,
        answered("vm3", request("0.0.0.0", OWN4)),
        answered("vm3", solicitation(OWN6, source="::", at_mac=None), is_router=True),
        seen(4, D),
        seen(6, D),
    )
    yield scenario(
        "a group MAC moves nothing on a bridge",
        lambda: proxied().bridge_neighbour("n1", ASKER4, D),
        *(
            sent("vm3", frame, at("vm1", frame))
            for frame in (
                arp(1, (GROUP_MAC, ASKER4), (NOBODY, ASKER4), by=C),
                arp(1, (EVERYONE, ASKER4), (NOBODY, OWN4), by=C),
            )
        ),
        seen(4, D),
    )
    yield scenario(
        "the table of a bridge follows an advertisement with override only",
        lambda: networks().bridge_neighbour("n1", ASKER6, D),
        sent("vm3", advertisement(C), at("vm1", advertisement(C))),
        taken("vm1", solicitation(ASKER6, source=V6.host(1, 5)),
              at("vm1", neighbour_reply(
                  parse_frame(solicitation(ASKER6, source=V6.host(1, 5))), mac(D)))),
    )  # fmt: skip


SCENARIOS: list[Scenario] = [*_advertised(), *_solicited(), *_arp(), *_proxied()]
