"""`midonet trace` at a running agent: what it says, and that nothing comes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from midonet.agent.operator.control_socket import Request
from midonet.agent.soft_state.lessons import LearnNeighbour
from midonet.errors import NotFoundError, UserError
from midonet.model.chains import Rule
from midonet.model.devices import Bridge, Router
from midonet.model.ids import PortId, RouterId
from midonet.packets.addresses import parse_ip, parse_mac
from tests.multiagent.hosts import Deployment, RunningAgent, eventually, mac, udp

VM_1, VM_2, GATEWAY_1, GATEWAY_2 = mac(1), mac(2), mac(0x101), mac(0x102)


@dataclass
class Site:
    """One VM at each of two hosts, each on a bridge of its own, a router between them."""

    deployment: Deployment
    here: RunningAgent
    there: RunningAgent
    near: PortId
    far: PortId
    router: RouterId

    async def trace(self, frame: bytes, *, at: RunningAgent | None = None, **more: Any) -> Any:
        body = {"portId": str(self.near), "frame": frame.hex(), **more}
        request = Request("POST", ("trace",), {}, msgspec.json.encode(body))
        return await (at or self.here).agent.control.respond(request)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    deployment = Deployment(tmp_path)
    await deployment.open()
    async with (
        deployment.agent("alpha", "192.0.2.1") as here,
        deployment.agent("beta", "192.0.2.2") as there,
    ):
        router = await deployment.router()
        await deployment.change(Router, router, name="tenant")
        ports = []
        for number, (running, gateway) in enumerate(((here, GATEWAY_1), (there, GATEWAY_2)), 1):
            bridge = await deployment.bridge()
            await deployment.change(Bridge, bridge, name=f"net{number}")
            ports.append(await deployment.bridge_port(bridge, running.id, f"tap{number}"))
            inner = await deployment.bridge_port(bridge)
            outer = await deployment.router_port(router, gateway, f"10.0.{number}.1/24")
            await deployment.link(inner, outer)
        made = Site(deployment, here, there, ports[0], ports[1], router)
        await deployment.settled(here, there)
        await eventually(lambda: here.has_route(router, "10.0.2.5"))
        yield made


def to(address: str) -> bytes:
    return udp(VM_1, GATEWAY_1, "10.0.1.5", address)


def events(answer: Any, kind: str) -> list[Any]:
    return [step for step in answer["steps"] if step["event"] == kind]


async def test_a_packet_is_followed_to_the_host_where_it_leaves(site: Site) -> None:
    soft_state = site.here.agent.soft_state
    neighbour = await site.trace(to("10.0.2.5"))
    assert (neighbour["verdict"], neighbour["for"]) == ("wait", "neighbour")
    address = parse_ip("10.0.2.5")
    site.there.datapath.receive(site.far, udp(VM_2, GATEWAY_2, "10.0.2.5", "10.0.1.5"))
    soft_state.learn_neighbour(LearnNeighbour(site.router, address, parse_mac(VM_2)))
    bridge_id = site.there.agent.decisions.view.ports[site.far].bridge_id
    assert bridge_id is not None
    await eventually(lambda: soft_state.mac_port(bridge_id, 0, parse_mac(VM_2)) == site.far)
    answer = await site.trace(to("10.0.2.5"))
    assert answer["verdict"] == "forward"
    assert {output["host"] for output in answer["outputs"]} == {"beta"}
    assert {output["interface"] for output in answer["outputs"]} == {"tap2"}
    assert any("tenant" in step["text"] for step in events(answer, "enteredPort"))
    assert [step["after"] - step["before"] for step in events(answer, "rewrote")][-1:] == [1]


async def test_the_rule_that_drops_is_named(site: Site) -> None:
    chain_id = await site.deployment.deny_all()
    await site.deployment.change(Router, site.router, inbound_filter_id=chain_id)
    view = site.here.agent.decisions
    await eventually(lambda: view.view.routers[site.router].inbound_filter_id == chain_id)
    [rule_id] = await site.deployment.store.referrers(Rule, "chain_id", chain_id)
    answer = await site.trace(to("10.0.2.5"))
    assert (answer["verdict"], answer["reason"]) == ("drop", "FILTERED")
    (dropped,) = events(answer, "wasDropped")
    assert dropped["objectId"] == str(rule_id)
    (begun,) = events(answer, "beganFilter")
    assert (begun["hook"], begun["chainId"]) == ("ROUTER_INBOUND", str(chain_id))
    assert "deny" in begun["text"]


async def test_nothing_comes_of_it(site: Site) -> None:
    decisions = site.here.agent.decisions
    before = len(decisions.programs.table)
    for frame in (
        to("10.0.2.5"),
        to("10.0.1.1"),
        to("10.9.9.9"),
        udp(mac(7), mac(8), "::1", "::2"),
    ):
        await site.trace(frame, allRules=True)
    assert len(decisions.programs.table) == before
    assert not site.here.left
    assert not site.there.left
    assert not len(decisions.queue)
    assert not site.here.datapath.drops()
    bridge_id = decisions.view.ports[site.near].bridge_id
    assert bridge_id is not None
    assert site.here.agent.soft_state.mac_port(bridge_id, 0, parse_mac(VM_1)) is None


async def test_what_lies_behind_is_loaded(site: Site) -> None:
    deployment = site.deployment
    remote = await deployment.router()
    near = await deployment.router_port(site.router, mac(0x201), "10.1.0.1/30")
    far = await deployment.router_port(remote, mac(0x202), "10.1.0.2/30")
    await deployment.link(near, far)
    await deployment.route(site.router, "10.7.0.0/16", near, "10.1.0.2")
    await eventually(lambda: site.here.has_route(site.router, "10.7.0.1"))
    assert remote not in site.here.agent.decisions.view.routers
    answer = await site.trace(to("10.7.0.1"))
    assert events(answer, "waits")
    assert (answer["verdict"], answer["reason"]) == ("drop", "NO_ROUTE")
    assert events(answer, "wasDropped")[0]["objectId"] == str(remote)


async def stateful(site: Site) -> None:
    """Let the near port's router ask for connections, and the far host be known."""
    soft_state = site.here.agent.soft_state
    for address, mac_text, port_id, host in (
        ("10.0.2.5", VM_2, site.far, site.there),
        ("10.0.1.5", VM_1, site.near, site.here),
    ):
        ends = (address, "10.0.1.5" if address == "10.0.2.5" else "10.0.2.5")
        gateway = GATEWAY_2 if port_id == site.far else GATEWAY_1
        host.datapath.receive(port_id, udp(mac_text, gateway, *ends))
        soft_state.learn_neighbour(
            LearnNeighbour(site.router, parse_ip(address), parse_mac(mac_text))
        )
        bridge_id = host.agent.decisions.view.ports[port_id].bridge_id
        assert bridge_id is not None
        await eventually(
            lambda bridge_id=bridge_id, mac_text=mac_text, port_id=port_id: (  # type: ignore[misc]
                soft_state.mac_port(bridge_id, 0, parse_mac(mac_text)) == port_id
            )
        )
    chain_id = await site.deployment.answers_only()
    await site.deployment.change(Router, site.router, inbound_filter_id=chain_id)
    view = site.here.agent.decisions
    await eventually(lambda: view.view.routers[site.router].inbound_filter_id == chain_id)


async def test_the_answer_is_followed_as_if_the_connection_had_begun(site: Site) -> None:
    await stateful(site)
    answer = await site.trace(to("10.0.2.5"), reply=True)
    assert answer["verdict"] == "forward"
    assert events(answer, "beganConnection")
    reply = answer["reply"]
    assert reply["portId"] == str(site.far)
    assert reply["verdict"] == "forward"
    (found,) = events(reply, "foundConnection")
    assert (found["sight"]["standing"], found["sight"]["direction"]) == ("KNOWN", "RETURN")
    assert {output["portId"] for output in reply["outputs"]} == {str(site.near)}
    assert not len(site.here.agent.decisions.connections.table)


async def test_an_answer_to_what_does_not_leave_is_none(site: Site) -> None:
    answer = await site.trace(udp(VM_1, GATEWAY_1, "10.0.1.5", "172.16.0.1"), reply=True)
    assert answer["verdict"] == "drop"
    assert answer["reply"] is None


async def test_the_state_is_shown_where_no_rule_asks(site: Site) -> None:
    without = await site.trace(to("172.16.0.1"))
    assert not events(without, "foundConnection")
    answer = await site.trace(to("172.16.0.1"), state=True)
    (found,) = events(answer, "foundConnection")
    assert found["sight"]["standing"] == "NEW"
    assert found["key"]["zone"] == str(site.near)


async def test_ports_and_packets_that_make_no_sense_are_refused(site: Site) -> None:
    with pytest.raises(UserError, match="bound at host alpha"):
        await site.trace(to("10.0.2.5"), at=site.there)
    with pytest.raises(UserError, match="malformed"):
        await site.trace(b"\x00" * 5)
    with pytest.raises(NotFoundError):
        await site.trace(to("10.0.2.5"), portId="00000000-0000-0000-0000-000000000001")
    with pytest.raises(UserError):
        await site.trace(to("10.0.2.5"), portId="no id")
