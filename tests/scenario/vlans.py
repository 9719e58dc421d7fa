"""VLAN-aware bridges: trunks, access ports, linked bridges and routers in VLANs. IPv4 and IPv6."""

from __future__ import annotations

from collections.abc import Iterator

from midonet.agent.flows.drop_reason import DropReason
from midonet.packets.addresses import parse_ip
from midonet.packets.arp import ArpMessage, ArpOperation
from midonet.packets.build import ethernet_frame
from midonet.packets.neighbour import neighbour_advertisement, neighbour_solicitation
from midonet.packets.tcp import TcpFlag
from tests.scenario.bridging import trunk
from tests.scenario.frames import (
    EVERYONE,
    FAMILIES,
    R1,
    R2,
    V4,
    V6,
    A,
    B,
    C,
    Family,
    echo,
    error,
    mac,
    raw,
    retagged,
    tcp,
    udp,
)
from tests.scenario.running import Scenario, at, dropped, scenario, sent, taken, through
from tests.worlds import World, rule

URGENT = 5 << 13
"""A priority in a tag."""


def _value(text: str) -> int:
    return parse_ip(text).value


def asked(family: Family, target: str, *, by: str = A, sender: str, vlan: int = 0) -> bytes:
    """Return an ARP request or a solicitation, tagged if there is a VLAN."""
    if family is V6:
        frame = neighbour_solicitation(mac(by), _value(sender), _value(target))
    else:
        message = ArpMessage(ArpOperation.REQUEST, mac(by), _value(sender), 0, _value(target))
        frame = ethernet_frame(mac(EVERYONE), mac(by), 0x0806, message.serialise())
    return retagged(frame, vlan) if vlan else frame


def answered(
    family: Family,
    target: str,
    at_mac: str,
    *,
    to: str = A,
    receiver: str,
    vlan: int = 0,
    is_router: bool = True,
) -> bytes:
    """Return what answers `asked`."""
    if family is V6:
        return neighbour_advertisement(
            mac(at_mac), _value(target), mac(to), _value(receiver), is_router=is_router,
            vlan_tci=vlan or None,
        )  # fmt: skip
    message = ArpMessage(ArpOperation.REPLY, mac(at_mac), _value(target), mac(to), _value(receiver))
    return ethernet_frame(mac(to), mac(at_mac), 0x0806, message.serialise(), vlan_tci=vlan or None)


def gateways() -> World:
    """`trunk` with router `r`: `g10` on VLAN 10 is host 1 of network 1, `g0` untagged of 2."""
    world = trunk().router("r")
    world.port("g10", on="r", mac=R1, addresses=(V4.router(1), V6.router(1)))
    world.port("g0", on="r", mac=R2, addresses=(V4.router(2), V6.router(2)))
    world.attach("g10", "t", vlan=10).attach("g0", "t")
    for family in FAMILIES:
        world.neighbour("r", family.host(1, 5), A).neighbour("r", family.host(2, 5), B)
    return world


def twins() -> World:
    """Routers with one address, and one MAC, in VLANs 10 and 20 of a bridge with trunk `t1`."""
    world = World().bridge("t").port("t1", on="t", host="h1").port("t2", on="t", host="h1")
    for vlan in (10, 20):
        world.router(f"r{vlan}")
        world.port(f"g{vlan}", on=f"r{vlan}", mac=R1, addresses=(V4.router(1), V6.router(1)))
        world.attach(f"g{vlan}", "t", vlan=vlan)
        world.port(f"out{vlan}", on=f"r{vlan}", host="h1", mac=R2,
                   addresses=(V4.router(2), V6.router(2)))  # fmt: skip
        for family in FAMILIES:
            world.neighbour(f"r{vlan}", family.host(2, 5), B)
    return world


def behind_a_vlan() -> World:
    """`trunk` with router `r` on the bridge of VLAN 10: host 1 of network 1."""
    world = trunk().router("r")
    world.port("g", on="r", mac=R1, addresses=(V4.router(1), V6.router(1)))
    return world.attach("g", "b10")


def access() -> World:
    """A bridge with trunks `t1` and `t2` (on h2, key 102) and access ports of VLANs 10 and 20."""
    world = World().bridge("t").port("t1", on="t", host="h1").port("t2", on="t", host="h2")
    for name, vlan, host in (
        ("x10", 10, "h1"), ("y10", 10, "h1"), ("z10", 10, "h2"), ("x20", 20, "h1"),
    ):  # fmt: skip
        world.port(name, on="t", host=host, vlan=vlan)
    return world


def two_trunk_bridges() -> World:
    """Bridges `t` and `s` joined by a plain link; VLAN 10 of both has a bridge with a port."""
    world = World().bridge("t").bridge("s").bridge("b").bridge("c")
    world.port("t1", on="t", host="h1").port("s1", on="s", host="h1")
    world.port("ts", on="t").port("st", on="s").link("ts", "st")
    world.port("tv", on="t", vlan=10).port("bv", on="b").link("tv", "bv")
    world.port("sv", on="s", vlan=10).port("cv", on="c").link("sv", "cv")
    return world.port("b1", on="b", host="h1").port("c1", on="c", host="h1")


def shared_vlan() -> World:
    """A bridge with trunk `t1`, and two bridges in its VLAN 10 with a port each."""
    world = World().bridge("t").port("t1", on="t", host="h1")
    for name in ("b", "c"):
        world.bridge(name).port(f"{name}1", on=name, host="h1")
        world.port(f"t{name}", on="t", vlan=10).port(f"{name}t", on=name).link(
            f"t{name}", f"{name}t"
        )
    return world


def _routed(family: Family) -> Iterator[Scenario]:
    """Routers in VLANs."""
    one, two, gateway = family.host(1, 5), family.host(2, 5), family.host(1, 1)
    native = family.host(2, 1)
    yield scenario(
        f"a bridge answers for a router in the VLAN of the question ({family})",
        gateways,
        taken("t1", asked(family, gateway, sender=one, vlan=10),
              at("t1", answered(family, gateway, R1, receiver=one, vlan=10))),
        taken("t1", asked(family, native, sender=two),
              at("t1", answered(family, native, R2, receiver=two))),
        taken("a10", asked(family, gateway, sender=one),
              at("a10", answered(family, gateway, R1, receiver=one))),
    )  # fmt: skip
    yield scenario(
        f"a bridge does not answer for a router in another VLAN ({family})",
        gateways,
        sent("t1", asked(family, gateway, sender=one),
             at("t2", asked(family, gateway, sender=one))),
        sent("t1", asked(family, native, sender=one, vlan=20),
             at("t2", asked(family, native, sender=one, vlan=20)),
             at("a20", asked(family, native, sender=one))),
        sent("a20", asked(family, native, sender=one),
             at("t1", asked(family, native, sender=one, vlan=20)),
             at("t2", asked(family, native, sender=one, vlan=20))),
    )  # fmt: skip
    yield scenario(
        f"a router in a VLAN routes what comes tagged, and its answers are tagged ({family})",
        lambda: gateways().mac_at("t", A, "t1", vlan=10).mac_at("t", B, "t2"),
        sent("t1", udp((one, two), (A, R1), vlan=10), at("t2", udp((one, two), (R2, B), ttl=63))),
        sent("t2", udp((two, one), (B, R2)),
             at("t1", udp((two, one), (R1, A), ttl=63, vlan=10))),
        taken("t1", echo((one, gateway), (A, R1), vlan=10),
              at("t1", echo((gateway, one), (R1, A), reply=True, vlan=10))),
    )  # fmt: skip
    yield scenario(
        f"errors go back into the VLAN from which their packets came ({family})",
        lambda: gateways().mac_at("t", A, "t1", vlan=10),
        dropped("t1", udp((one, two), (A, R1), vlan=10, ttl=1), DropReason.TTL_EXCEEDED,
                at("t1", retagged(error("time exceeded", (gateway, one), (R1, A),
                                        udp((one, two), (A, R1), ttl=1)), 10))),
        dropped("t1", tcp((one, gateway), (A, R1), vlan=10), DropReason.LOCAL_NOT_HANDLED,
                at("t1", tcp((gateway, one), (R1, A), ports=(80, 4000), sequence=0, window=0,
                             acknowledgment=8, flags=TcpFlag.RST | TcpFlag.ACK, vlan=10))),
    )  # fmt: skip
    yield scenario(
        f"a router is not reached from another VLAN than its own ({family})",
        gateways,
        sent("t1", udp((one, two), (A, R1), vlan=20),
             at("t2", udp((one, two), (A, R1), vlan=20)), at("a20", udp((one, two), (A, R1)))),
        sent("t1", udp((one, two), (A, R1)), at("t2", udp((one, two), (A, R1)))),
        sent("a20", udp((one, two), (A, R2)),
             at("t1", udp((one, two), (A, R2), vlan=20)),
             at("t2", udp((one, two), (A, R2), vlan=20))),
    )  # fmt: skip
    yield scenario(
        f"routers with one address and one MAC in two VLANs do not meet ({family})",
        twins,
        *(
            step
            for vlan in (10, 20)
            for step in (
                taken("t1", asked(family, gateway, sender=one, vlan=vlan),
                      at("t1", answered(family, gateway, R1, receiver=one, vlan=vlan))),
                sent("t1", udp((one, two), (A, R1), vlan=vlan),
                     at(f"out{vlan}", udp((one, two), (R2, B), ttl=63))),
            )
        ),
    )  # fmt: skip
    yield scenario(
        f"a router behind a VLAN answers trunks with their tag ({family})",
        behind_a_vlan,
        sent("t1", asked(family, gateway, sender=one, vlan=10),
              at("t2", asked(family, gateway, sender=one, vlan=10)),
              at("t1", answered(family, gateway, R1, receiver=one, vlan=10))),
        taken("t1", echo((one, gateway), (A, R1), vlan=10),
              at("t1", echo((gateway, one), (R1, A), reply=True, vlan=10))),
        sent("t1", asked(family, gateway, sender=one),
             at("t2", asked(family, gateway, sender=one))),
    )  # fmt: skip
    yield scenario(
        f"the table of a bridge is of frames without VLAN ({family})",
        lambda: trunk().bridge_neighbour("t", one, B),
        taken("t1", asked(family, one, by=C, sender=two),
              at("t1", answered(family, one, B, to=C, receiver=two, is_router=False))),
        sent("t1", asked(family, one, by=C, sender=two, vlan=20),
             at("t2", asked(family, one, by=C, sender=two, vlan=20)),
             at("a20", asked(family, one, by=C, sender=two))),
        sent("a20", asked(family, one, by=C, sender=two),
             at("t1", asked(family, one, by=C, sender=two, vlan=20)),
             at("t2", asked(family, one, by=C, sender=two, vlan=20))),
    )  # fmt: skip


def _accessed(family: Family) -> Iterator[Scenario]:
    """Bound ports with a VLAN."""
    one, two = family.host(1, 5), family.host(1, 6)
    frame, tagged = udp((one, two)), udp((one, two), vlan=10)
    back, tagged_back = udp((two, one), (B, A)), udp((two, one), (B, A), vlan=10)
    yield scenario(
        f"a frame from an access port stays in its VLAN, tagged on trunks ({family})",
        access,
        sent("x10", frame, at("t1", tagged), through(102, tagged), at("y10", frame),
             through(105, frame)),
        sent("y10", back, at("x10", back)),
        sent("t1", tagged_back, at("x10", back)),
        sent("x20", frame, at("t1", udp((one, two), vlan=20)),
             through(102, udp((one, two), vlan=20))),
    )  # fmt: skip
    yield scenario(
        f"an access port gets the frames of its VLAN without tag, and no others ({family})",
        access,
        sent("t1", tagged, through(102, tagged), at("x10", frame), at("y10", frame),
             through(105, frame)),
        sent("t1", udp((one, two), (A, EVERYONE)), through(102, udp((one, two), (A, EVERYONE)))),
        sent("t1", udp((one, two), (A, EVERYONE), vlan=30),
             through(102, udp((one, two), (A, EVERYONE), vlan=30))),
    )  # fmt: skip
    yield scenario(
        f"an access port takes no tag of its own choice ({family})",
        access,
        dropped("x10", udp((one, two), vlan=20), DropReason.VLAN_MISMATCH),
        dropped("x10", tagged, DropReason.VLAN_MISMATCH),
        sent("x10", udp((one, two), vlan=0), at("t1", tagged), through(102, tagged),
             at("y10", frame), through(105, frame)),
    )  # fmt: skip


def _bridged(family: Family) -> Iterator[Scenario]:
    one, two = family.host(1, 5), family.host(1, 6)
    frame, back = udp((one, two)), udp((two, one), (B, A))
    tagged, tagged_back = udp((one, two), vlan=10), udp((two, one), (B, A), vlan=10)
    yield scenario(
        f"a VLAN goes through the trunk between two bridges ({family})",
        two_trunk_bridges,
        sent("b1", frame, at("t1", tagged), at("s1", tagged), at("c1", frame)),
        sent("c1", back, at("b1", back)),
        sent("b1", frame, at("c1", frame)),
        sent("s1", udp((two, one), (C, A), vlan=10), at("b1", udp((two, one), (C, A)))),
        sent("t1", udp((one, two), (C, B), vlan=20), at("s1", udp((one, two), (C, B), vlan=20))),
    )  # fmt: skip
    yield scenario(
        f"bridges in one VLAN of a third hear each other ({family})",
        shared_vlan,
        sent("b1", frame, at("t1", tagged), at("c1", frame)),
        sent("c1", back, at("b1", back)),
        sent("b1", frame, at("c1", frame)),
        sent("t1", udp((one, two), (C, EVERYONE), vlan=10),
             at("b1", udp((one, two), (C, EVERYONE))), at("c1", udp((one, two), (C, EVERYONE)))),
    )  # fmt: skip
    yield scenario(
        f"a known station behind a trunk gets frames of a VLAN tagged ({family})",
        lambda: trunk().mac_at("t", B, "t2", vlan=10).mac_at("b10", B, "u10"),
        sent("a10", frame, at("t2", tagged)),
        sent("t2", tagged_back, at("a10", back)),
    )  # fmt: skip
    yield scenario(
        f"between trunks a frame stays as it is ({family})",
        lambda: trunk().mac_at("t", B, "t2", vlan=10).mac_at("t", B, "t2").mac_at(
            "t", B, "t2", vlan=30
        ),
        sent("t1", tagged, at("t2", tagged)),
        sent("t1", frame, at("t2", frame)),
        sent("t1", udp((one, two), vlan=30), at("t2", udp((one, two), vlan=30))),
        sent("t1", udp((one, two), vlan=URGENT | 30), at("t2", udp((one, two), vlan=URGENT | 30))),
    )  # fmt: skip
    yield scenario(
        f"a station is behind one port in each VLAN ({family})",
        trunk,
        sent("t1", tagged, at("t2", tagged), at("a10", frame)),
        sent("t2", udp((one, two), vlan=20), at("t1", udp((one, two), vlan=20)), at("a20", frame)),
        sent("a10", back, at("t1", tagged_back)),
        sent("a20", back, at("t2", udp((two, one), (B, A), vlan=20))),
    )
    yield scenario(
        f"without VLAN ports one table serves tagged and untagged frames ({family})",
        lambda: World().bridge("b").port("p1", on="b", host="h1").port("p2", on="b", host="h1")
        .port("p3", on="b", host="h1"),
        sent("p1", tagged, at("p2", tagged), at("p3", tagged)),
        sent("p2", back, at("p1", back)),
        sent("p3", udp((two, one), (C, A), vlan=7), at("p1", udp((two, one), (C, A), vlan=7))),
    )  # fmt: skip
    yield scenario(
        f"filters of VLAN ports see the frame with its tag on the trunk's side ({family})",
        lambda: World().bridge("t").bridge("b").chain("no 10", rule("drop", vlan=10))
        .chain("no untagged", rule("drop", no_vlan=True))
        .port("t1", on="t", host="h1", inbound="no untagged")
        .port("t2", on="t", host="h1", outbound="no 10")
        .port("v", on="t", vlan=10).port("u", on="b").link("v", "u")
        .port("b1", on="b", host="h1"),
        dropped("t1", frame, DropReason.FILTERED),
        sent("t1", tagged, at("b1", frame)),
        sent("b1", udp((two, one), (B, EVERYONE)),
             at("t1", udp((two, one), (B, EVERYONE), vlan=10))),
    )  # fmt: skip


def _isolated() -> Iterator[Scenario]:
    """What no VLAN lets out, whatever the frame."""
    for name, make in (
        ("an unknown type", lambda macs: raw(0x88CC, macs)),
        ("an IPv4 datagram", lambda macs: udp((V4.host(1, 5), V4.host(1, 6)), macs)),
        ("an IPv6 datagram", lambda macs: udp((V6.host(1, 5), V6.host(1, 6)), macs)),
    ):
        for group in (EVERYONE, "01:00:5e:00:00:fb", B):
            frame = make((A, group))
            yield scenario(
                f"{name} to {group} stays in its VLAN",
                trunk,
                sent("a10", frame, at("t1", retagged(frame, 10)), at("t2", retagged(frame, 10))),
                sent("t1", retagged(frame, 20), at("t2", retagged(frame, 20)), at("a20", frame)),
            )


SCENARIOS: list[Scenario] = [
    *(
        one
        for family in FAMILIES
        for part in (_routed, _accessed, _bridged)
        for one in part(family)
    ),
    *_isolated(),
]
