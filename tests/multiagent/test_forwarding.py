"""Packets that enter at one agent and leave at another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from midonet.agent.flows.drop_reason import DropReason
from midonet.model.devices import Bridge, Port
from midonet.model.ids import PortId
from midonet.packets.addresses import parse_ip, parse_mac
from midonet.packets.frame import parse_frame
from midonet.packets.neighbour import arp_reply, arp_request, neighbour_reply
from tests.multiagent.hosts import Deployment, RunningAgent, eventually, mac, udp

VM1, VM2 = mac(1), mac(2)
ROUTER_1, ROUTER_2 = mac(0x101), mac(0x102)


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    deployment = Deployment(tmp_path)
    await deployment.open()
    yield deployment
    await deployment.store.close()


async def test_bridge_floods_then_learns_across_hosts(deployment: Deployment) -> None:
    async with (
        deployment.agent("h1", "10.9.0.1") as h1,
        deployment.agent("h2", "10.9.0.2") as h2,
    ):
        bridge = await deployment.bridge()
        vm1 = await deployment.bridge_port(bridge, h1.id, "tap1")
        vm2 = await deployment.bridge_port(bridge, h2.id, "tap2")
        other = await deployment.bridge_port(bridge, h2.id, "tap3")
        await deployment.settled(h1, h2)

        there = udp(VM1, VM2, "10.0.0.1", "10.0.0.2")
        h1.datapath.receive(vm1, there)
        await eventually(lambda: h2.at(vm2) and h2.at(other))
        assert h2.take(vm2) == [there]
        assert h2.take(other) == [there]
        assert h1.at(vm1) == []

        # The store carries what h1 learnt to h2: the answer is unicast at once.
        soft = h2.agent.soft_state
        await eventually(lambda: soft.mac_port(bridge, 0, parse_mac(VM1)) == vm1)
        back = udp(VM2, VM1, "10.0.0.2", "10.0.0.1", 2000, 1000)
        h2.datapath.receive(vm2, back)
        await eventually(lambda: h1.at(vm1))
        assert h1.take(vm1) == [back]
        assert h2.at(other) == []

        # And h1's flood is judged again once it knows where VM2 is.
        await eventually(lambda: h1.agent.soft_state.mac_port(bridge, 0, parse_mac(VM2)) == vm2)
        await eventually(lambda: not h1.agent.decisions.programs.table.pending)
        h1.datapath.receive(vm1, there)
        await eventually(lambda: h2.at(vm2))
        assert h2.take(vm2) == [there]
        assert h2.at(other) == []


async def test_second_packet_of_a_class_needs_no_decision(deployment: Deployment) -> None:
    async with deployment.agent("h1") as h1:
        bridge = await deployment.bridge()
        vm1 = await deployment.bridge_port(bridge, h1.id, "tap1")
        vm2 = await deployment.bridge_port(bridge, h1.id, "tap2")
        await deployment.settled(h1)
        frame = udp(VM1, VM2, "10.0.0.1", "10.0.0.2")
        h1.datapath.receive(vm1, frame)
        await eventually(lambda: h1.at(vm2))
        await eventually(lambda: not h1.agent.decisions.programs.table.pending)
        before = h1.agent.decisions.counters.upcalls
        h1.datapath.receive(vm1, frame)
        assert len(h1.at(vm2)) == 2
        assert h1.agent.decisions.counters.upcalls == before


async def test_router_resolves_the_next_hop_at_another_host(deployment: Deployment) -> None:
    async with (
        deployment.agent("h1", "10.9.0.1") as h1,
        deployment.agent("h2", "10.9.0.2") as h2,
    ):
        router = await deployment.router()
        left = await deployment.router_port(router, ROUTER_1, "10.0.1.1/24", h1.id, "tap1")
        right = await deployment.router_port(router, ROUTER_2, "10.0.2.1/24", h2.id, "tap2")
        await deployment.settled(h1, h2)

        frame = udp(VM1, ROUTER_1, "10.0.1.5", "10.0.2.5")
        h1.datapath.receive(left, frame)
        await eventually(lambda: h2.at(right))
        question = h2.take(right)[0]
        wanted = arp_request(
            parse_mac(ROUTER_2), parse_ip("10.0.2.1").value, parse_ip("10.0.2.5").value
        )
        assert question == wanted

        answer = arp_reply(
            parse_mac(VM2),
            parse_ip("10.0.2.5").value,
            parse_mac(ROUTER_2),
            parse_ip("10.0.2.1").value,
        )
        h2.datapath.receive(right, answer)
        await eventually(lambda: h2.at(right))
        assert h2.take(right) == [udp(ROUTER_2, VM2, "10.0.1.5", "10.0.2.5", ttl=63)]
        assert not h1.agent.decisions.parking


async def test_router_resolves_an_ipv6_next_hop_at_another_host(deployment: Deployment) -> None:
    async with (
        deployment.agent("h1", "10.9.0.1") as h1,
        deployment.agent("h2", "10.9.0.2") as h2,
    ):
        router = await deployment.router()
        left = await deployment.router_port(router, ROUTER_1, "2001:db8:1::1/64", h1.id, "tap1")
        right = await deployment.router_port(router, ROUTER_2, "2001:db8:2::1/64", h2.id, "tap2")
        await deployment.settled(h1, h2)
        await eventually(lambda: h1.has_route(router, "2001:db8:2::5"))

        h1.datapath.receive(left, udp(VM1, ROUTER_1, "2001:db8:1::5", "2001:db8:2::5"))
        await eventually(lambda: h2.at(right))
        question = parse_frame(h2.take(right)[0])
        assert question.nd_target == parse_ip("2001:db8:2::5").value

        h2.datapath.receive(right, neighbour_reply(question, parse_mac(VM2)))
        await eventually(lambda: h2.at(right))
        assert h2.take(right) == [udp(ROUTER_2, VM2, "2001:db8:1::5", "2001:db8:2::5", ttl=63)]


async def test_unanswered_next_hop_is_a_named_drop(deployment: Deployment) -> None:
    async with deployment.agent("h1") as h1:
        router = await deployment.router()
        left = await deployment.router_port(router, ROUTER_1, "10.0.1.1/24", h1.id, "tap1")
        await deployment.router_port(router, ROUTER_2, "10.0.2.1/24", h1.id, "tap2")
        await deployment.settled(h1)
        h1.datapath.receive(left, udp(VM1, ROUTER_1, "10.0.1.5", "10.0.2.5"))
        reason = DropReason.NEIGHBOUR_UNRESOLVED
        await eventually(lambda: h1.datapath.drops().get((left, reason)) == 1)


async def test_path_through_devices_beyond_the_first_is_loaded_on_demand(
    deployment: Deployment,
) -> None:
    async with (
        deployment.agent("h1", "10.9.0.1") as h1,
        deployment.agent("h2", "10.9.0.2") as h2,
    ):
        near, far = await deployment.bridge(), await deployment.bridge()
        first, second = await deployment.router(), await deployment.router()
        vm1 = await deployment.bridge_port(near, h1.id, "tap1")
        vm2 = await deployment.bridge_port(far, h2.id, "tap2")
        first_near = await deployment.router_port(first, mac(0x11), "10.0.1.1/24")
        first_far = await deployment.router_port(first, mac(0x12), "10.0.9.1/30")
        second_near = await deployment.router_port(second, mac(0x21), "10.0.9.2/30")
        second_far = await deployment.router_port(second, mac(0x22), "10.0.2.1/24")
        await deployment.link(first_near, await deployment.bridge_port(near))
        await deployment.link(second_far, await deployment.bridge_port(far))
        await deployment.link(first_far, second_near)
        await deployment.route(first, "10.0.2.0/24", first_far, "10.0.9.2")
        await deployment.settled(h1, h2)
        await eventually(lambda: h1.has_route(first, "10.0.2.5"))

        h1.datapath.receive(vm1, udp(VM1, mac(0x11), "10.0.1.5", "10.0.2.5"))
        await eventually(lambda: h2.at(vm2))
        assert parse_frame(h2.take(vm2)[0]).arp is not None
        h2.datapath.receive(
            vm2,
            arp_reply(
                parse_mac(VM2),
                parse_ip("10.0.2.5").value,
                parse_mac(mac(0x22)),
                parse_ip("10.0.2.1").value,
            ),
        )
        await eventually(lambda: h2.at(vm2))
        assert h2.take(vm2) == [udp(mac(0x22), VM2, "10.0.1.5", "10.0.2.5", ttl=62)]


async def test_router_answers_ping_and_arp_for_its_own_address(deployment: Deployment) -> None:
    async with deployment.agent("h1") as h1:
        router = await deployment.router()
        left = await deployment.router_port(router, ROUTER_1, "10.0.1.1/24", h1.id, "tap1")
        await deployment.settled(h1)
        h1.datapath.receive(
            left,
            arp_request(parse_mac(VM1), parse_ip("10.0.1.5").value, parse_ip("10.0.1.1").value),
        )
        await eventually(lambda: h1.at(left))
        reply = parse_frame(h1.take(left)[0]).arp
        assert reply is not None
        assert reply.sender_mac == parse_mac(ROUTER_1)


async def test_new_deny_rule_stops_a_running_flow(deployment: Deployment) -> None:
    async with deployment.agent("h1") as h1:
        bridge = await deployment.bridge()
        vm1 = await deployment.bridge_port(bridge, h1.id, "tap1")
        vm2 = await deployment.bridge_port(bridge, h1.id, "tap2")
        await deployment.settled(h1)
        frame = udp(VM1, VM2, "10.0.0.1", "10.0.0.2")
        h1.datapath.receive(vm1, frame)
        await eventually(lambda: h1.take(vm2))

        chain_id = await deployment.deny_all()
        await deployment.change(Bridge, bridge, inbound_filter_id=chain_id)
        await eventually(
            lambda: h1.agent.decisions.view.bridges[bridge].inbound_filter_id == chain_id
        )
        await eventually(lambda: not h1.agent.decisions.programs.table.pending)
        h1.take(vm2)
        h1.datapath.receive(vm1, frame)
        await eventually(lambda: h1.datapath.drops().get((vm1, DropReason.FILTERED)))
        assert h1.at(vm2) == []


async def test_port_that_moves_to_another_host_is_followed(deployment: Deployment) -> None:
    async with (
        deployment.agent("h1", "10.9.0.1") as h1,
        deployment.agent("h2", "10.9.0.2") as h2,
        deployment.agent("h3", "10.9.0.3") as h3,
    ):
        bridge = await deployment.bridge()
        vm1 = await deployment.bridge_port(bridge, h1.id, "tap1")
        vm2 = await deployment.bridge_port(bridge, h2.id, "tap2")
        await deployment.bridge_port(bridge, h3.id, "tap3")
        await deployment.settled(h1, h2, h3)
        frame = udp(VM1, VM2, "10.0.0.1", "10.0.0.2")
        h2.datapath.receive(vm2, udp(VM2, VM1, "10.0.0.2", "10.0.0.1"))
        await eventually(lambda: h1.agent.soft_state.mac_port(bridge, 0, parse_mac(VM2)) == vm2)
        h1.datapath.receive(vm1, frame)
        await eventually(lambda: h2.take(vm2))

        await deployment.change(Port, vm2, host_id=h3.id)
        await eventually(
            lambda: getattr(h1.agent.decisions.view.locations.get(vm2), "host_id", None) == h3.id
        )
        await eventually(lambda: not h1.agent.decisions.programs.table.pending)
        # The port opens at the third host once that host sees its location too. Its MAC went with
        # the old place: the frame is flooded, so it comes under the key of the host's flood group.
        await eventually(lambda: _keys_of(vm2, h3) == 2)
        await eventually(lambda: vm2 not in h2.datapath.attached())
        h1.datapath.receive(vm1, frame)
        await eventually(lambda: h3.at(vm2))
        assert h3.take(vm2) == [frame]
        assert not h2.at(vm2)


def _keys_of(port_id: PortId, running: RunningAgent) -> int:
    """Return under how many tunnel keys a host delivers to a port."""
    return sum(port_id in ports for ports in running.datapath.deliveries().values())


async def test_unbound_port_is_detached_and_its_location_withdrawn(deployment: Deployment) -> None:
    async with deployment.agent("h1") as h1:
        bridge = await deployment.bridge()
        vm1 = await deployment.bridge_port(bridge, h1.id, "tap1")
        await deployment.settled(h1)
        assert h1.datapath.attached() == {vm1: "tap1"}
        await deployment.change(Port, vm1, host_id=None, interface_name=None)
        await eventually(lambda: not h1.datapath.attached())
        await eventually(lambda: vm1 not in h1.agent.binder.ports)
        await eventually(lambda: not h1.datapath.deliveries())


async def test_malformed_frame_is_dropped_by_name(deployment: Deployment) -> None:
    async with deployment.agent("h1") as h1:
        bridge = await deployment.bridge()
        vm1 = await deployment.bridge_port(bridge, h1.id, "tap1")
        await deployment.settled(h1)
        h1.datapath.receive(vm1, bytes.fromhex("ffffffffffff020000000001080045"))
        await eventually(lambda: h1.datapath.drops().get((vm1, DropReason.MALFORMED)) == 1)
