"""DHCP and DHCPv6 at the ports of bridges."""

from __future__ import annotations

from typing import Any

from midonet.agent.flows.drop_reason import DropReason
from tests.scenario.bridging import lan, small_lan
from tests.scenario.dhcp_messages import (
    ACK,
    ADVERTISE,
    ASK,
    CONFIRM,
    DAY,
    DECLINE,
    DISCOVER,
    EVERYONE,
    EVERYWHERE,
    GIVE_BACK,
    INFORM,
    INFORMATION,
    NAK,
    OFFER,
    REBIND,
    REFUSE,
    RELEASE,
    RENEW,
    REPLY,
    REQUEST,
    SERVER_DUID,
    SOLICIT,
    address6,
    association,
    duid,
    from_client,
    from_client6,
    given,
    ip,
    option6,
    status,
    to_client,
    to_client6,
)
from tests.scenario.frames import R1, A, B, C, udp
from tests.scenario.running import Scenario, at, dropped, scenario, sent, taken, through
from tests.worlds import World, rule

NET, NET6 = "10.0.1.0/24", "fd00:1::/64"
GATEWAY, OWN = "10.0.1.1", "10.0.1.5"
OWN6, LINK_LOCAL, OTHER_LINK_LOCAL = "fd00:1::5", "fe80::a", "fe80::b"
MASK, BROADCAST = (1, ip("255.255.255.0")), (28, ip("10.0.1.255"))
MTU = (26, (1500).to_bytes(2, "big"))
LEASE = (51, DAY)
IDENTITY = (54, ip(GATEWAY))
ROUTER = (3, ip(GATEWAY))
HEAD = (IDENTITY, LEASE)
PLAIN = (*HEAD, MASK, BROADCAST, MTU, ROUTER)
ROUTE = (GATEWAY, OWN)


def served(make: Any = small_lan, *, gateway: str = GATEWAY, **subnet: Any) -> World:
    """A bridge that serves a subnet with client A."""
    world: World = make().dhcp_subnet("b", NET, gateway=gateway, **subnet)
    return world.dhcp_client("b", NET, A, OWN)


def with_options(**options: str) -> World:
    """The same, with extra options of the client."""
    world = small_lan().dhcp_subnet("b", NET, gateway=GATEWAY)
    return world.dhcp_client("b", NET, A, OWN, **options)


def offered(*options: tuple[int, bytes], **fields: Any) -> bytes:
    return to_client(OFFER, A, ROUTE, *options, yiaddr=OWN, **fields)


def acknowledged(*options: tuple[int, bytes], **fields: Any) -> bytes:
    return to_client(ACK, A, ROUTE, *options, yiaddr=OWN, **fields)


def refused(*options: tuple[int, bytes], **fields: Any) -> bytes:
    route = (GATEWAY, EVERYWHERE)
    return to_client(NAK, A, route, *(options or (IDENTITY,)), to_mac=EVERYONE, **fields)


DISCOVERY = from_client(DISCOVER, A)
WANTED = (50, ip(OWN))


def _conversations() -> list[Scenario]:
    other = (50, ip("10.0.1.6"))
    return [
        scenario(
            "a client discovers and is given its address",
            served,
            taken("p1", DISCOVERY, at("p1", offered(*PLAIN))),
            taken("p1", from_client(REQUEST, A, WANTED, IDENTITY),
                  at("p1", acknowledged(*PLAIN))),
        ),
        scenario(
            "a client that asks for another address is refused",
            served,
            taken("p1", from_client(REQUEST, A, other, IDENTITY), at("p1", refused())),
            taken("p1", from_client(REQUEST, A, other), at("p1", refused())),
            taken("p1", from_client(REQUEST, A, route=("10.0.1.6", EVERYWHERE), ciaddr="10.0.1.6"),
                  at("p1", refused())),
        ),
        scenario(
            "a client renews by unicast to its server, and to everybody when that fails",
            served,
            taken("p1", from_client(REQUEST, A, route=(OWN, GATEWAY), to_mac=R1, ciaddr=OWN),
                  at("p1", acknowledged(*PLAIN, ciaddr=OWN))),
            taken("p1", from_client(REQUEST, A, route=(OWN, EVERYWHERE), ciaddr=OWN),
                  at("p1", acknowledged(*PLAIN, ciaddr=OWN))),
        ),
        scenario(
            "a client that reboots has its address confirmed",
            served,
            taken("p1", from_client(REQUEST, A, WANTED), at("p1", acknowledged(*PLAIN))),
        ),
        scenario(
            "a client that names another server is answered all the same",
            served,
            taken("p1", from_client(REQUEST, A, WANTED, (54, ip("10.0.1.99"))),
                  at("p1", acknowledged(*PLAIN))),
        ),
        scenario(
            "a client with an address of its own is told the rest",
            served,
            taken("p1", from_client(INFORM, A, route=(OWN, EVERYWHERE), ciaddr=OWN),
                  at("p1", to_client(ACK, A, ROUTE, IDENTITY, MASK, BROADCAST, MTU, ROUTER,
                                     ciaddr=OWN))),
        ),
        scenario(
            "a client that declines or releases is not answered",
            served,
            taken("p1", from_client(DECLINE, A, WANTED)),
            taken("p1", from_client(RELEASE, A, route=(OWN, GATEWAY), to_mac=R1, ciaddr=OWN)),
        ),
        scenario(
            "an answer goes to everybody where the client asks for that",
            served,
            taken("p1", from_client(DISCOVER, A, flags=0x8000),
                  at("p1", to_client(OFFER, A, (GATEWAY, EVERYWHERE), *PLAIN, yiaddr=OWN,
                                     flags=0x8000, to_mac=EVERYONE))),
        ),
        scenario(
            "an answer goes to the relay that passed the question on",
            served,
            taken("p1", from_client(DISCOVER, A, giaddr="10.0.7.1"),
                  at("p1", to_client(OFFER, A, (GATEWAY, "10.0.7.1"), *PLAIN, yiaddr=OWN,
                                     giaddr="10.0.7.1", port=67))),
        ),
    ]  # fmt: skip


def _options() -> list[Scenario]:
    routes = (121, bytes.fromhex("080a0a000103") + b"\0" + ip(GATEWAY))
    return [
        scenario(
            "a subnet tells its server, its name servers and its routes",
            lambda: served(server="10.0.1.2", dns=("192.0.2.53", "192.0.2.54"),
                           routes=(("10.0.0.0/8", "10.0.1.3"),)),
            taken("p1", DISCOVERY,
                  at("p1", to_client(OFFER, A, ("10.0.1.2", OWN), (54, ip("10.0.1.2")), LEASE, MASK,
                                     BROADCAST, MTU, ROUTER, (6, ip("192.0.2.53", "192.0.2.54")),
                                     routes, yiaddr=OWN))),
        ),
        scenario(
            "a subnet without gateway and server tells neither",
            lambda: small_lan().dhcp_subnet("b", NET, routes=(("10.0.0.0/8", "10.0.1.3"),))
            .dhcp_client("b", NET, A, OWN),
            taken("p1", DISCOVERY,
                  at("p1", to_client(OFFER, A, ("0.0.0.0", OWN), (54, bytes(4)), LEASE, MASK,
                                     BROADCAST, MTU, (121, bytes.fromhex("080a0a000103")),
                                     yiaddr=OWN))),
        ),
        scenario(
            "the MTU that is told is no more than the overlay carries",
            lambda: served(lan),
            taken("p1", DISCOVERY,
                  at("p1", offered(*HEAD, MASK, BROADCAST, (26, (1450).to_bytes(2, "big")),
                                   ROUTER))),
        ),
        scenario(
            "the MTU that is told is that of the subnet where the overlay carries it",
            lambda: served(lan, mtu=1400),
            taken("p1", DISCOVERY,
                  at("p1", offered(*HEAD, MASK, BROADCAST, (26, (1400).to_bytes(2, "big")),
                                   ROUTER))),
        ),
        scenario(
            "a subnet may have jumbo frames, and an MTU that does not exist is not told",
            lambda: served(mtu=65536),
            taken("p1", DISCOVERY,
                  at("p1", offered(*HEAD, MASK, BROADCAST, (26, b"\xff\xff"), ROUTER))),
        ),
        scenario(
            "an MTU below the least is not told",
            lambda: served(mtu=67),
            taken("p1", DISCOVERY, at("p1", offered(*HEAD, MASK, BROADCAST, ROUTER))),
        ),
        scenario(
            "options of a client take the place of those of the subnet",
            lambda: with_options(router="10.0.1.9", _15="example.org", domain_search="a.b"),
            taken("p1", DISCOVERY,
                  at("p1", offered(*HEAD, MASK, BROADCAST, MTU, (3, ip("10.0.1.9")),
                                   (15, b"example.org"), (119, b"\1a\1b\0")))),
        ),
        scenario(
            "a client boots from the server that it is told",
            lambda: with_options(server_ip_address="192.0.2.9", bootfile_name="pxelinux.0"),
            taken("p1", DISCOVERY,
                  at("p1", offered(*PLAIN, (67, b"pxelinux.0"), siaddr="192.0.2.9"))),
        ),
        scenario(
            "what a client asks for comes first, in its order",
            served,
            taken("p1", from_client(DISCOVER, A, (55, bytes((3, 26, 42, 1, 3)))),
                  at("p1", offered(*HEAD, ROUTER, MTU, MASK, BROADCAST))),
        ),
        scenario(
            "what a client has no room for is left out, what it asks for last",
            lambda: with_options(_224="x" * 250, _225="y" * 200, _15="example.org"),
            taken("p1", DISCOVERY,
                  at("p1", offered(*PLAIN, (224, b"x" * 250), (15, b"example.org")))),
            taken("p1", from_client(DISCOVER, A, (55, bytes((15, 225)))),
                  at("p1", offered(*HEAD, (15, b"example.org"), (225, b"y" * 200), MASK, BROADCAST,
                                   MTU, ROUTER))),
            taken("p1", from_client(DISCOVER, A, (57, (1500).to_bytes(2, "big"))),
                  at("p1", offered(*PLAIN, (224, b"x" * 250), (225, b"y" * 200),
                                   (15, b"example.org")))),
        ),
    ]  # fmt: skip


def _refusals() -> list[Scenario]:
    return [
        scenario(
            "what no client says is dropped by name",
            served,
            *(dropped("p1", from_client(kind, A), DropReason.DHCP_NOT_SERVED)
              for kind in (OFFER, ACK, NAK, 0, 9, 255)),
        ),
        scenario(
            "a DHCP message that contradicts itself is malformed",
            served,
            dropped("p1", from_client(None, A), DropReason.MALFORMED),
            dropped("p1", from_client(DISCOVER, A, hlen=5), DropReason.MALFORMED),
            dropped("p1", from_client(DISCOVER, A, hlen=255), DropReason.MALFORMED),
            dropped("p1", from_client(DISCOVER, A, operation=2), DropReason.MALFORMED),
            dropped("p1", from_client(REQUEST, A, (50, b"\n")), DropReason.MALFORMED),
            dropped("p1", from_client(DISCOVER, A, (57, b"\n")), DropReason.MALFORMED),
            dropped("p1", from_client(DISCOVER, A, (52, b"\7")), DropReason.MALFORMED),
            dropped("p1", udp(("0.0.0.0", EVERYWHERE), (A, EVERYONE), ports=(68, 67)),
                    DropReason.MALFORMED),
        ),
        scenario(
            "a client without an entry is left to others",
            served,
            sent("p1", from_client(DISCOVER, B), at("p2", from_client(DISCOVER, B))),
        ),
        scenario(
            "an entry without an address gives nothing",
            lambda: small_lan().dhcp_subnet("b", NET).dhcp_client("b", NET, A, None),
            sent("p1", DISCOVERY, at("p2", DISCOVERY)),
        ),
        scenario(
            "the server of a subnet that is not enabled leaves requests to others",
            lambda: served(enabled=False),
            sent("p1", DISCOVERY, at("p2", DISCOVERY)),
        ),
        scenario(
            "another subnet of the bridge serves the client of one that is not enabled",
            lambda: served(enabled=False).dhcp_subnet("b", "10.0.9.0/24", gateway="10.0.9.1")
            .dhcp_client("b", "10.0.9.0/24", A, "10.0.9.5"),
            taken("p1", DISCOVERY,
                  at("p1", to_client(OFFER, A, ("10.0.9.1", "10.0.9.5"), (54, ip("10.0.9.1")),
                                     LEASE, MASK, (28, ip("10.0.9.255")), MTU,
                                     (3, ip("10.0.9.1")), yiaddr="10.0.9.5"))),
        ),
        scenario(
            "a client of two subnets is served by the lower one",
            lambda: served().dhcp_subnet("b", "10.0.0.0/24", gateway="10.0.0.1")
            .dhcp_client("b", "10.0.0.0/24", A, "10.0.0.5"),
            taken("p1", DISCOVERY,
                  at("p1", to_client(OFFER, A, ("10.0.0.1", "10.0.0.5"), (54, ip("10.0.0.1")),
                                     LEASE, MASK, (28, ip("10.0.0.255")), MTU,
                                     (3, ip("10.0.0.1")), yiaddr="10.0.0.5"))),
        ),
        scenario(
            "what a client says to another server passes",
            served,
            sent("p1", from_client(REQUEST, A, route=(OWN, "10.0.1.99"), to_mac=B, ciaddr=OWN),
                 at("p2", from_client(REQUEST, A, route=(OWN, "10.0.1.99"), to_mac=B,
                                      ciaddr=OWN))),
        ),
        scenario(
            "other datagrams of a client pass",
            served,
            *(sent("p1", udp((OWN, there), (A, to_mac), ports=ports),
                   at("p2", udp((OWN, there), (A, to_mac), ports=ports)))
              for there, to_mac, ports in (
                  (EVERYWHERE, EVERYONE, (68, 69)), (EVERYWHERE, EVERYONE, (67, 67)),
                  (GATEWAY, B, (68, 53)), ("10.0.1.6", B, (68, 67)))),
        ),
        scenario(
            "tagged frames are not looked into",
            served,
            sent("p1", from_client(DISCOVER, A, vlan=7),
                 at("p2", from_client(DISCOVER, A, vlan=7))),
        ),
        scenario(
            "a server in a virtual machine may answer who has no entry",
            served,
            sent("p2", from_client(OFFER, B, ports=(67, 68), to_mac=C),
                 at("p1", from_client(OFFER, B, ports=(67, 68), to_mac=C))),
        ),
    ]  # fmt: skip


def _places() -> list[Scenario]:
    def closed() -> World:
        world = World().bridge("b", inbound="no", outbound="no", up=False).chain("no", rule("drop"))
        world.port("p1", on="b", host="h1", inbound="no", outbound="no", up=False)
        return served(lambda: world.port("p2", on="b", host="h1"))

    def access() -> World:
        world = World().bridge("b").port("p1", on="b", host="h1", vlan=7)
        return served(lambda: world.port("p2", on="b", host="h1", vlan=7))

    return [
        scenario(
            "a client is served whatever the state and the filters of port and bridge",
            closed,
            taken("p1", DISCOVERY, at("p1", offered(*PLAIN))),
            taken("p1", from_client(REQUEST, A, WANTED), at("p1", acknowledged(*PLAIN))),
        ),
        scenario(
            "nobody learns a MAC from what the bridge served",
            lambda: served(lan),
            taken(
                "p1",
                DISCOVERY,
                at("p1", offered(*HEAD, MASK, BROADCAST, (26, (1450).to_bytes(2, "big")), ROUTER)),
            ),
            sent(
                "p2",
                udp(("10.0.1.6", OWN), (B, A)),
                *(_everywhere(udp(("10.0.1.6", OWN), (B, A)), "p2")),
            ),
        ),
        scenario(
            "a client behind an access port is served without a tag",
            access,
            taken("p1", DISCOVERY, at("p1", offered(*PLAIN))),
        ),
    ]


def _everywhere(frame: bytes, ingress: str) -> list[Any]:
    local = [at(name, frame) for name in ("p1", "p2") if name != ingress]
    return [*local, through(103, frame), through(104, frame),
            through(105, frame, remote="192.0.2.3")]  # fmt: skip


# DHCPv6.

DNS = option6(23, ip("2001:db8::53"))
SEARCH = option6(24, b"\7example\3org\0")


def served6(client: str = duid(A).hex(":"), address: str | None = OWN6, **subnet: Any) -> World:
    """A bridge that serves an IPv6 subnet with one client."""
    world = small_lan().dhcp_v6_subnet(
        "b", NET6, dns=("2001:db8::53",), domains=("example.org",), **subnet
    )
    return world.dhcp_v6_client("b", NET6, client, address)


def spoken(kind: int, *options: bytes, mac: str = A, **more: Any) -> bytes:
    return from_client6(kind, mac, LINK_LOCAL, *options, **more)


def answered(kind: int, *options: bytes, **more: Any) -> bytes:
    return to_client6(kind, A, LINK_LOCAL, *options, **more)


OURS = option6(2, SERVER_DUID)
THEIRS = option6(2, duid(B))
PREFERRED = option6(7, b"\xff")
FOUND = (given(OWN6), DNS, SEARCH)


def _conversations6() -> list[Scenario]:
    stale = address6("fd00:1::99", 100)
    llt = bytes.fromhex("000100012a000000") + bytes.fromhex(A.replace(":", ""))
    return [
        scenario(
            "a DHCPv6 client solicits and is given its address",
            served6,
            taken("p1", spoken(SOLICIT, association(), option6(6, b"\0\x17\0\x18")),
                  at("p1", answered(ADVERTISE, PREFERRED, *FOUND))),
            taken("p1", spoken(ASK, OURS, association(address6(OWN6))),
                  at("p1", answered(REPLY, *FOUND))),
        ),
        scenario(
            "a DHCPv6 client in a hurry is answered at once",
            served6,
            taken("p1", spoken(SOLICIT, association(), option6(14)),
                  at("p1", answered(REPLY, option6(14), *FOUND))),
        ),
        scenario(
            "a DHCPv6 client renews and rebinds, and loses what it should not have",
            served6,
            taken("p1", spoken(RENEW, OURS, association(address6(OWN6, 50))),
                  at("p1", answered(REPLY, *FOUND))),
            taken("p1", spoken(REBIND, association(stale)),
                  at("p1", answered(REPLY, given(OWN6, address6("fd00:1::99")), DNS, SEARCH))),
        ),
        scenario(
            "a DHCPv6 client is told whether its address is on this link",
            served6,
            taken("p1", spoken(CONFIRM, association(address6("fd00:1::99"))),
                  at("p1", answered(REPLY, status(0)))),
            taken("p1", spoken(CONFIRM, association(address6("fd00:2::5"))),
                  at("p1", answered(REPLY, status(4)))),
        ),
        scenario(
            "a DHCPv6 client that releases or declines is heard",
            served6,
            taken("p1", spoken(GIVE_BACK, OURS, association(address6(OWN6))),
                  at("p1", answered(REPLY, status(0)))),
            taken("p1", spoken(REFUSE, OURS, association(address6(OWN6))),
                  at("p1", answered(REPLY, status(0)))),
        ),
        scenario(
            "a machine that makes its own addresses is told the rest",
            served6,
            taken("p1", spoken(INFORMATION), at("p1", answered(REPLY, DNS, SEARCH))),
            taken("p1", spoken(INFORMATION, client=b""),
                  at("p1", answered(REPLY, DNS, SEARCH, client=b""))),
            taken("p2", from_client6(INFORMATION, B, OTHER_LINK_LOCAL),
                  at("p2", to_client6(REPLY, B, OTHER_LINK_LOCAL, DNS, SEARCH))),
        ),
        scenario(
            "a DHCPv6 client is known by its MAC where nobody knows its DUID",
            lambda: served6(A),
            taken("p1", spoken(SOLICIT, association(), client=llt),
                  at("p1", answered(ADVERTISE, PREFERRED, *FOUND, client=llt))),
        ),
        scenario(
            "a second association gets no address, nor do temporary ones and prefixes",
            served6,
            taken("p1", spoken(SOLICIT, association(), association(iaid=8),
                               option6(4, b"\0\0\0\1"), option6(25, b"\0\0\0\2" + bytes(8))),
                  at("p1", answered(ADVERTISE, PREFERRED, given(OWN6),
                                    association(status(2), iaid=8),
                                    option6(4, b"\0\0\0\1" + status(2)),
                                    option6(25, b"\0\0\0\2" + bytes(8) + status(6)),
                                    DNS, SEARCH))),
            taken("p1", spoken(SOLICIT, option6(25, b"\0\0\0\2" + bytes(8))),
                  at("p1", answered(ADVERTISE, status(2)))),
        ),
        scenario(
            "a DHCPv6 subnet without name servers tells none",
            lambda: small_lan().dhcp_v6_subnet("b", NET6).dhcp_v6_client("b", NET6, A, OWN6),
            taken("p1", spoken(SOLICIT, association()),
                  at("p1", answered(ADVERTISE, PREFERRED, given(OWN6)))),
            taken("p1", spoken(INFORMATION), at("p1", answered(REPLY))),
        ),
    ]  # fmt: skip


def _refusals6() -> list[Scenario]:
    def passes(frame: bytes) -> Any:
        return sent("p1", frame, at("p2", frame))

    return [
        scenario(
            "a DHCPv6 client without an entry is left to others",
            served6,
            passes(spoken(SOLICIT, association(), client=duid(B))),
            passes(spoken(REBIND, association(), client=duid(B))),
            passes(spoken(ASK, OURS, association(), client=duid(B))),
        ),
        scenario(
            "what a DHCPv6 client says to another server passes",
            served6,
            passes(spoken(ASK, THEIRS, association(address6(OWN6)))),
            passes(spoken(RENEW, THEIRS, association(address6(OWN6)))),
            passes(spoken(INFORMATION, THEIRS)),
        ),
        scenario(
            "the DHCPv6 server of a subnet that is not enabled leaves requests to others",
            lambda: served6(enabled=False),
            passes(spoken(SOLICIT, association())),
            passes(spoken(INFORMATION)),
        ),
        scenario(
            "what no DHCPv6 client says is dropped by name",
            served6,
            *(dropped("p1", spoken(kind), DropReason.DHCP_NOT_SERVED)
              for kind in (0, ADVERTISE, REPLY, 10, 14, 255)),
        ),
        scenario(
            "a DHCPv6 message that contradicts itself is malformed",
            served6,
            *(dropped("p1", frame, DropReason.MALFORMED) for frame in (
                spoken(12), spoken(13),
                spoken(SOLICIT, association(), client=b""),
                spoken(SOLICIT, OURS, association()),
                spoken(ASK, association()),
                spoken(SOLICIT, b"\0\3\0\xff"),
                spoken(SOLICIT, option6(3, bytes(11))),
                spoken(SOLICIT, option6(4, bytes(3))),
                spoken(SOLICIT, association(option6(5, bytes(23)))),
                spoken(CONFIRM), spoken(CONFIRM, association()),
                spoken(INFORMATION, association()),
            )),
        ),
        scenario(
            "other IPv6 datagrams of a client pass",
            served6,
            *(passes(udp((LINK_LOCAL, there), (A, to_mac), ports=ports))
              for there, to_mac, ports in (
                  ("ff02::1:2", "33:33:00:01:00:02", (546, 548)),
                  ("ff02::1:3", "33:33:00:01:00:03", (546, 547)),
                  (OTHER_LINK_LOCAL, B, (546, 547)))),
        ),
        scenario(
            "a DHCPv6 client is served whatever the state and the filters of its port",
            _closed6,
            taken("p1", spoken(SOLICIT, association()),
                  at("p1", answered(ADVERTISE, PREFERRED, given(OWN6)))),
        ),
    ]  # fmt: skip


def _closed6() -> World:
    world = World().bridge("b", up=False).chain("no", rule("drop"))
    world.port("p1", on="b", host="h1", inbound="no", outbound="no", up=False)
    return world.dhcp_v6_subnet("b", NET6).dhcp_v6_client("b", NET6, A, OWN6)


SCENARIOS: list[Scenario] = [
    *_conversations(),
    *_options(),
    *_refusals(),
    *_places(),
    *_conversations6(),
    *_refusals6(),
]
