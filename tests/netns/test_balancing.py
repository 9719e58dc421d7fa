"""A balanced VIP on two hosts, with real sockets: who answers, and what goes on when it changes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from midonet.demo.lab import Lab, VirtualMachine
from midonet.demo.topology import Tenant
from midonet.model.coordination import CLUSTER_SETTINGS_ID, ClusterSettings
from midonet.model.hosts import TunnelKind
from midonet.model.load_balancer import BalancedProtocol, SessionPersistence
from midonet.model.schema_devices import RouterResource
from midonet.model.schema_load_balancers import (
    LoadBalancerResource,
    PoolMemberResource,
    PoolResource,
    VipResource,
)
from midonet.nsdb.sqlite import SqliteStore
from midonet.nsdb.store import Create
from tests.netns.labs import Network, answers, drops, lab, until
from tests.netns.member_servers import SERVICE_PORT, Client, asked_once, serving

pytestmark = pytest.mark.timeout(600)

SEED = 0x5EED_0000_0000_0001
"""Of the flow hash: with it and the ids below, which member a connection goes to is no chance."""

CONNECTIONS = 2000
FIRST_PORT = 20_000
WEIGHTS = {"m1": 30, "m2": 10, "m3": 60}
IDS = {name: UUID(int=0xBA1A_0000 + number) for number, name in enumerate(WEIGHTS)}
OUTSIDE = ("192.0.2.80", "2001:db8::80")
INSIDE = ("10.0.2.100", "fd00:0:2::100")
VERSIONS = pytest.mark.parametrize("version", [0, 1], ids=["ipv4", "ipv6"])
"""m1 runs on the client's host, m2 and m3 on the other."""


@dataclass
class Balanced:
    """A built lab: `client` on h1 and `inner` (on the members' subnet) on h1."""

    lab: Lab
    network: Network
    tenant: Tenant
    balancer: LoadBalancerResource
    pools: dict[tuple[int, str], PoolResource] = field(default_factory=dict)
    members: dict[tuple[int, str, str], PoolMemberResource] = field(default_factory=dict)

    def vm(self, name: str) -> VirtualMachine:
        """Return a machine by name."""
        return self.lab.machines[name]

    def address(self, name: str, version: int) -> str:
        """Return a member's address."""
        number = 10 + int(name[1:])
        return (f"10.0.2.{number}", f"fd00:0:2::{number}")[version]

    def pool(self, version: int, protocol: str = "TCP", *, name: str = "") -> PoolResource:
        """Return the pool of an IP version and protocol, without members at first."""
        key = (version, protocol + name)
        if key not in self.pools:
            resource = PoolResource(protocol=BalancedProtocol(protocol))
            self.pools[key] = self.network.api.create(resource, parent=self.balancer)
        return self.pools[key]

    def vip(
        self, pool: PoolResource, address: str, port: int, *, sticky: bool = False
    ) -> tuple[str, int]:
        """Make a VIP; return its address and port."""
        persistence = SessionPersistence.SOURCE_IP if sticky else None
        self.network.api.create(
            VipResource(address=address, port=port, session_persistence=persistence), parent=pool
        )
        return address, port

    def add(
        self, pool: PoolResource, version: int, name: str, weight: int = 1
    ) -> PoolMemberResource:
        """Put a member into a pool."""
        resource = PoolMemberResource(
            address=self.address(name, version), port=SERVICE_PORT, weight=weight
        )
        return self.network.api.create(resource, parent=pool)

    def wait_served(
        self, vip: tuple[str, int], *, by: str = "client", is_udp: bool = False
    ) -> None:
        """Wait until a new connection to a VIP is answered."""

        def is_answered() -> bool:
            try:
                return bool(asked_once(self.vm(by), vip, is_udp=is_udp))
            except OSError:
                return False

        until(is_answered, f"an answer from {vip}")


def _fix_hash_seed(made: Lab) -> None:
    async def write() -> None:
        made.options.directory.mkdir(parents=True, exist_ok=True)
        store = SqliteStore(made.options.directory / "nsdb.sqlite")
        await store.open()
        await store.transact([Create(ClusterSettings(id=CLUSTER_SETTINGS_ID, hash_seed=SEED))])
        await store.close()

    asyncio.run(write())


@contextmanager
def balanced_lab(prefix: str, directory: Path) -> Iterator[Balanced]:
    """Build the lab; return when every port is active."""
    with lab(prefix, directory, hosts=2, prepare=_fix_hash_seed) as made:
        network = Network(made)
        network.use_zone(TunnelKind.VXLAN)
        tenant = network.make_tenant("red")
        first, second = made.hosts
        for name, host, number, segment in (
            ("client", first, 31, 1),
            ("inner", first, 41, 2),
            ("m1", first, 11, 2),
            ("m2", second, 12, 2),
            ("m3", second, 13, 2),
            ("m4", second, 14, 2),
        ):
            network.plug(name, host, tenant.segments[segment], number)
        network.wait_active()
        balancer = network.api.create(LoadBalancerResource())
        router = network.api.get(RouterResource, str(tenant.router.id))
        network.api.update(msgspec.structs.replace(router, load_balancer_id=balancer.id))
        try:
            built = Balanced(made, network, tenant, balancer)
            with serving(built.vm(name) for name in ("m1", "m2", "m3", "m4")):
                for name in ("m1", "m2", "m3"):
                    answers(built.vm("client"), built.address(name, 0))
                yield built
        finally:
            network.close()


@pytest.fixture(scope="module")
def balanced(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balanced]:
    with balanced_lab(f"{prefix}b", tmp_path_factory.mktemp("balanced")) as made:
        yield made


def test_connections_are_shared_out_by_weight(balanced: Balanced) -> None:
    pool = balanced.pool(0, name="weighted")
    for name, weight in WEIGHTS.items():
        resource = PoolMemberResource(
            id=IDS[name], address=balanced.address(name, 0), port=SERVICE_PORT, weight=weight
        )
        balanced.network.api.create(resource, parent=pool)
    vip = balanced.vip(pool, OUTSIDE[0], 80)
    balanced.wait_served(vip)
    client = balanced.vm("client")
    found = Counter(asked_once(client, vip, FIRST_PORT + number) for number in range(CONNECTIONS))
    for name, weight in WEIGHTS.items():
        share = 100 * found[name] / CONNECTIONS
        assert abs(share - weight) <= 3, found


@VERSIONS
def test_a_client_stays_with_one_member(balanced: Balanced, version: int) -> None:
    pool = balanced.pool(version, name="sticky")
    for name in WEIGHTS:
        balanced.add(pool, version, name)
    sticky = balanced.vip(pool, OUTSIDE[version], 8001, sticky=True)
    free = balanced.vip(pool, OUTSIDE[version], 8002)
    for vip in (sticky, free):
        balanced.wait_served(vip)
    client = balanced.vm("client")
    assert len({asked_once(client, sticky) for _ in range(40)}) == 1
    assert len({asked_once(client, free) for _ in range(40)}) == 3


@VERSIONS
def test_running_connections_stay_when_members_come_and_go(
    balanced: Balanced, version: int
) -> None:
    pool = balanced.pool(version, name="changing")
    members = {name: balanced.add(pool, version, name) for name in WEIGHTS}
    vip = balanced.vip(pool, OUTSIDE[version], 8003)
    balanced.wait_served(vip)
    client = balanced.vm("client")
    with ExitStack() as stack:
        open_ = [stack.enter_context(Client(client, vip)) for _ in range(24)]
        begun = [one.ask() for one in open_]
        assert set(begun) == set(WEIGHTS)
        balanced.add(pool, version, "m4", weight=20)
        until(lambda: asked_once(client, vip) == "m4", "the new member to be chosen")
        assert [one.ask() for one in open_] == begun
        balanced.network.api.delete(members["m2"])
        ended = [one for one, name in zip(open_, begun, strict=True) if name == "m2"]
        until(lambda: all(map(_is_reset, ended)), "the connections to the member that is gone")
        kept = [(one, name) for one, name in zip(open_, begun, strict=True) if name != "m2"]
        assert [one.ask() for one, _ in kept] == [name for _, name in kept]
        down = balanced.network.api.get(PoolMemberResource, str(members["m3"].id))
        balanced.network.api.update(msgspec.structs.replace(down, admin_state_up=False))
        until(
            lambda: "m3" not in {asked_once(client, vip) for _ in range(20)},
            "the member that is down to be left out",
        )
        assert [one.ask() for one, _ in kept] == [name for _, name in kept]


def _is_reset(client: Client) -> bool:
    try:
        client.ask()
    except ConnectionResetError:
        return True
    except OSError:
        return False
    return False


@VERSIONS
def test_a_vip_on_the_members_subnet_serves_clients_there_and_outside(
    balanced: Balanced, version: int
) -> None:
    pool = balanced.pool(version, name="inside")
    for name in WEIGHTS:
        balanced.add(pool, version, name)
    vip = balanced.vip(pool, INSIDE[version], 8004)
    balanced.wait_served(vip, by="inner")
    for machine in ("inner", "client", "m1", "m2"):
        found = {asked_once(balanced.vm(machine), vip) for _ in range(20)}
        assert found == set(WEIGHTS), machine


@VERSIONS
def test_datagrams_are_balanced(balanced: Balanced, version: int) -> None:
    pool = balanced.pool(version, "UDP", name="datagrams")
    for name in WEIGHTS:
        balanced.add(pool, version, name)
    vip = balanced.vip(pool, OUTSIDE[version], 8005)
    balanced.wait_served(vip, is_udp=True)
    client = balanced.vm("client")
    with ExitStack() as stack:
        open_ = [stack.enter_context(Client(client, vip, is_udp=True)) for _ in range(24)]
        begun = [one.ask() for one in open_]
        assert set(begun) == set(WEIGHTS)
        assert [one.ask() for one in open_] == begun


def test_a_vip_without_members_refuses_by_name(balanced: Balanced) -> None:
    pool = balanced.pool(0, "UDP", name="empty")
    address, port = balanced.vip(pool, OUTSIDE[0], 8006)
    member = balanced.add(pool, 0, "m1")
    balanced.wait_served((address, port), is_udp=True)
    balanced.network.api.delete(member)
    host = balanced.lab.hosts[0]
    before = drops(host, "NO_POOL_MEMBER")

    def is_dropped() -> bool:
        with Client(balanced.vm("client"), (address, port), is_udp=True) as client:
            client.send()
        return drops(host, "NO_POOL_MEMBER") > before

    until(is_dropped, "a drop by name")
