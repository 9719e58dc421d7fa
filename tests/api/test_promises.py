"""What the reference page promises to refuse is refused, read from the page's own words.

Each field's row has a type and a sentence. The type gives values that break it; of the sentences
every one that makes a promise must be among `PROMISES`, with bodies that break it. A new promise
without such a body fails here, and so does one that the server does not keep.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from midonet.api.call import Endpoint
from midonet.api.registry import ENDPOINTS
from tests.api.conftest import Api
from tests.api.samples import BODIES, World, body_for, build_world, with_unknown_ids

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "rest.md"
IN_MEMORY = pytest.mark.parametrize("store", ["memory"], indirect=True)

Body = dict[str, Any]
Breach = Callable[[World], Body]


@dataclass(frozen=True)
class Row:
    """One field as the page shows it."""

    resource: str
    name: str
    type: str
    writer: str
    text: str


def rows() -> Iterator[Row]:
    resource = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            resource = line[3:]
        match = re.fullmatch(r"\| `(\w+)` \| (.*) \| (.*) \| (.*) \| ?(.*) \|", line)
        if match is not None:
            yield Row(resource, match[1], match[2], match[4], match[5].strip())


WRITTEN = [row for row in rows() if row.writer.startswith("POST") or "not supp" in row.writer]


def endpoint_for(resource: str) -> Endpoint:
    """Return where a body of a resource can be sent: the PUT when there is no POST."""
    taking = [each for each in ENDPOINTS if each.takes_body and each.schema.title == resource]
    return max(taking, key=lambda each: (each.method == "POST", each.path.startswith("/bridges")))


WRONG: list[tuple[str, list[Any]]] = [
    (r"uuid", ["x", "", 7, True, "6a1f3d5e-0000-4000-8000-00000000000g", ["x"], {}]),
    (r"\[uuid\]", ["x", [7], ["x"], {}]),
    (r"boolean", ["yes", 2, -1, [], {}]),
    (r"string", [7, True, [], {}]),
    (r"ip", ["x", "", "10.0.0.256", "10.0.0.1/24", "::g", "fe80::1%eth0", "010.0.0.1", 7]),
    (r"ipv4", ["x", "::1", "10.0.0", "10.0.0.1/24", "1.2.3.4\n", 7]),
    (r"\[prefix\]", [["x"], ["10.0.0.1"], ["10.0.0.1/33"], ["::1/129"], ["10.0.0.1/-1"], "x"]),
    (r"ipv6", ["x", "10.0.0.1", "::g", "::1/64", 7]),
    (r"\[ipv6\]", [["x"], ["10.0.0.1"], ["::1/64"], "x"]),
    (r"\[hostname\]", [["a b"], ["x" * 64], "x", [7]]),
    (r"prefix", ["x", "2001:db8::1", "2001:db8::/129", 7]),
    (r"ip-or-prefix", ["x", "", "10.0.0.1/33", "::1/129", 7]),
    (r"client-id", ["x", "", "02:00", "g0:00:00:00:00:01", 7]),
    (r"\[(AddressPair|DhcpRoute|DhcpOption|NatTarget|Condition|PolicyRule)\]", ["x", [7], {}]),
    (r"mac", ["x", "", "02:00:00:00:00", "02:00:00:00:00:0g", "2:0:0:0:0:1", 7]),
    (r"unicast-mac", ["x", "01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"]),
    (r"mac-mask", ["x", "ffff", "ffff.ffff", "ffff.ffff.fffg", 7]),
    (r"interface-name", ["", "a/b", "a b", "a:b", "sixteen-letters-", "..", "nul\0", "ööööööööö"]),
    (
        r"PortRange",
        [7, "80", {}, {"start": 1}, {"start": -1, "end": 1}, {"start": 1, "end": 65536}],
    ),
    (r"`.*", ["bogus", "", 7]),
]
"""Type in the words of the page, and values that are not of it."""


def wrong_values(kind: str) -> list[Any]:
    """Return values that break a type."""
    bounds = re.fullmatch(r"integer (-?\d+)\.\.(-?\d+)", kind)
    if bounds is not None:
        low, high = int(bounds[1]), int(bounds[2])
        return [low - 1, high + 1, 10**30, -(10**30), "x", "", True, 1.5, [], {}]
    length = re.fullmatch(r"string of (\d+)\.\.(\d+) characters", kind)
    if length is not None:
        too_short = [""] if int(length[1]) else []
        return [*too_short, "x" * (int(length[2]) + 1), "a\0b", "a\nb", 7, True, [], {}]
    return next(values for pattern, values in WRONG if re.fullmatch(pattern, kind))


def promises(text: str) -> list[str]:
    """Return the parts of a sentence that say what a value may be."""
    text = text.removeprefix("Required.").strip()
    return [text] if _PROMISING.search(text) else []


_PROMISING = re.compile(
    r"\b(must|needs?|only|not|no|neither|required|unique|unicast|above|at most|excludes|other|"
    r"one of|up to|port of|device|bridge|ports)\b|\bor\b"
)

HARMLESS = {
    ("Bridge", "qosPolicyId"): "says whose policy it is",
    ("Port", "qosPolicyId"): "says whose policy counts",
    ("Port", "portSecurityEnabled"): "says what a secured port lets out, and what null means",
    ("DhcpSubnet", "defaultGateway"): "says what clients are told",
    ("DhcpSubnet", "enabled"): "what answers and what does not",
    ("DhcpV6Subnet", "enabled"): "what answers and what does not",
    ("DhcpV6Host", "clientId"): "says which entry it names",
    ("Rule", "matchForwardFlow"): "which packets are meant",
    ("Rule", "matchReturnFlow"): "which packets are meant",
    ("Rule", "inPortGroup"): "which packets are meant",
    ("Rule", "outPortGroup"): "which packets are meant",
    ("Rule", "ipAddrGroupSrc"): "which packets are meant",
    ("Rule", "ipAddrGroupDst"): "which packets are meant",
    ("Rule", "matchNwDstRewritten"): "which packets are meant",
    ("IpAddrGroupAddr", "addr"): "says what is kept",
    ("Pool", "healthMonitorId"): "says what null means",
    ("Pool", "adminStateUp"): "what a pool that is down does",
    ("PoolMember", "weight"): "says what a weight is",
    ("PoolMember", "adminStateUp"): "what a member that is down does",
    ("VIP", "protocolPort"): "says whose port it is",
    ("Mirror", "conditions"): "which packets are meant",
    ("L2Insertion", "failOpen"): "what happens to frames",
    ("PortGroup", "stateful"): "refused with its members, in test_groups",
    ("QosBandwidthRule", "policyId"): "refused with a second rule, in test_mirrors_and_policies",
    ("QosDscpRule", "policyId"): "refused with a second rule, in test_mirrors_and_policies",
    ("Bridge", "name"): "need not be unique promises nothing",
    ("Router", "name"): "need not be unique promises nothing",
    ("Port", "hostId"): "says when a body counts",
    ("Port", "peerId"): "says when a body counts",
    ("Host", "containerLimit"): "names a value that is taken",
    ("Route", "srcNetworkAddr"): "says what the route is for",
    ("MacPort", "vlanId"): "says which of two wins",
    ("Rule", "position"): "refused with the length of the chain, in test_rules",
    ("Rule", "fragmentPolicy"): "says what null means",
    ("Bridge", "adminStateUp"): "what is up or down",
    ("Bridge", "inboundFilterId"): "where a chain runs",
    ("Bridge", "outboundFilterId"): "where a chain runs",
}
"""Sentences that sound like promises to refuse and are none."""

HTTP = {"start": 80, "end": 80}


def port(**body: Any) -> list[Breach]:
    return [lambda world: {"type": "Router"} | body]


def rule(*bodies: Body) -> list[Breach]:
    return [lambda world, body=body: {"type": "drop"} | body for body in bodies]  # type: ignore[misc]


def route(*gateways: str, **body: Any) -> list[Breach]:
    plain = {
        "type": "Normal",
        "dstNetworkAddr": "20.0.0.0",
        "dstNetworkLength": 8,
        "srcNetworkAddr": "0.0.0.0",
        "srcNetworkLength": 0,
    }
    made: list[Breach] = [
        lambda world, gateway=gateway: (  # type: ignore[misc]
            plain | {"nextHopPort": world.ids["router_port"], "nextHopGateway": gateway} | body
        )
        for gateway in gateways
    ]
    return made or [lambda world: plain | body]


def with_(resource: str, *bodies: Body) -> list[Breach]:
    """Return bodies of a resource that differ from the good one."""
    return [
        lambda world, body=body: BODIES[resource](world) | body  # type: ignore[misc]
        for body in bodies
    ]


def bridge_port(**body: Any) -> list[Breach]:
    return [lambda world: {"type": "Bridge"} | body]


def dnat(*targets: Body, **body: Any) -> list[Breach]:
    return rule({"type": "dnat", "flowAction": "accept", "natTargets": list(targets)} | body)


ADDRESS = {"addressFrom": "192.0.2.1", "addressTo": "192.0.2.1"}
OTHER_VERSION = {"addressFrom": "2001:db8::1", "addressTo": "2001:db8::1"}

PROMISES: dict[tuple[str, str], list[Breach]] = {
    ("Router", "loadBalancerId"): with_("Router", {"loadBalancerId": str(uuid4())}),
    ("Router", "nat64Prefix"): with_("Router", {"nat64Prefix": "64:ff9b::/64"}),
    ("Router", "nat64AddressFrom"): with_(
        "Router", {"nat64AddressFrom": "192.0.2.1"}, {"nat64Prefix": "64:ff9b::/96"}
    ),
    ("Port", "raEnabled"): bridge_port(raEnabled=True),
    ("Port", "raManaged"): bridge_port(raManaged=True),
    ("Port", "raOtherConfig"): bridge_port(raOtherConfig=True),
    ("Port", "raAutonomous"): bridge_port(raAutonomous=False),
    ("Port", "raLifetimeSeconds"): port(raLifetimeSeconds=100, raIntervalSeconds=200),
    ("Port", "raIntervalSeconds"): bridge_port(raIntervalSeconds=100),
    ("Port", "raDnsServerAddrs"): bridge_port(raDnsServerAddrs=["2001:db8::53"]),
    ("Port", "raDomainSearch"): bridge_port(raDomainSearch=["example.org"]),
    ("Port", "allowedAddressPairs"): port(
        allowedAddressPairs=[{"macAddress": "02:00:00:00:00:01", "ipAddress": "10.0.0.1"}]
    )
    + bridge_port(allowedAddressPairs=[{"macAddress": "01:00:5e:00:00:01"}])
    + bridge_port(
        allowedAddressPairs=[
            {"macAddress": "02:00:00:00:00:01", "ipAddress": f"10.0.{n >> 8}.{n & 255}"}
            for n in range(257)
        ]
    ),
    ("DhcpSubnet", "subnetPrefix"): with_(
        "DhcpSubnet", {"subnetPrefix": "10.9.0.5", "subnetLength": 24, "defaultGateway": None}
    ),
    ("DhcpHost", "ipAddr"): with_(
        "DhcpHost", {"ipAddr": "10.8.0.8"}, {"ipAddr": "10.9.0.0"}, {"ipAddr": "10.9.0.255"}
    ),
    ("DhcpHost", "extraDhcpOpts"): with_(
        "DhcpHost",
        {"extraDhcpOpts": [{"optName": "0", "optValue": "1"}]},
        {"extraDhcpOpts": [{"optName": "255", "optValue": "1"}]},
        {"extraDhcpOpts": [{"optName": "no-such-option", "optValue": "1"}]},
    ),
    ("DhcpV6Subnet", "prefix"): with_("DhcpV6Subnet", {"prefix": "2001:db8:9::5"}),
    ("Rule", "flowAction"): rule(
        {"flowAction": "accept"}, {"type": "l2_transform", "flowAction": "return"}
    )
    + dnat(ADDRESS, flowAction=None)
    + dnat(ADDRESS, flowAction="redirect"),
    ("Rule", "natTargets"): rule({"natTargets": [ADDRESS]})
    + dnat()
    + dnat(ADDRESS, OTHER_VERSION)
    + dnat(ADDRESS | {"addressTo": "192.0.2.9"}, type="snat"),
    ("Rule", "popVlan"): rule({"popVlan": True}),
    ("Rule", "targetPortId"): [
        lambda world: {"type": "drop", "targetPortId": world.ids["ports"]},
        lambda world: {"type": "l2_transform", "flowAction": "redirect"},
        lambda world: {
            "type": "l2_transform",
            "flowAction": "accept",
            "targetPortId": world.ids["ports"],
        },
    ],
    ("Rule", "failOpen"): rule({"failOpen": True}),
    ("IpAddrGroupAddr", "version"): with_(
        "IpAddrGroupAddr", {"version": 4}, {"version": 5}, {"addr": "10.0.0.1"}
    ),
    ("Pool", "protocol"): with_("Pool", {"protocol": "SCTP"}),
    ("PoolMember", "address"): with_("PoolMember", {"address": "10.0.0.12"}),
    ("L2Insertion", "srvPortId"): [
        lambda world: BODIES["L2Insertion"](world) | {"srvPortId": world.ids["router_port"]},
        lambda world: BODIES["L2Insertion"](world) | {"srvPortId": world.ids["ports"]},
    ],
    ("L2Insertion", "vlan"): with_("L2Insertion", {"vlan": 0}),
    ("QosPolicy", "rules"): with_(
        "QosPolicy",
        {
            "rules": [
                {"type": "dscp_marking", "dscpMark": 10},
                {"type": "dscp_marking", "dscpMark": 11},
            ]
        },
    ),
    ("Bridge", "macAgeingSeconds"): [],
    ("Route", "type"): route(type="Fip64") + route(type="normal"),
    ("Route", "nextHopPort"): route()
    + route(type="Local")
    + [
        lambda world: BODIES["Route"](world) | {"nextHopPort": str(uuid4())},
        lambda world: BODIES["Route"](world) | {"nextHopPort": world.ids["ports"]},
    ],
    ("Route", "nextHopGateway"): route(
        "10.0.0.1", "10.0.0.0", "10.0.0.255", "224.0.0.1", "127.0.0.1", "2001:db8::1"
    )
    + route("10.0.0.9", type="BlackHole"),
    ("Port", "type"): port(type="router") + port(type="Vxlan"),
    ("Port", "vlanId"): port(vlanId=7),
    ("Port", "networkAddress"): port(networkAddress="10.0.0.0")
    + port(networkAddress="10.0.1.0", networkLength=24, portAddress="10.0.0.1"),
    ("Port", "networkLength"): port(networkLength=24) + port(portAddress="10.0.0.1"),
    ("Port", "portAddress"): port(portAddress="10.0.0.0", networkLength=24)
    + port(portAddress="224.0.0.1", networkLength=24),
    ("Port", "portSubnet"): [
        each
        for subnet in (
            ["10.0.0.1/24", "10.0.1.1/24"],
            ["127.0.0.1/8"],
            ["::ffff:10.0.0.1/120"],
            ["0.0.0.9/24"],
            ["224.0.0.1/24"],
            ["10.0.0.0/24"],
            ["10.0.0.255/24"],
            ["10.0.0.1/0"],
        )
        for each in port(portSubnet=subnet)
    ],
    ("Port", "portMac"): port(portMac="01:00:5e:00:00:01") + port(portMac="00:00:00:00:00:00"),
    ("Port", "rtrPortVni"): [lambda world: {"type": "Bridge", "rtrPortVni": 5}],
    ("Port", "offRampVxlan"): [lambda world: {"type": "Bridge", "offRampVxlan": True}],
    ("MacPort", "macAddr"): [
        lambda world: BODIES["MacPort"](world) | {"macAddr": "01:00:5e:00:00:01"},
        lambda world: BODIES["MacPort"](world) | {"macAddr": "00:00:00:00:00:00"},
    ],
    ("MacPort", "portId"): [
        lambda world: BODIES["MacPort"](world) | {"portId": world.ids["router_port"]},
        lambda world: BODIES["MacPort"](world) | {"portId": str(uuid4())},
    ],
    ("IP4Mac", "ip"): [
        lambda world, ip=ip: BODIES["IP4Mac"](world) | {"ip": ip}  # type: ignore[misc]
        for ip in ("0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "::ffff:10.0.0.1")
    ],
    ("IP4Mac", "mac"): [
        lambda world: BODIES["IP4Mac"](world) | {"mac": "ff:ff:ff:ff:ff:ff"},
        lambda world: BODIES["IP4Mac"](world) | {"mac": "00:00:00:00:00:00"},
    ],
    ("Rule", "type"): rule({"type": "dnat"}, {"type": "Drop"}, {"type": ""}),
    ("Rule", "jumpChainId"): [
        lambda world: {"type": "jump"},
        lambda world: {"type": "drop", "jumpChainId": world.ids["target_chain"]},
        lambda world: {"type": "jump", "jumpChainId": world.ids["chains"]},
        lambda world: {"type": "jump", "jumpChainId": str(uuid4())},
    ],
    ("Rule", "invInPorts"): rule({"invInPorts": True}),
    ("Rule", "traversedDevice"): rule({"traversedDevice": str(uuid4())}),
    ("Rule", "vlan"): rule({"vlan": 5, "noVlan": True}),
    ("Rule", "dlSrcMask"): rule({"dlSrcMask": "ffff.ffff.0000"}),
    ("Rule", "dlDstMask"): rule({"dlDstMask": "ffff.ffff.0000"}),
    ("Rule", "nwTos"): rule({"nwTos": 1, "dlType": 0x0806}),
    ("Rule", "nwProto"): rule({"nwProto": 6, "dlType": 0x0806}),
    ("Rule", "nwSrcAddress"): rule({"nwSrcAddress": "10.0.0.1", "dlType": 0x86DD}),
    ("Rule", "nwSrcLength"): rule({"nwSrcLength": 24}),
    ("Rule", "nwDstAddress"): rule({"nwDstAddress": "::1", "dlType": 0x0806}),
    ("Rule", "nwDstLength"): rule({"nwDstLength": 24}),
    ("Rule", "tpSrc"): rule(
        {"tpSrc": HTTP, "nwProto": 47}, {"tpSrc": {"start": 256, "end": 256}, "nwProto": 1}
    ),
    ("Rule", "tpDst"): rule(
        {"tpDst": HTTP, "nwProto": 47}, {"tpDst": {"start": 256, "end": 256}, "nwProto": 58}
    ),
    ("TunnelZone", "name"): [lambda world: {"name": "zone", "type": "gre"}],
    ("TunnelZone", "type"): [lambda world: {"name": "n", "type": "GRE"}],
    ("TunnelZoneHost", "ipAddress"): [
        lambda world, ip=ip: {"hostId": world.ids["new_host"], "ipAddress": ip}  # type: ignore[misc]
        for ip in ("0.0.0.0", "224.0.0.1", "255.255.255.255", "fe80::1", "ff02::1", "192.0.2.1")
    ],
}
"""What breaks the sentence of a field. Conflicts (409) count as refusals."""


def test_the_page_is_read() -> None:
    assert len(WRITTEN) > 100
    assert {row.resource for row in WRITTEN} == set(BODIES)


def test_each_promise_has_a_body_that_breaks_it() -> None:
    made = {
        (row.resource, row.name)
        for row in WRITTEN
        if promises(row.text) and "not supported" not in row.writer
    }
    assert made - set(PROMISES) - set(HARMLESS) == set()


async def _send(api: Api, world: World, endpoint: Endpoint, body: Body) -> Any:
    path = with_unknown_ids(world.path(endpoint))
    return await api.http.request(endpoint.method, path, json=body)


@pytest.mark.parametrize("resource", sorted(BODIES))
@IN_MEMORY
async def test_value_that_is_not_of_the_documented_type_is_refused(api: Api, resource: str) -> None:
    world = await build_world(api)
    endpoint = endpoint_for(resource)
    good = body_for(endpoint, world)
    for row in WRITTEN:
        if row.resource != resource:
            continue
        if "not supported" in row.writer:
            bad: list[Any] = ["x", 7, {"a": 1}, [str(uuid4())]]
        else:
            bad = wrong_values(row.type)
        for value in bad:
            reply = await _send(api, world, endpoint, good | {row.name: value})
            assert reply.status_code == 400, (row, value)
            named = reply.json()["violations"][0]["property"]
            assert named.startswith(row.name), (row, value, reply.text)


@pytest.mark.parametrize("key", sorted(PROMISES), ids="-".join)
@IN_MEMORY
async def test_what_the_page_promises_to_refuse_is_refused(api: Api, key: tuple[str, str]) -> None:
    world = await build_world(api)
    member = {"hostId": world.ids["hosts"], "ipAddress": "192.0.2.1"}
    await api.create(f"/tunnel_zones/{world.ids['tunnel_zones']}/hosts", **member)
    endpoint = endpoint_for(key[0])
    for breach in PROMISES[key]:
        body = breach(world)
        target = endpoint
        if key[0] == "Port" and body.get("type") != "Bridge":
            target = next(
                each
                for each in ENDPOINTS
                if each.method == "POST" and each.path == "/routers/{id}/ports"
            )
        reply = await _send(api, world, target, body)
        assert reply.status_code in (400, 409), (body, reply.text)
        assert reply.json()["message"], body


@pytest.mark.parametrize("resource", sorted(BODIES))
@IN_MEMORY
async def test_field_that_is_called_required_is(api: Api, resource: str) -> None:
    world = await build_world(api)
    endpoint = endpoint_for(resource)
    good = body_for(endpoint, world)
    for row in WRITTEN:
        if row.resource == resource and row.text.startswith("Required."):
            body = {name: value for name, value in good.items() if name != row.name}
            reply = await _send(api, world, endpoint, body)
            assert reply.status_code == 400, row
