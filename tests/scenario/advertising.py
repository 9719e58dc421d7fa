"""Router solicitations, and what routers advertise. Messages are written byte by byte."""

from __future__ import annotations

import struct
from typing import Any

from midonet.agent.flows.drop_reason import DropReason
from midonet.packets.addresses import parse_ip
from tests.scenario.dhcp_messages import ip
from tests.scenario.frames import R1, R2, R3, V4, V6, A, B, C, icmp, retagged, udp
from tests.scenario.routed_networks import edge, networks
from tests.scenario.running import Scenario, Step, at, dropped, scenario, sent, taken
from tests.worlds import World, rule

SOLICIT, ADVERTISE = 133, 134
ROUTERS, ROUTERS_MAC = "ff02::2", "33:33:00:00:00:02"
NODES = "ff02::1"
ASKER = "fe80::a"
R1_LOCAL, R2_LOCAL = "fe80::bb:ff:fe00:1", "fe80::bb:ff:fe00:2"


_SERVERS = parse_ip("2001:db8::53").value
_DOMAINS = ("x" * 62,) * 8


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def solicitation(
    source: str = ASKER,
    *,
    mac: str = A,
    to: tuple[str, str] = (ROUTERS, ROUTERS_MAC),
    options: bytes | None = None,
    **link: Any,
) -> bytes:
    """Return a solicitation, with the address of its sender unless it says otherwise."""
    body = b"\1\1" + _octets(mac) if options is None else options
    link.setdefault("ttl", 255)
    return icmp((source, to[0]), (mac, to[1]), SOLICIT, payload=body, **link)


def prefix(network: str, flags: int = 0xC0) -> bytes:
    """Return a prefix option of a /64."""
    return struct.pack("!BBBBIII", 3, 4, 64, flags, 2_592_000, 604_800, 0) + ip(network)


def mtu(size: int) -> bytes:
    return struct.pack("!BBHI", 5, 1, 0, size)


def advertisement(
    *options: bytes,
    mac: str = R1,
    source: str = R1_LOCAL,
    to: tuple[str, str] = (ASKER, A),
    flags: int = 0,
    lifetime_s: int = 1800,
    vlan: int | None = None,
) -> bytes:
    """Return what a router says to one who asked."""
    times = bytes(8)
    body = times + b"\1\1" + _octets(mac) + b"".join(options)
    rest = struct.pack("!BBH", 64, flags, lifetime_s)
    return icmp(
        (source, to[0]), (mac, to[1]), ADVERTISE, rest=int.from_bytes(rest, "big"), payload=body,
        ttl=255, vlan=vlan,
    )  # fmt: skip


PLAIN = (mtu(1500), prefix("fd00:1::"))
SAID = advertisement(*PLAIN)


def _lan(**advertising: Any) -> World:
    """The networks with one router; that of `n1` advertises."""
    return networks().advertise("g1", **advertising)


def _asks(name: str, make: Any, answer: bytes, frame: bytes | None = None) -> Scenario:
    """Machine `vm1` asks, hears the answer, and `vm3` hears the question."""
    asked = solicitation() if frame is None else frame
    return scenario(name, make, sent("vm1", asked, at("vm1", answer), at("vm3", asked)))


def _passes(frame: bytes) -> Step:
    return sent("vm1", frame, at("vm3", frame))


def _of_bridges() -> list[Scenario]:
    dns = b"\x19\3\0\0" + (1800).to_bytes(4, "big") + ip("2001:db8::53")
    search = b"\x1f\3\0\0" + (1800).to_bytes(4, "big") + b"\7example\3org\0" + bytes(3)
    hurried = b"\x19\3\0\0" + (30).to_bytes(4, "big") + ip("2001:db8::53")
    unnamed = solicitation("::", options=b"")
    return [
        _asks("a machine that solicits hears the router of its bridge", _lan, SAID),
        _asks(
            "a machine without an address hears what all nodes would",
            _lan,
            advertisement(*PLAIN, to=(NODES, A)),
            unnamed,
        ),
        _asks(
            "a router tells that addresses and the rest come by DHCPv6",
            lambda: _lan(is_managed=True, has_other=True, is_autonomous=False),
            advertisement(mtu(1500), prefix("fd00:1::", 0x80), flags=0xC0),
        ),
        _asks(
            "a router tells name servers and a search list",
            lambda: _lan(dns=(parse_ip("2001:db8::53").value,), domains=("example.org",)),
            advertisement(*PLAIN, dns, search),
        ),
        _asks(
            "what a router tells fits in the least MTU, however much it is",
            lambda: _lan(dns=tuple(range(_SERVERS, _SERVERS + 16)), domains=_DOMAINS),
            advertisement(
                *PLAIN,
                b"\x19\x21\0\0" + (1800).to_bytes(4, "big")
                + b"".join((_SERVERS + index).to_bytes(16, "big") for index in range(16)),
                b"\x1f\x41\0\0" + (1800).to_bytes(4, "big")
                + b"".join(b"\x3e" + b"x" * 62 + b"\0" for _ in range(8)),
            ),
        ),
        _asks(
            "a router that is no default router tells its prefix all the same",
            lambda: _lan(lifetime_s=0, interval_s=10, dns=(parse_ip("2001:db8::53").value,)),
            advertisement(*PLAIN, hurried, lifetime_s=0),
        ),
        _asks(
            "a router tells the MTU of the overlay",
            lambda: _lan().port("far", on="n2", host="h2"),
            advertisement(mtu(1450), prefix("fd00:1::")),
        ),
        _asks(
            "a router tells no MTU that IPv6 does not have",
            lambda: _lan().tunnel("h2", max_inner_length=1279),
            advertisement(prefix("fd00:1::")),
        ),
        scenario(
            "a router learns who solicits",
            _lan,
            sent("vm1", solicitation(V6.host(1, 5)),
                 at("vm1", advertisement(*PLAIN, to=(V6.host(1, 5), A))),
                 at("vm3", solicitation(V6.host(1, 5)))),
            sent("vm2", udp((V6.host(2, 5), V6.host(1, 5)), (B, R2)),
                 at("vm1", udp((V6.host(2, 5), V6.host(1, 5)), (R1, A), ttl=63))),
        ),
        scenario(
            "a machine that is alone on its bridge is answered too",
            lambda: networks().advertise("g2"),
            taken("vm2", solicitation(mac=B),
                  at("vm2", advertisement(mtu(1500), prefix("fd00:2::"), mac=R2, source=R2_LOCAL,
                                          to=(ASKER, B)))),
        ),
        scenario(
            "each router of a bridge answers",
            _two_routers,
            sent("vm1", solicitation(), at("vm1", SAID), at("vm3", solicitation()),
                 at("vm1", advertisement(mtu(1500), prefix("fd00:1::"), mac=R3,
                                         source="fe80::bb:ff:fe00:3"))),
        ),
        scenario("a router that does not advertise is silent", networks, _passes(solicitation())),
        scenario(
            "a router that is down is silent",
            lambda: _lan().set_up("r", False),
            _passes(solicitation()),
        ),
        scenario(
            "a router port that is down is silent",
            lambda: _lan().set_up("g1", False),
            _passes(solicitation()),
        ),
        scenario(
            "an answer meets the filter of the machine's port",
            lambda: _lan().chain("c", rule("drop", ip_proto=58))
            .port("vm1", on="n1", host="h1", outbound="c"),
            sent("vm1", solicitation(), at("vm3", solicitation())),
        ),
        scenario(
            "solicitations that are not valid are not answered",
            _lan,
            *(_passes(frame) for frame in (
                solicitation(ttl=64),
                solicitation("::"),
                solicitation(options=b"\1\0" + _octets(A)),
                solicitation(options=b"\1\2" + _octets(A)),
                icmp((ASKER, ROUTERS), (A, ROUTERS_MAC), SOLICIT, 1, ttl=255),
                solicitation()[:-8] + b"\1\1" + _octets(C),
            )),
        ),
        scenario(
            "a bridge without VLANs does not look for tagged solicitations",
            _lan,
            _passes(retagged(solicitation(), 7)),
        ),
        scenario(
            "a router in a VLAN answers there, and nowhere else",
            _in_vlan,
            sent("t1", retagged(solicitation(), 10), at("t1", retagged(SAID, 10)),
                 at("t2", retagged(solicitation(), 10)), at("access", solicitation())),
            sent("access", solicitation(mac=B), at("access", advertisement(*PLAIN, to=(ASKER, B))),
                 at("t1", retagged(solicitation(mac=B), 10)),
                 at("t2", retagged(solicitation(mac=B), 10))),
            sent("t1", solicitation(), at("t2", solicitation())),
        ),
        scenario(
            "a router behind another bridge answers",
            _two_bridges,
            sent("m", solicitation(), at("m", SAID), at("vm1", solicitation()),
                 at("vm3", solicitation())),
        ),
    ]  # fmt: skip


def _two_routers() -> World:
    world = _lan().router("s")
    world.port("h1", on="s", mac=R3, addresses=("10.0.1.9/24", "fd00:1::9/64"))
    return world.attach("h1", "n1").advertise("h1")


def _in_vlan() -> World:
    world = World().bridge("t").router("r")
    world.port("t1", on="t", host="h1").port("t2", on="t", host="h1")
    world.port("access", on="t", host="h1", vlan=10)
    world.port("g", on="r", mac=R1, addresses=(V4.router(1), V6.router(1))).advertise("g")
    return world.attach("g", "t", vlan=10).advertise("g")


def _two_bridges() -> World:
    world = _lan().bridge("far").port("m", on="far", host="h1")
    return world.port("x", on="far").port("y", on="n1").link("x", "y")


def _of_routers() -> list[Scenario]:
    def unicast(port_mac: str = R1) -> bytes:
        return solicitation(to=(ROUTERS, port_mac))

    return [
        scenario(
            "a bound port of a router answers who solicits",
            lambda: edge().advertise("a"),
            taken("a", solicitation(),
                  at("a", advertisement(mtu(1450), prefix("fd00:1::")))),
            taken("a", solicitation(to=(R1_LOCAL, R1)),
                  at("a", advertisement(mtu(1450), prefix("fd00:1::")))),
        ),
        scenario(
            "a bound port that advertises drops what is no solicitation",
            lambda: edge().advertise("a"),
            dropped("a", solicitation(ttl=64), DropReason.MALFORMED),
            dropped("a", solicitation("::"), DropReason.MALFORMED),
        ),
        scenario(
            "other ports of a router that advertises by one are silent",
            lambda: edge().advertise("a"),
            dropped("b", solicitation(mac=B), DropReason.LOCAL_NOT_HANDLED),
        ),
        scenario(
            "a router answers a solicitation to itself across its bridge",
            _lan,
            taken("vm1", unicast(), at("vm1", SAID)),
        ),
    ]  # fmt: skip


SCENARIOS: list[Scenario] = [*_of_bridges(), *_of_routers()]
