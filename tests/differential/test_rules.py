"""Rules as simulation evaluates them, compiled and looked up, against what they mean.

Each case is a network with a filter of up to a hundred rules and some packets. The reference says
what becomes of each packet, and of every other packet of its class: a mask that is too wide is a
packet that fares otherwise than its class. A chain evaluated rule by rule is the third opinion.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest

from midonet.agent.flows.classification import covers, masked
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import FlowProgram, SlowPathReason
from midonet.agent.simulation import chain as evaluation
from midonet.agent.simulation.result import Drop, Forward, SimulationResult
from midonet.model.chains import Condition, FragmentPolicy, PortRange, RuleAction
from midonet.packets.addresses import parse_ip, parse_mac
from midonet.packets.frame import parse_frame
from midonet.packets.neighbour import arp_request
from tests.differential.naive_rules import Facts, Place, PlainRule, verdict
from tests.scenario.frames import error, fragment, icmp, raw, retagged, tcp, udp
from tests.worlds import World, rule

BLOCKS = 10
CASES = 30
PACKETS = 20
MACS = ("02:aa:00:00:00:01", "02:aa:00:00:00:02", "02:ab:00:00:00:03")
OTHER_MACS = ("02:bb:00:00:00:01", "02:bb:00:00:00:02")
HOSTS4 = ("10.0.1.5", "10.0.1.6", "10.0.2.5", "10.1.2.5", "192.0.2.7", "10.0.1.133")
HOSTS6 = ("fd00:1::5", "fd00:1::6", "fd00:2::5", "fd01::5", "2001:db8::7")
NETWORKS = (
    *HOSTS4, "10.0.0.0/8", "10.0.1.0/24", "10.0.1.4/31", "10.0.1.128/25", "0.0.0.0/0",
    "172.16.0.0/12", *HOSTS6, "fd00::/16", "fd00:1::/64", "fd00:1::4/127", "::/0",
)  # fmt: skip
PORTS = (1, 8, 53, 80, 255, 256, 4000, 5000, 65535)
UDP, TCP, ICMP, ICMPV6 = 17, 6, 1, 58
GROUPS = {
    "ag0": frozenset(("10.0.1.0/24", "fd00:1::5/128")),
    "ag1": frozenset(("10.0.1.5/32", "192.0.2.0/25", "fd00::/16", "10.0.0.0/9")),
    "ag2": frozenset[str](),
}
PORT_GROUPS = {"pg0": ("p1",), "pg1": ("p2",), "pg2": ()}


class Draw:
    """Draws packets and rules."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)

    def packet(self) -> tuple[bytes, Facts]:
        """Return a frame and what it is."""
        random = self.random
        macs = (random.choice(MACS), random.choice(OTHER_MACS))
        hosts, eth_type = random.choice(((HOSTS4, 0x0800), (HOSTS6, 0x86DD)))
        route = (random.choice(hosts), random.choice(hosts))
        base = Facts(macs[0], macs[1], eth_type, 0, *route, tos=0)
        ports = (random.choice(PORTS), random.choice(PORTS))
        kind = random.choice(("udp", "udp", "tcp", "tcp", "icmp", "error", "pieces", "arp", "raw"))
        match kind:
            case "udp" | "tcp":
                tos = random.choice((0, 0xB8))
                make, protocol = (udp, UDP) if kind == "udp" else (tcp, TCP)
                facts = replace(base, protocol=protocol, tos=tos, ports=ports)
                frame = make(route, macs, ports=ports, tos=tos)  # type: ignore[operator]
            case "icmp":
                code = random.choice((0, 1))
                number, protocol = (8, ICMP) if eth_type == 0x0800 else (128, ICMPV6)
                facts = replace(base, protocol=protocol, ports=(number, code))
                frame = icmp(route, macs, number, code, payload=bytes(8))
            case "error":
                about = (random.choice(hosts), random.choice(hosts))
                frame = error("port unreachable", route, macs, udp(about, macs))
                number, protocol = ((3, 3), ICMP) if eth_type == 0x0800 else ((1, 4), ICMPV6)
                tos = 0xC0 if eth_type == 0x0800 else 0
                facts = replace(base, protocol=protocol, ports=number, quoted=about, tos=tos)
            case "pieces":
                is_first = random.random() < 0.5
                frame = fragment(route, macs, first=is_first, ports=ports)
                facts = replace(
                    base,
                    protocol=UDP,
                    ports=ports if is_first else None,
                    fragment="first" if is_first else "later",
                )
            case "arp":
                route = (random.choice(HOSTS4), random.choice(HOSTS4))
                who, whom = (parse_ip(text).value for text in route)
                frame = arp_request(parse_mac(macs[0]), who, whom)
                facts = Facts(macs[0], "ff:ff:ff:ff:ff:ff", 0x0806, 0, *route)
            case _:
                frame = raw(0x88CC, macs)
                facts = Facts(*macs, 0x88CC)
        if random.random() < 0.2:
            vlan = random.choice((10, 11))
            return retagged(frame, vlan), replace(facts, vlan=vlan)
        return frame, facts

    def condition(self, *, is_plain: bool) -> dict[str, Any]:
        """Draw the fields of a condition. is_plain: of those that long chains consist of."""
        random = self.random
        plain = (self._network, self._network, self._protocol, self._ports)
        others = (
            *plain, self._source_ports, self._mac, self._vlan, self._type, self._place, self._tos,
            self._addresses, self._port_group, self._quote, self._passed,
        )  # fmt: skip
        fields: dict[str, Any] = {}
        for _ in range(random.choice((1, 2, 2, 3, 4))):
            fields.update(random.choice(plain if is_plain else others)())
        if not is_plain:
            for name in ("ip_src", "ip_dst", "ip_proto", "l4_src", "l4_dst"):
                if name in fields:
                    fields[f"{name}_inverted"] = self._is_inverted()
            if random.random() < 0.1:
                fields["inverted"] = True
            if random.random() < 0.2:
                fields["fragment_policy"] = random.choice(list(FragmentPolicy))
        return fields

    def _is_inverted(self, chance: float = 0.15) -> bool:
        return self.random.random() < chance

    def _network(self) -> dict[str, Any]:
        return {f"ip_{self.random.choice(('src', 'dst'))}": self.random.choice(NETWORKS)}

    def _protocol(self) -> dict[str, Any]:
        return {"ip_proto": self.random.choice((UDP, TCP, ICMP, ICMPV6, 47))}

    def _ports(self) -> dict[str, Any]:
        first = self.random.choice(PORTS)
        last = first if self.random.random() < 0.7 else self.random.choice(PORTS)
        return {"l4_dst": PortRange(min(first, last), max(first, last))}

    def _source_ports(self) -> dict[str, Any]:
        return {"l4_src": self._ports()["l4_dst"]}

    def _mac(self) -> dict[str, Any]:
        side = self.random.choice(("src", "dst"))
        mask = self.random.choice((0xFFFF_FFFF_FFFF, 0xFFFF_0000_0000))
        return {
            f"eth_{side}": self.random.choice((*MACS, *OTHER_MACS)),
            f"eth_{side}_mask": mask,
            f"eth_{side}_inverted": self._is_inverted(),
        }

    def _vlan(self) -> dict[str, Any]:
        return self.random.choice(({"no_vlan": True}, {"vlan": 10}))

    def _type(self) -> dict[str, Any]:
        eth_type = self.random.choice((0x0800, 0x86DD, 0x0806, 0x88CC))
        return {"eth_type": eth_type, "eth_type_inverted": self._is_inverted()}

    def _place(self) -> dict[str, Any]:
        side = self.random.choice(("in", "out"))
        ports = self.random.choice((("p1",), ("p2",), ("p1", "p2")))
        return {f"{side}_port_ids": ports, f"{side}_ports_inverted": self._is_inverted()}

    def _tos(self) -> dict[str, Any]:
        return {"ip_tos": self.random.choice((0, 0xB8)), "ip_tos_inverted": self._is_inverted()}

    def _addresses(self) -> dict[str, Any]:
        side = self.random.choice(("src", "dst"))
        group = self.random.choice((*GROUPS, "gone"))
        inverted = self._is_inverted()
        return {
            f"ip_address_group_{side}_id": group,
            f"ip_address_group_{side}_inverted": inverted,
        }

    def _port_group(self) -> dict[str, Any]:
        which = self.random.choice(("port", "in_port", "out_port"))
        group = self.random.choice((*PORT_GROUPS, "gone"))
        return {f"{which}_group_id": group, f"{which}_group_inverted": self._is_inverted()}

    def _quote(self) -> dict[str, Any]:
        side = self.random.choice(("src", "dst"))
        network = self.random.choice([one for one in NETWORKS if "/" in one])
        return {f"icmp_data_{side}": network, f"icmp_data_{side}_inverted": self._is_inverted()}

    def _passed(self) -> dict[str, Any]:
        device = World().id(self.random.choice(("b", "p1", "p2", "elsewhere")))
        return {"traversed_device_id": device, "traversed_device_inverted": self._is_inverted()}


class Case:
    """A bridge with a filter, built for both sides.

    is_plain: rules test nothing but protocols, networks and destination ports; None: sometimes.
    """

    def __init__(self, seed: int, *, is_plain: bool | None = None) -> None:
        self.draw = Draw(seed)
        random = self.draw.random
        self.hook = random.choice(("inbound", "outbound"))
        self.plain: dict[str, list[PlainRule]] = {}
        self.world = World().bridge("b")
        at = {self.hook: "top"}
        self.world.port("p1", on="b", host="h1", **(at if self.hook == "inbound" else {}))  # type: ignore[arg-type]
        self.world.port("p2", on="b", host="h1", **(at if self.hook == "outbound" else {}))  # type: ignore[arg-type]
        for name, members in GROUPS.items():
            self.world.address_group(name, *members)
        for name, ports in PORT_GROUPS.items():
            self.world.port_group(name, *ports)
        if is_plain is None:
            is_plain = random.random() < 0.5
        self._chain("sub", random.choice((3, 40)), is_plain=is_plain, jumps=0.0)
        self._chain("top", random.choice((2, 8, 30, 100)), is_plain=is_plain, jumps=0.1)
        ids = self.world.id
        self.place = Place(
            ids("p1"),
            None if self.hook == "inbound" else ids("p2"),
            ids("p1"),
            frozenset((ids("p1"),) if self.hook == "inbound" else map(ids, ("p1", "b", "p2"))),
            {ids(name): frozenset(map(ids, ports)) for name, ports in PORT_GROUPS.items()},
            {ids(name): members for name, members in GROUPS.items()},
        )

    def _chain(self, name: str, size: int, *, is_plain: bool, jumps: float) -> None:
        random = self.draw.random
        specs, plain = [], []
        actions = ("accept", "drop", "reject", "return")
        for _ in range(random.randint(0, size)):
            fields = self.draw.condition(is_plain=is_plain)
            if random.random() < jumps:
                specs.append(rule("jump", jump="sub", **fields))
                plain.append(PlainRule(RuleAction.JUMP, self._condition(fields), "sub"))
            else:
                action = random.choice(actions)
                specs.append(rule(action, **fields))
                plain.append(PlainRule(RuleAction(action), self._condition(fields)))
        self.world.chain(name, *specs)
        self.plain[name] = plain

    def _condition(self, fields: dict[str, Any]) -> Condition:
        ids = self.world.id
        return Condition(
            **{
                name: tuple(map(ids, value))
                if name.endswith("port_ids")
                else ids(value)
                if "group" in name and isinstance(value, str)
                else value
                for name, value in fields.items()
            }
        )

    def expected(self, facts: Facts) -> str:
        """Return what the reference says."""
        return verdict(self.plain, "top", facts, self.place)


def said(result: SimulationResult) -> str:
    """Return a verdict of simulation in the words of the reference."""
    if isinstance(result, Forward):
        return "accept"
    assert isinstance(result, Drop)
    return {
        DropReason.FILTERED: "drop",
        DropReason.REJECTED: "reject",
        DropReason.MISSING_GROUP: "missing",
    }[result.reason]


@dataclass(frozen=True)
class Judged:
    """A packet, what it is, and its program; none when the outcome is for it only."""

    frame: bytes
    facts: Facts
    program: FlowProgram | None


def judge(case: Case, seen: Counter[str]) -> list[Judged]:
    judged = []
    for _ in range(PACKETS):
        frame, facts = case.draw.packet()
        result = case.world.simulate("p1", frame)
        assert isinstance(result, Forward | Drop)
        expected = case.expected(facts)
        assert said(result) == expected, (facts, case.plain)
        seen[expected] += 1
        program: FlowProgram | None = result.program
        if result.program.slow_path in (SlowPathReason.ICMP_QUOTE, SlowPathReason.ARP_CONTENT):
            program = None
        judged.append(Judged(frame, facts, program))
    return judged


@pytest.mark.parametrize("block", range(BLOCKS))
def test_rules_do_what_they_mean(block: int) -> None:
    """Every packet has the verdict of the reference, and so has every other of its class."""
    seen: Counter[str] = Counter()
    for seed in range(block * CASES, (block + 1) * CASES):
        case = Case(seed)
        judged = judge(case, seen)
        for one in judged:
            if one.program is None:
                continue
            wanted = masked(one.program.key, one.program.mask)
            expected = case.expected(one.facts)
            for other in judged:
                if masked(parse_frame(other.frame).key, one.program.mask) == wanted:
                    assert case.expected(other.facts) == expected, (one, other, case.plain)
                    seen["of a class"] += 1
    assert min(seen[word] for word in ("accept", "drop", "reject")) > 5, seen
    assert sum(seen.values()) - seen["of a class"] == CASES * PACKETS


@pytest.mark.parametrize("is_plain", [True, False])
@pytest.mark.parametrize("block", range(BLOCKS))
def test_looking_rules_up_changes_nothing_and_asks_no_more(
    block: int, is_plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome and its trace are those of trying each rule. Where all that rules test is
    looked up, the mask has no bit that trying them would not have recorded."""
    compared = 0
    for seed in range(1000 + block * CASES, 1000 + (block + 1) * CASES):
        case = Case(seed, is_plain=is_plain)
        frames = [case.draw.packet()[0] for _ in range(PACKETS)]
        found = []
        for indexed_from in (1, 10_000):
            monkeypatch.setattr(evaluation, "INDEXED_FROM", indexed_from)
            found.append([case.world.simulate("p1", frame, trace=True) for frame in frames])
        for looked_up, tried in zip(*found, strict=True):
            assert isinstance(looked_up, Forward | Drop)
            assert isinstance(tried, Forward | Drop)
            assert looked_up.steps == tried.steps
            one, two = looked_up.program, tried.program
            if is_plain:
                assert covers(two.mask, one.mask), case.plain
            assert one.tags <= two.tags
            asked = {"mask": two.mask, "tags": two.tags, "regions": two.regions}
            assert replace(one, **asked, slow_path=two.slow_path) == two
            compared += 1
    assert compared == CASES * PACKETS
