"""Tunnel zones that change, tunnel keys that last, and hosts that come and go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import pytest

from midonet.demo.checks import ping
from midonet.demo.lab import Lab, LabHost, VirtualMachine
from midonet.demo.steady_ping import steady_ping
from midonet.demo.topology import Tenant
from midonet.model.coordination import TunnelKeyUse, tunnel_key_use_id
from midonet.model.hosts import TunnelKind
from midonet.model.ids import HostId
from midonet.model.schema_hosts import BindingResource, HostResource, TunnelZoneHostResource
from midonet.model.schema_ports import PortResource
from midonet.nsdb.url import open_store
from tests.netns.labs import (
    Network,
    agent_state,
    answers,
    drops,
    lab,
    require_pings,
    show,
    silent,
    until,
    wait_dropped,
    wait_ready,
)

pytestmark = pytest.mark.timeout(400)

SESSION_TIMEOUT_S = 3
TARGET, TARGET6 = "10.0.1.12", "fd00:0:1::12"


@dataclass(slots=True)
class Pair:
    """vm1 on h1 and vm2 on h2, on one bridge."""

    lab: Lab
    network: Network
    tenant: Tenant

    @property
    def vm1(self) -> VirtualMachine:
        return self.lab.machines["vm1"]

    def host(self, number: int) -> HostResource:
        return self.network.api.get(HostResource, self.lab.hosts[number].host_id)

    def membership(self, number: int) -> TunnelZoneHostResource:
        (found,) = [
            each
            for each in self.network.api.list_all(
                TunnelZoneHostResource, parent=self.network.zone()
            )
            if each.host_id == UUID(self.lab.hosts[number].host_id)
        ]
        return found

    def new_port(self, port_id: UUID | None = None) -> PortResource:
        """Make a port of the bridge that is bound nowhere."""
        bridge = self.tenant.segments[1].bridge
        return self.network.api.create(PortResource(id=port_id, kind="Bridge"), parent=bridge)

    def bind(self, port: PortResource, machine: VirtualMachine) -> BindingResource:
        """Bind a port to a machine's interface at h2."""
        binding = BindingResource(port_id=port.id, interface_name=machine.tap)
        return self.network.api.create(binding, parent=self.host(1))

    def join(self, number: int, address: str) -> None:
        member = TunnelZoneHostResource(
            host_id=UUID(self.lab.hosts[number].host_id), address=address
        )
        self.network.api.create(member, parent=self.network.zone())


@pytest.fixture(scope="module")
def built(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    environment = {"MIDONET_AGENT_SESSION_TIMEOUT_S": str(SESSION_TIMEOUT_S)}
    directory = tmp_path_factory.mktemp("state")
    with lab(f"{prefix}s", directory, environment=environment) as made:
        network = Network(made)
        network.use_zone(TunnelKind.VXLAN)
        tenant = network.make_tenant("red")
        for number, host in enumerate(made.hosts, 1):
            network.plug(f"vm{number}", host, tenant.segments[1], 10 + number)
        network.wait_active()
        yield Pair(made, network, tenant)
        network.close()


@pytest.fixture
def pair(built: Pair) -> Pair:
    for target in (TARGET, TARGET6):
        answers(built.vm1, target)
    return built


def test_host_that_leaves_its_zone_is_cut_off_and_comes_back(pair: Pair) -> None:
    member = pair.membership(1)
    pair.network.api.delete(member)
    silent_s = silent(pair.vm1, TARGET)
    before = drops(pair.lab.hosts[0], "NO_TUNNEL")
    assert ping(pair.vm1, TARGET, count=3, wait_s=0.5).received == 0
    wait_dropped(pair.lab.hosts[0], "NO_TUNNEL", before)
    assert agent_state(pair.lab.hosts[0])["peers"] == []
    pair.join(1, member.address)
    back_s = answers(pair.vm1, TARGET)
    show(f"silent after {silent_s * 1000:.0f} ms, answered {back_s * 1000:.0f} ms after return")
    require_pings(pair.vm1, TARGET6)


def test_host_that_changes_its_address_is_followed(pair: Pair) -> None:
    member, host = pair.membership(1), pair.lab.hosts[1]
    other = host.address[:-1] + "9"
    host.namespace.ip(f"address add {other}/24 dev eth0")
    pair.network.api.delete(member)
    pair.join(1, other)
    until(lambda: agent_state(pair.lab.hosts[0])["peers"] == [other], "the new address")
    answers(pair.vm1, TARGET)
    require_pings(pair.vm1, TARGET)
    pair.network.api.delete(pair.membership(1))
    pair.join(1, member.address)
    answers(pair.vm1, TARGET)
    host.namespace.ip(f"address del {other}/24 dev eth0")


def test_traffic_goes_on_from_one_zone_to_another(pair: Pair) -> None:
    """Members of both for a while: pings go on when the first zone goes.

    The two hosts learn of it one after the other, and in between, however long that is, they
    may not understand each other: once.
    """
    first = pair.network.zone()
    pair.network.make_tunnel_zone(TunnelKind.GRE)
    with steady_ping(pair.vm1, TARGET, 0.02) as pinging:
        pinging.wait_answers(10)
        pair.network.api.delete(first)
        pinging.wait_answers(20)
        sent, lost = pinging.stop()
    show(f"zone replaced: {len(lost)} of {sent} pings lost")
    pair.network.use_zone(TunnelKind.VXLAN)
    answers(pair.vm1, TARGET)
    assert lost == list(range(lost[0], lost[0] + len(lost))) if lost else True


def keys(host: LabHost) -> dict[str, int]:
    """Return the tunnel keys of an agent's ports by port."""
    return {port["id"]: port["tunnelKey"] for port in agent_state(host)["ports"]}


def test_tunnel_keys_last_over_restarts(pair: Pair) -> None:
    for host in pair.lab.hosts:
        before = keys(host)
        assert before
        host.agent.kill()
        host.agent.start()
        wait_ready(host)
        assert keys(host) == before
        assert host.agent.stop() == 0
        host.agent.start()
        wait_ready(host)
        assert keys(host) == before


def test_key_that_was_given_up_rests(pair: Pair) -> None:
    """The record stays, in quarantine; a later port of the host gets another key."""
    host = pair.lab.hosts[1]
    machine = pair.lab.plug(
        "vm9", host, mac="02:00:00:00:02:09", addresses=["10.0.1.9/24"], gateways=[]
    )
    port = pair.new_port()
    binding = pair.bind(port, machine)
    answers(pair.vm1, "10.0.1.9")
    old = keys(host)[str(port.id)]
    assert released_at_s(pair, host, old) is None
    begun_s = int(time.time())
    pair.network.api.delete(binding)
    until(lambda: released_at_s(pair, host, old), "the key given up")
    released_s = released_at_s(pair, host, old)
    assert released_s is not None
    assert begun_s <= released_s <= time.time()
    # A port whose first choice, which follows from its id, is the same key.
    assert port.id is not None
    halves = port.id.int >> 64, port.id.int & (1 << 64) - 1
    other = pair.new_port(UUID(int=halves[1] << 64 | halves[0]))
    pair.bind(other, machine)
    answers(pair.vm1, "10.0.1.9")
    assert keys(host)[str(other.id)] != old
    for each in (port, other):
        pair.network.api.delete(each)
    pair.lab.unplug("vm9")


def released_at_s(pair: Pair, host: LabHost, key: int) -> int | None:
    """Return when a key of a host was given up, as the store has it."""

    async def look() -> int | None:
        store = open_store(pair.lab.nsdb_url)
        await store.open()
        try:
            record_id = tunnel_key_use_id(HostId(UUID(host.host_id)), key)
            found = await store.get(TunnelKeyUse, record_id)
        finally:
            await store.close()
        assert found is not None
        return found.value.released_at_s

    return asyncio.run(look())


def test_dead_agent_is_seen_and_its_host_goes_on_forwarding(pair: Pair) -> None:
    host = pair.lab.hosts[1]
    assert pair.host(1).alive
    with steady_ping(pair.vm1, TARGET) as pinging, steady_ping(pair.vm1, TARGET6) as pinging6:
        host.agent.kill()
        dead_s = until(lambda: not pair.host(1).alive, "the host not alive")
        # What is known goes on while nobody speaks for the host.
        pinging.wait_answers(20)
        pinging6.wait_answers(20)
        host.agent.start()
        alive_s = until(lambda: pair.host(1).alive, "the host alive")
        wait_ready(host)
        results = pinging.stop(), pinging6.stop()
    show(f"not alive {dead_s:.1f} s after the kill, alive {alive_s:.1f} s after the start")
    assert [lost for _, lost in results] == [[], []]


def test_stopped_agent_of_a_persistent_datapath_stays_alive_until_its_session_ends(
    pair: Pair,
) -> None:
    """A restart within the session is invisible to others."""
    host, variable = pair.lab.hosts[1], "MIDONET_AGENT_SESSION_TIMEOUT_S"
    # A session that lasts longer than any machine needs for what follows.
    host.agent.environment[variable] = "600"
    assert host.agent.stop() == 0
    host.agent.start()
    wait_ready(host)
    assert host.agent.stop() == 0
    assert pair.host(1).alive
    host.agent.environment[variable] = str(SESSION_TIMEOUT_S)
    host.agent.start()
    wait_ready(host)
    assert pair.host(1).alive


def test_unbound_port_leaves_no_delivery_behind(pair: Pair) -> None:
    """What still comes for its key is dropped with a name."""
    host = pair.lab.hosts[1]
    machine = pair.lab.plug(
        "vm8", host, mac="02:00:00:00:02:08", addresses=["10.0.1.8/24"], gateways=[]
    )
    port = pair.new_port()
    binding = pair.bind(port, machine)
    answers(pair.vm1, "10.0.1.8")
    before = drops(host, "UNKNOWN_TUNNEL_KEY", None)
    # The agent of the sender does not hear of it, so its programs go on sending.
    pair.lab.hosts[0].agent.kill()
    with steady_ping(pair.vm1, "10.0.1.8"):
        pair.network.api.delete(binding)
        until(lambda: drops(host, "UNKNOWN_TUNNEL_KEY", None) > before, "drops for the old key")
    pair.lab.hosts[0].agent.start()
    wait_ready(pair.lab.hosts[0])
    pair.network.api.delete(port)
    pair.lab.unplug("vm8")
