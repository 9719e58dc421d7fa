"""Every step that a trace may have is said in words, and as JSON."""

from __future__ import annotations

import json
from typing import get_args
from uuid import UUID

import pytest

from midonet.agent.flow_state.connection import (
    Binding,
    Connection,
    ConnectionKey,
    Direction,
    Endpoint,
    Side,
)
from midonet.agent.flow_state.sight import Sight, Standing
from midonet.agent.flow_state.zone import Zone
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import LocalOutput
from midonet.agent.operator.trace_text import describe_step, mentioned_ids
from midonet.agent.simulation.trace import (
    Answered,
    BeganConnection,
    BeganFilter,
    CheckedSource,
    ChoseMember,
    ChoseRoute,
    Crossed,
    EndedConnection,
    EnteredOutput,
    EnteredPort,
    Flooded,
    FollowsCopy,
    FoundConnection,
    HidClient,
    Hook,
    KeptMember,
    LeftPort,
    LookedUpClient,
    LookedUpMac,
    LookedUpNeighbour,
    MarkedDscp,
    MetRule,
    Mirrored,
    MirrorPoint,
    Redirected,
    RestoredVip,
    Rewrote,
    TraceEvent,
    TraceStep,
    Translated,
    Waits,
    WasDropped,
    WasTooLong,
)
from midonet.model.chains import RuleAction
from midonet.model.devices import NextHopKind
from midonet.model.ids import (
    BridgeId,
    ChainId,
    LoadBalancerId,
    MirrorId,
    PoolId,
    PoolMemberId,
    PortId,
    QosPolicyId,
    RouteId,
    RouterId,
    RuleId,
    VipId,
)
from midonet.packets.addresses import IpVersion, parse_ip, parse_prefix
from midonet.packets.five_tuple import FiveTuple

DEVICE = UUID(int=1)
PORT = PortId(UUID(int=2))
MIRROR, POLICY = MirrorId(UUID(int=6)), QosPolicyId(UUID(int=7))
CHAIN, RULE, ROUTE = ChainId(UUID(int=3)), RuleId(UUID(int=4)), RouteId(UUID(int=5))
NAMES = {DEVICE: "lan", PORT: "tap0", CHAIN: "web"}
MAC = 0x020000000001
GATEWAY = parse_ip("10.0.0.1")

TUPLE = FiveTuple(IpVersion.V4, 17, 0x0A000001, 5000, 0x0A000002, 53)
FORWARD = ConnectionKey(Zone(PORT, 7), TUPLE)
BACK = ConnectionKey(Zone(DEVICE), TUPLE.inverse())
PING = ConnectionKey(Zone(PORT), TUPLE._replace(protocol=1, source_port=9, destination_port=9))
PING6 = ConnectionKey(
    Zone(PORT), FiveTuple(IpVersion.V6, 6, 0xFD << 120 | 1, 1, 0xFD << 120 | 2, 80)
)
CONNECTION = Connection(
    FORWARD,
    (BACK,),
    PORT,
    (
        Binding(
            DEVICE,
            Side.SOURCE,
            Endpoint(IpVersion.V4, 0x0A000001, 5000),
            Endpoint(IpVersion.V4, 0xC0000201, 6000),
        ),
    ),
)

BALANCER, VIP = LoadBalancerId(UUID(int=6)), VipId(UUID(int=7))
POOL, MEMBER = PoolId(UUID(int=8)), PoolMemberId(UUID(int=9))
AT_MEMBER = Endpoint(IpVersion.V4, 0x0A00020B, 8080)
AT_VIP = Endpoint(IpVersion.V4, 0xC0000250, 80)
AT_CLIENT = Endpoint(IpVersion.V6, 0xFD << 120 | 5, 4000)
AT_ROUTER = Endpoint(IpVersion.V6, 0xFD << 120 | 1, 1024)

SAMPLES: list[tuple[TraceEvent, str]] = [
    (
        ChoseMember(BALANCER, VIP, POOL, MEMBER, 77, False, 3, 4, 2),
        "VIP {7}: bucket 77 of 4096, by the tuple, is of member {9} of pool {8} (weight 3 of 4, 2"
        " members)",
    ),
    (
        ChoseMember(BALANCER, VIP, POOL, MEMBER, 78, True, 3, 4, 2),
        "VIP {7}: bucket 78 of 4096, by the client's address, is of member {9} of pool {8} (weight"
        " 3 of 4, 2 members)",
    ),
    (
        KeptMember(BALANCER, VIP, POOL, MEMBER, True, True),
        "VIP {7}: the connection is at member {9} of pool {8}, which takes no new connections: it"
        " goes on there",
    ),
    (
        KeptMember(BALANCER, VIP, POOL, MEMBER, False, False),
        "VIP {7}: the connection is at member {9} of pool {8}, which is up: it may not go on there",
    ),
    (
        KeptMember(BALANCER, VIP, POOL, None, False, False),
        "VIP {7}: its member is not in pool {8} any more",
    ),
    (
        RestoredVip(BALANCER, VIP, AT_MEMBER, AT_VIP),
        "VIP {7}: answer of 10.0.2.11:8080 becomes 192.0.2.80:80",
    ),
    (
        HidClient(BALANCER, AT_CLIENT, AT_ROUTER, False),
        "load balancer {6}: [fd00::5]:4000 becomes [fd00::1]:1024, so that the member answers by"
        " the router",
    ),
    (
        HidClient(BALANCER, AT_CLIENT, AT_ROUTER, True),
        "load balancer {6}: [fd00::1]:1024 was [fd00::5]:4000",
    ),
    (EnteredPort(PORT, DEVICE), "enters lan ({1}) by port tap0 ({2})"),
    (LeftPort(PORT), "leaves by port tap0 ({2})"),
    (
        BeganFilter(Hook.BRIDGE_INBOUND, DEVICE, CHAIN),
        "inbound filter of bridge lan ({1}): chain web ({3})",
    ),
    (
        MetRule(CHAIN, RULE, 7, RuleAction.DROP, True),
        "rule 7 {4} of chain web ({3}) matches: DROP",
    ),
    (
        MetRule(CHAIN, RULE, 7, RuleAction.DROP, False),
        "rule 7 {4} of chain web ({3}) does not match",
    ),
    (
        Translated(RULE, DEVICE, RuleAction.SNAT, "10.0.0.2:7", "192.0.2.1:9", "chosen anew"),
        "SNAT for lan ({1}): 10.0.0.2:7 becomes 192.0.2.1:9 (chosen anew)",
    ),
    (
        Crossed("fd00::5", "64:ff9b::a00:5", "192.0.2.1", "10.0.0.5"),
        "fd00::5 > 64:ff9b::a00:5 becomes 192.0.2.1 > 10.0.0.5",
    ),
    (
        Translated(RULE, DEVICE, RuleAction.DNAT, "192.0.2.1", "10.0.0.2"),
        "DNAT for lan ({1}): 192.0.2.1 becomes 10.0.0.2",
    ),
    (
        LookedUpMac(BridgeId(DEVICE), 5, MAC, PORT),
        "MAC table in VLAN 5: 02:00:00:00:00:01 is behind port tap0 ({2})",
    ),
    (
        LookedUpMac(BridgeId(DEVICE), 0, MAC, None),
        "MAC table: 02:00:00:00:00:01 is unknown",
    ),
    (
        LookedUpClient(BridgeId(DEVICE), "02:00:00:00:00:01", GATEWAY),
        "DHCP of lan ({1}): client 02:00:00:00:00:01 is given 10.0.0.1",
    ),
    (
        LookedUpClient(BridgeId(DEVICE), "02:00:00:00:00:01", None),
        "DHCP of lan ({1}): client 02:00:00:00:00:01 has no entry",
    ),
    (
        LookedUpNeighbour(DEVICE, GATEWAY, MAC),
        "neighbour table of lan ({1}): 10.0.0.1 is at 02:00:00:00:00:01",
    ),
    (
        ChoseRoute(
            RouterId(DEVICE), ROUTE, parse_prefix("0.0.0.0/0"), NextHopKind.NORMAL, GATEWAY, PORT, 2
        ),
        "route 0.0.0.0/0 ({5}): Normal via 10.0.0.1 by port tap0 ({2}), one of 2 equal ones",
    ),
    (
        Mirrored(MirrorPoint.BRIDGE_INBOUND, DEVICE, MIRROR, PORT),
        "before the inbound filter of bridge lan ({1}): copied to port tap0 ({2}) by mirror {6}",
    ),
    (FollowsCopy(MIRROR, PORT), "copy of mirror {6} to port tap0 ({2}):"),
    (Redirected(RULE, PORT, True), "rule {4} redirects it to enter by port tap0 ({2})"),
    (Redirected(RULE, PORT, False), "rule {4} redirects it to leave by port tap0 ({2})"),
    (CheckedSource(PORT, ""), "port security of tap0 ({2}): passes"),
    (
        CheckedSource(PORT, "the source address is not the MAC's"),
        "port security of tap0 ({2}): does not pass, the source address is not the MAC's",
    ),
    (MarkedDscp(PORT, POLICY, 46), "marked with DSCP 46 by policy {7}"),
    (Flooded(BridgeId(DEVICE), (PORT, PORT)), "floods to 2 ports"),
    (Rewrote(DEVICE, "eth_src", MAC, MAC + 1), "eth_src 02:00:00:00:00:01 -> 02:00:00:00:00:02"),
    (Rewrote(DEVICE, "ip_dst", 0x0A000001, 0x0A000002), "ip_dst 10.0.0.1 -> 10.0.0.2"),
    (Rewrote(DEVICE, "ttl", 0, 1), "ttl -1"),
    (Answered(PORT, "echo_reply"), "answers by port tap0 ({2}): echo_reply"),
    (WasTooLong(1500, 1450), "is 1500 bytes long, the tunnel takes 1450"),
    (EnteredOutput(PORT, LocalOutput(PORT)), "output for port tap0 ({2}): port {2}"),
    (
        WasDropped(DropReason.FILTERED, PORT, RULE),
        "dropped at port tap0 ({2}): FILTERED, because of {4}",
    ),
    (WasDropped(DropReason.HAIRPIN, PORT, None), "dropped at port tap0 ({2}): HAIRPIN"),
    (Waits(address=GATEWAY), "waits for the MAC of 10.0.0.1"),
    (Waits(object_ids=(DEVICE,)), "waits for 1 objects to load"),
    (
        Waits(connection=FORWARD),
        "waits for what other hosts know of udp 10.0.0.1:5000 -> 10.0.0.2:53",
    ),
    (
        FoundConnection(FORWARD, Sight(Standing.NEW)),
        "connection of udp 10.0.0.1:5000 -> 10.0.0.2:53 in zone tap0 ({2}) VLAN 7: new",
    ),
    (
        FoundConnection(BACK, Sight(Standing.KNOWN, Direction.RETURN, CONNECTION)),
        "connection udp 10.0.0.1:5000 -> 10.0.0.2:53 in zone lan ({1}): known, return",
    ),
    (
        BeganConnection(FORWARD, (BACK,)),
        "begins connection udp 10.0.0.1:5000 -> 10.0.0.2:53, answers in zone lan ({1})",
    ),
    (
        EndedConnection(PING, is_dead=False),
        "connection icmp 10.0.0.1 -> 10.0.0.2 id 9 is over: policy forbids it",
    ),
    (
        EndedConnection(PING6, is_dead=True),
        "connection tcp [fd00::1]:1 -> [fd00::2]:80 is over: its answers would lead elsewhere",
    ),
]


@pytest.mark.parametrize(("event", "text"), SAMPLES)
def test_steps_in_words(event: TraceEvent, text: str) -> None:
    said = describe_step(TraceStep(3, event), NAMES, is_ipv6=False)
    ids = [str(UUID(int=number)) for number in range(10)]
    assert said["text"] == text.format(*ids)
    assert said["depth"] == 3
    assert json.loads(json.dumps(said)) == said


def test_every_event_has_a_sample() -> None:
    assert {type(event) for event, _ in SAMPLES} == set(get_args(TraceEvent))


def test_ids_are_found_whatever_the_field() -> None:
    steps = [TraceStep(0, event) for event, _ in SAMPLES]
    assert mentioned_ids(steps) >= {DEVICE, PORT, CHAIN, RULE, ROUTE}
