"""NAT64: machines with IPv6 only reach machines with IPv4 only, through a router.

Router `r` has `a` (an IPv6 machine) and `b` (an IPv4 machine), and shows IPv4 behind
2001:db8:64::/96. IPv6 machines speak from the address 77 of network 2.
"""

from __future__ import annotations

from midonet.agent.flow_state.allocations import AllocationTable
from midonet.agent.flow_state.pool import EndpointRange, NatPool
from midonet.agent.flow_state.source_choice import Chosen, FixedBlocks, SourceChooser
from midonet.agent.flows.drop_reason import DropReason
from midonet.packets.addresses import IpVersion, parse_ip
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.tcp import TcpFlag
from tests.scenario.frames import (
    R1,
    R2,
    V4,
    V6,
    A,
    B,
    aged,
    error,
    fragment,
    icmp,
    other_protocol,
    tcp,
    udp,
)
from tests.scenario.routed_networks import IN, OUT, edge
from tests.scenario.running import Scenario, at, dropped, scenario, sent
from tests.worlds import World

INWARDS, OUTWARDS = (B, R2), (R1, A)
CLIENT, SERVER = V6.host(1, 5), V4.host(2, 5)
SHOWN, POOL = "2001:db8:64::a00:205", V4.host(2, 77)
"""How the client sees the server, and the server the client."""

UP, DOWN = (CLIENT, SHOWN), (POOL, SERVER)
BACK, HOME = (SERVER, POOL), (SHOWN, CLIENT)
SYN, ACK = TcpFlag.SYN, TcpFlag.ACK


def network() -> World:
    return edge().nat64("r", "2001:db8:64::/96", POOL)


def chosen(protocol: int, port: int, remote: int) -> int:
    """Return the port, or identifier, with which the client is seen."""
    own = parse_ip(POOL).value
    pool = NatPool((EndpointRange(IpVersion.V4, own, own, 1024, 65535),))
    packet = FiveTuple(
        IpVersion.V4, protocol, parse_ip(CLIENT).value, port, parse_ip(SERVER).value, remote
    )
    chooser = SourceChooser(AllocationTable(), FixedBlocks())
    # The source is hashed as what it is, an IPv6 end point.
    choice = chooser.choose(World().id("r"), pool, packet, 0)
    assert isinstance(choice, Chosen)
    return choice.endpoint.port


UDP_PORT, TCP_PORT = chosen(17, 4000, 5000), chosen(6, 4000, 80)
PING = chosen(1, 7, 7)


def ping(
    route: tuple[str, str],
    macs: tuple[str, str],
    number: int,
    *,
    reply: bool = False,
    ttl: int = 64,
) -> bytes:
    kinds = (128, 129) if ":" in route[0] else (8, 0)
    rest = number << 16 | 1
    return icmp(route, macs, kinds[reply], rest=rest, payload=b"payload!", ttl=ttl)


ASKED = sent("a", udp(UP, IN), at("b", udp(DOWN, OUT, ports=(UDP_PORT, 5000), ttl=63)))
ANSWERED = sent(
    "b",
    udp(BACK, INWARDS, ports=(5000, UDP_PORT)),
    at("a", udp(HOME, OUTWARDS, ports=(5000, 4000), ttl=63)),
)
SEEN_ANSWER = udp(BACK, INWARDS, ports=(5000, UDP_PORT))
OPENED = (
    sent("a", tcp(UP, IN), at("b", tcp(DOWN, OUT, ports=(TCP_PORT, 80), ttl=63))),
    sent(
        "b",
        tcp(BACK, INWARDS, ports=(80, TCP_PORT), flags=SYN | ACK),
        at("a", tcp(HOME, OUTWARDS, ports=(80, 4000), flags=SYN | ACK, ttl=63)),
    ),
    sent(
        "a",
        tcp(UP, IN, flags=ACK),
        at("b", tcp(DOWN, OUT, ports=(TCP_PORT, 80), flags=ACK, ttl=63)),
    ),
)
PINGED = (
    sent("a", ping(UP, IN, 7), at("b", ping(DOWN, OUT, PING, ttl=63))),
    sent(
        "b",
        ping(BACK, INWARDS, PING, reply=True),
        at("a", ping(HOME, OUTWARDS, 7, reply=True, ttl=63)),
    ),
)
EXPIRED = udp(UP, IN, ttl=1)


def _quoting(
    route: tuple[str, str],
    macs: tuple[str, str],
    numbers: tuple[int, int],
    about: bytes,
    rest: int = 0,
) -> bytes:
    return icmp(route, macs, *numbers, rest=rest, payload=about[14:])


SCENARIOS: list[Scenario] = [
    scenario("an IPv6 machine asks an IPv4 machine by datagram", network, ASKED, ANSWERED, ASKED),
    scenario("an IPv6 machine opens a TCP connection to an IPv4 machine", network, *OPENED),
    scenario("an IPv6 machine pings an IPv4 machine", network, *PINGED, *PINGED),
    scenario(
        "an error from IPv4 reaches the IPv6 machine with what it sent",
        network,
        ASKED,
        *(
            sent(
                "b",
                _quoting(BACK, INWARDS, four, udp(DOWN, OUT, ports=(UDP_PORT, 5000)), mtu4),
                at("a", aged(_quoting(HOME, OUTWARDS, six, udp(UP, IN), mtu6), 1, V6)),
            )
            for four, six, mtu4, mtu6 in (
                ((3, 3), (1, 4), 0, 0),
                ((3, 13), (1, 1), 0, 0),
                ((3, 4), (2, 0), 1400, 1420),
                ((11, 0), (3, 0), 0, 0),
            )
        ),
    ),
    scenario(
        "an IPv6 machine's error about an answer reaches the IPv4 machine",
        network,
        ASKED,
        ANSWERED,
        sent(
            "a",
            _quoting(UP, IN, (1, 4), udp(HOME, OUTWARDS, ports=(5000, 4000))),
            at(
                "b",
                aged(
                    _quoting(DOWN, OUT, (3, 3), udp(BACK, INWARDS, ports=(5000, UDP_PORT))), 1, V4
                ),
            ),
        ),
    ),
    scenario(
        "nothing from IPv4 begins a conversation with an IPv6 machine",
        network,
        dropped(
            "b",
            udp((SERVER, V4.host(2, 1)), INWARDS, ports=(5000, 9)),
            DropReason.LOCAL_NOT_HANDLED,
            at(
                "b",
                error(
                    "port unreachable",
                    (V4.host(2, 1), SERVER),
                    (R2, B),
                    udp((SERVER, V4.host(2, 1)), INWARDS, ports=(5000, 9)),
                ),
            ),
        ),
        ASKED,
        ANSWERED,
    ),
    scenario(
        "the router tells an IPv6 machine what it sent when the hops run out",
        network,
        dropped(
            "a",
            EXPIRED,
            DropReason.TTL_EXCEEDED,
            at("a", error("time exceeded", (V6.host(1, 1), CLIENT), (R1, A), EXPIRED)),
        ),
    ),
    scenario(
        "what has no counterpart in IPv4 is dropped by name",
        network,
        dropped("a", other_protocol(UP, IN), DropReason.FAMILY_UNTRANSLATABLE),
        dropped("a", fragment(UP, IN, first=True), DropReason.FAMILY_UNTRANSLATABLE),
        dropped("a", _quoting(UP, IN, (1, 4), udp(HOME, OUT)), DropReason.FAMILY_UNTRANSLATABLE),
    ),
    scenario(
        "the middle of a TCP conversation that nobody knows does not cross",
        network,
        dropped("a", tcp(UP, IN, flags=ACK), DropReason.CONNECTION_UNKNOWN),
    ),
    scenario(
        "what is not for the prefix stays IPv6",
        network,
        sent(
            "a",
            udp((CLIENT, V6.host(2, 5)), IN),
            at("b", udp((CLIENT, V6.host(2, 5)), OUT, ttl=63)),
        ),
    ),
]
