"""Random virtual networks and packets that meet them."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from midonet.model.chains import FragmentPolicy, PortRange
from midonet.model.devices import NextHopKind
from midonet.packets.addresses import parse_ip, parse_mac
from midonet.packets.build import Envelope, echo_request_frame, tcp_frame, udp_frame
from midonet.packets.neighbour import arp_request, neighbour_solicitation
from midonet.packets.tcp import TcpFlag, TcpHeader
from tests.worlds import World, rule

MACS = [f"02:aa:00:00:00:{index:02x}" for index in range(1, 6)]
ROUTER_MACS = ["02:00:00:00:01:01", "02:00:00:00:01:02"]
GROUP_MACS = ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:05", "33:33:00:00:00:01"]
ADDRESSES = [
    "10.0.1.5",
    "10.0.1.77",
    "10.0.2.5",
    "10.0.2.6",
    "10.0.1.1",
    "172.16.3.4",
    "255.255.255.255",
]
ADDRESSES6 = ["fd00:1::5", "fd00:2::5", "fd00:2::6", "fd00:1::1", "fd99::4", "ff02::1:2", "fe80::7"]
PREFIXES = ["10.0.0.0/8", "10.0.2.0/24", "10.0.2.4/31", "172.16.0.0/12", "fd00::/16", "fd00:2::/64"]
PORTS = [0, 67, 68, 546, 547, 1024, 4999, 5000, 65535]
INVERTIBLE = {"ip_proto_inverted", "ip_src_inverted", "ip_dst_inverted", "l4_dst_inverted"}
LOCAL_PORTS = ["p1", "p2", "p3", "q1"]

_TESTS: dict[str, st.SearchStrategy[object]] = {
    "inverted": st.booleans(),
    "eth_type": st.sampled_from([0x0800, 0x86DD, 0x0806]),
    "eth_src": st.sampled_from(MACS),
    "ip_proto": st.sampled_from([1, 6, 17, 58]),
    "ip_tos": st.sampled_from([0, 8]),
    "ip_src": st.sampled_from(PREFIXES),
    "ip_dst": st.sampled_from(PREFIXES),
    "l4_src": st.builds(
        lambda a, b: PortRange(min(a, b), max(a, b)),
        st.sampled_from(PORTS),
        st.sampled_from(PORTS),
    ),
    "l4_dst": st.builds(
        lambda a, b: PortRange(min(a, b), max(a, b)),
        st.sampled_from(PORTS),
        st.sampled_from(PORTS),
    ),
    "no_vlan": st.booleans(),
    "vlan": st.sampled_from([0, 10]),
    "in_port_ids": st.sampled_from([("p1",), ("rp1-peer", "p2")]),
    "out_port_ids": st.sampled_from([("p2",), ("p4", "rp1")]),
    "fragment_policy": st.sampled_from(list(FragmentPolicy)),
    "traversed_device_id": st.sampled_from([World().id("r"), World().id("b1")]),
}


@st.composite
def _conditions(draw: st.DrawFn) -> dict[str, object]:
    """One test or two: conditions of many would hardly ever match."""
    names = draw(st.lists(st.sampled_from(sorted(_TESTS)), min_size=1, max_size=2, unique=True))
    fields = {name: draw(_TESTS[name]) for name in names}
    for name in names:
        if f"{name}_inverted" in INVERTIBLE:
            fields[f"{name}_inverted"] = draw(st.booleans())
    return fields


_rules = st.builds(
    lambda action, condition: rule(action, **condition),
    st.sampled_from(["accept", "drop", "reject", "return"]),
    _conditions(),
)
_chain_rules = st.lists(
    st.one_of(_rules, st.just(rule("jump", jump="shared")), st.just(rule("jump", jump="tail"))),
    max_size=4,
)
_HOOKS = ["b1-in", "b1-out", "r-in", "r-out", "p1-in", "p2-out", "p4-out", "rp1-in", "rp2-out"]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Two bridges and a router between them, with filters, routes and soft state."""
    world = World("h1")
    world.chain("shared", *draw(_chain_rules)).chain("tail", *draw(st.lists(_rules, max_size=3)))
    used = {"p1-in", *draw(st.lists(st.sampled_from(_HOOKS), max_size=4))}
    for name in used:
        world.chain(name, *draw(_chain_rules))

    def hook(name: str) -> str | None:
        return name if name in used else None

    world.bridge("b1", inbound=hook("b1-in"), outbound=hook("b1-out")).bridge("b2")
    world.router("r", inbound=hook("r-in"), outbound=hook("r-out"))
    world.port("p1", on="b1", host="h1", inbound=hook("p1-in"))
    world.port("p2", on="b1", host="h1", outbound=hook("p2-out"))
    world.port("p3", on="b1", host="h1", up=draw(st.booleans()))
    world.port("p4", on="b1", host="h2", outbound=hook("p4-out"))
    world.port("p5", on="b1", host="h3", located=draw(st.booleans()))
    world.port("q1", on="b2", host="h1").port("q2", on="b2", host="h2")
    world.port(
        "rp1",
        on="r",
        mac=ROUTER_MACS[0],
        addresses=("10.0.1.1/24", "fd00:1::1/64"),
        inbound=hook("rp1-in"),
    )
    world.port(
        "rp2",
        on="r",
        mac=ROUTER_MACS[1],
        addresses=("10.0.2.1/24", "fd00:2::1/64"),
        outbound=hook("rp2-out"),
    )
    world.attach("rp1", "b1")
    world.attach("rp2", "b2")
    _draw_vlans(draw, world)
    _draw_dhcp(draw, world)
    _draw_routes(draw, world)
    _draw_soft_state(draw, world)
    _draw_mirrors(draw, world)
    return world


def _draw_mirrors(draw: st.DrawFn, world: World) -> None:
    """Mirrors of any hook to any port, mirrored themselves too; a policy of a port or bridge."""
    ports = ["p1", "p2", "p4", "q1", "q2", "rp1-peer"]
    for index in range(draw(st.integers(0, 2))):
        hook = draw(st.sampled_from(["inbound", "post_in_filter", "pre_out_filter", "outbound"]))
        devices = ["b1", "b2", "r"] if hook in ("inbound", "outbound") else []
        where = draw(st.sampled_from([*ports, "rp1", "rp2", *devices]))
        tests = draw(st.lists(st.one_of(_conditions(), st.just({})), min_size=1, max_size=2))
        world.mirror(f"mirror {index}", draw(st.sampled_from(ports)), *tests, **{hook: where})
    if draw(st.booleans()):
        dscp = draw(st.sampled_from([None, 0, 46]))
        world.qos_policy("policy", dscp, draw(st.sampled_from(["p1", "b1", "b2"])))


def _draw_vlans(draw: st.DrawFn, world: World) -> None:
    if draw(st.booleans()):
        world.bridge("b3").port("v10", on="b1", vlan=10).port("u10", on="b3")
        world.port("w1", on="b3", host="h1").link("v10", "u10")
    if draw(st.booleans()):
        world.flood_group("h2", "b1", 7000)


def _draw_dhcp(draw: st.DrawFn, world: World) -> None:
    if draw(st.booleans()):
        server = draw(st.sampled_from(["10.0.1.1", "10.0.1.77", "172.16.3.4"]))
        world.dhcp_subnet("b1", "10.0.1.0/24", server=server, enabled=draw(st.booleans()))
        for mac in draw(st.lists(st.sampled_from(MACS), unique=True)):
            world.dhcp_client("b1", "10.0.1.0/24", mac, "10.0.1.5")
    if draw(st.booleans()):
        world.dhcp_v6_subnet("b1", "fd00:1::/64").dhcp_v6_client("b1", "fd00:1::/64", MACS[0], None)


def _draw_routes(draw: st.DrawFn, world: World) -> None:
    for index in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(list(NextHopKind)))
        prefix = draw(st.sampled_from(PREFIXES))
        gateway = f"fd00:2::{index + 5}" if ":" in prefix else f"10.0.2.{index + 5}"
        sources = ["fd00::/16", None] if ":" in prefix else ["10.0.1.0/25", "10.0.0.0/8", None]
        world.route(
            "r",
            prefix,
            via="rp2",
            gateway=gateway,
            kind=kind,
            source=draw(st.sampled_from(sources)),
            weight=draw(st.integers(0, 1)),
        )
    if draw(st.booleans()):
        for last in (5, 6):
            world.route("r", "172.16.0.0/16", via="rp2", gateway=f"10.0.2.{last}")


def _draw_soft_state(draw: st.DrawFn, world: World) -> None:
    for mac in MACS:
        port = draw(st.sampled_from(["p1", "p2", "p4", "p5", None]))
        if port:
            world.mac_at("b1", mac, port)
    for index, address in enumerate(("10.0.2.5", "10.0.2.6", "fd00:2::5", "fd00:2::6")):
        known = draw(st.sampled_from([MACS[index], None]))
        world.neighbour("r", address, known, stale=draw(st.booleans()))
    for address in ("10.0.1.77", "fd00:1::5"):
        if draw(st.booleans()):
            world.bridge_neighbour("b1", address, MACS[4])


@dataclass(frozen=True, slots=True)
class PacketSpec:
    """What a packet is made from; changing one field makes a packet like it.

    source, destination: indexes of the addresses of the family. fragment: the 16-bit word of
    flags and offset of an IPv4 header.
    """

    eth_src: str
    eth_dst: str
    is_ipv6: bool
    source: int
    destination: int
    kind: str
    sport: int
    dport: int
    size: int
    vlan: int | None
    ttl: int
    tos: int
    fragment: int

    def frame(self) -> bytes:
        """Return the frame."""
        family = ADDRESSES6 if self.is_ipv6 else ADDRESSES
        source, destination = parse_ip(family[self.source]), parse_ip(family[self.destination])
        eth_src, eth_dst = parse_mac(self.eth_src), parse_mac(self.eth_dst)
        if self.kind == "resolve":
            if not self.is_ipv6:
                return arp_request(eth_src, source.value, destination.value, eth_dst=eth_dst)
            return neighbour_solicitation(eth_src, source.value, destination.value)
        envelope = Envelope(
            eth_src,
            eth_dst,
            source,
            destination,
            vlan_tci=self.vlan,
            ttl=self.ttl,
            tos=self.tos,
        )
        frame = bytearray(self._transport(envelope))
        if not self.is_ipv6:
            offset = 14 if self.vlan is None else 18
            frame[offset + 6 : offset + 8] = self.fragment.to_bytes(2, "big")
        return bytes(frame)

    def _transport(self, envelope: Envelope) -> bytes:
        payload = bytes(self.size)
        if self.kind == "udp":
            return udp_frame(envelope, self.sport, self.dport, payload)
        if self.kind == "echo":
            return echo_request_frame(envelope, 1, 1, payload)
        return tcp_frame(envelope, TcpHeader(self.sport, self.dport, 1, 2, TcpFlag.SYN), payload)


FIELDS: dict[str, st.SearchStrategy[object]] = {
    "eth_src": st.sampled_from([*MACS, ROUTER_MACS[1]]),
    "eth_dst": st.sampled_from([*MACS, *[ROUTER_MACS[0]] * 6, *GROUP_MACS]),
    "is_ipv6": st.sampled_from([False, False, True]),
    "source": st.integers(0, len(ADDRESSES) - 1),
    "destination": st.integers(0, len(ADDRESSES) - 1),
    "kind": st.sampled_from(["udp", "tcp", "echo", "resolve", "udp", "tcp"]),
    "sport": st.sampled_from(PORTS),
    "dport": st.sampled_from(PORTS),
    "size": st.sampled_from([0, 8, 8, 1430, 1500]),
    "vlan": st.sampled_from([None, None, None, 0, 10, 11]),
    "ttl": st.sampled_from([1, 2, 64, 255]),
    "tos": st.sampled_from([0, 8]),
    "fragment": st.sampled_from([0, 0, 0x4000, 0x2000, 0x2005, 0x0007]),
}
"""Values of the fields of a packet that the networks tell apart."""


def packets() -> st.SearchStrategy[PacketSpec]:
    """Packets of the kinds that the networks look into."""
    return st.builds(PacketSpec, **FIELDS)  # type: ignore[arg-type]


@st.composite
def filtered_bridges(draw: st.DrawFn) -> World:
    """One bridge, a filter on the way in at `p1`, everything known behind `p2`."""
    world = World("h1").bridge("b1").chain("p1-in", *draw(st.lists(_rules, min_size=1, max_size=3)))
    world.port("p1", on="b1", host="h1", inbound="p1-in").port("p2", on="b1", host="h1")
    for mac in (*MACS, *ROUTER_MACS):
        world.mac_at("b1", mac, "p2")
    return world
