"""A small store that answers watches in any order, and random edits of a topology in it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from uuid import UUID

import msgspec

from midonet.agent.topology.assembler import Step, TopologyAssembler
from midonet.model.chains import Chain, Condition, Rule, RuleAction
from midonet.model.devices import Bridge, NextHopKind, Port, Route, Router
from midonet.model.groups import IpAddressGroup, PortGroup
from midonet.model.hosts import (
    FloodGroup,
    HostState,
    PortLocation,
    TunnelKind,
    TunnelZone,
    TunnelZoneHost,
    flood_group_id,
    tunnel_zone_host_id,
)
from midonet.model.ids import (
    BridgeId,
    ChainId,
    HostId,
    IpAddressGroupId,
    MirrorId,
    ObjectId,
    PortGroupId,
    PortId,
    QosPolicyId,
    RouteId,
    RouterId,
    RuleId,
    TunnelZoneId,
)
from midonet.model.load_balancer import LoadBalancer, Pool, PoolMember, Vip
from midonet.model.mirrors import Mirror
from midonet.model.qos import QosDscpRule, QosPolicy
from midonet.model.references import REFERENCES, OnTargetDelete
from midonet.nsdb.store import (
    AllOf,
    Change,
    IdsChange,
    ObjectChange,
    ObjectKey,
    Referrers,
    StateEntry,
    StateTables,
    Table,
    TableChange,
    Versioned,
    WatchKey,
)
from tests.property.topology.balanced import BalancerEdits
from tests.property.topology.serving import DHCP_KINDS, DhcpEdits

HERE = HostId(UUID(int=0xA1))
HOSTS = [HERE, HERE, HostId(UUID(int=0xA2)), HostId(UUID(int=0xA3))]
MEMBERS = ("10.0.0.0/8", "10.0.1.0/24", "10.0.1.5/32", "10.0.2.5/32", "2001:db8::/64", "rubbish")
MTU = 1500
SEED = 7


class World:
    """The content of a store. Edits keep it consistent, as the store would."""

    def __init__(self) -> None:
        self.objects: dict[type[msgspec.Struct], dict[ObjectId, msgspec.Struct]] = {
            kind: {}
            for kind in (
                Bridge, Router, Port, Route, Chain, Rule,
                TunnelZone, TunnelZoneHost, PortLocation, FloodGroup, PortGroup, IpAddressGroup,
                LoadBalancer, Pool, PoolMember, Vip,
                Mirror, QosPolicy, QosDscpRule,
                LoadBalancer, Pool, PoolMember, Vip, *DHCP_KINDS,
            )
        }  # fmt: skip
        self.members: dict[str, set[str]] = {}
        self.health: dict[str, dict[str, str | None]] = {}
        self.live: dict[HostId, HostState] = {}

    def answer(self, key: WatchKey) -> Change:
        """Return the present state of a key."""
        match key:
            case ObjectKey(kind, object_id):
                value = self.objects.get(kind, {}).get(object_id)
                return ObjectChange(key, Versioned(value, 0) if value is not None else None)
            case Referrers(kind, field, target_id):
                return IdsChange(
                    key,
                    frozenset(
                        object_id
                        for object_id, value in self.objects[kind].items()
                        if getattr(value, field) == target_id
                    ),
                )
            case AllOf(kind):
                return IdsChange(key, frozenset(self.objects[kind]))
            case Table(table) if table in self.members:
                present = self.members[table]
                return TableChange(
                    key,
                    tuple(
                        (text, StateEntry(table, text, "", HERE, 0, 1, True))
                        if text in present
                        else (text, None)
                        for text in MEMBERS
                    ),
                )
            case Table(table) if table in self.health:
                return TableChange(
                    key,
                    tuple(
                        (text, value and StateEntry(table, text, value, HERE, 0, 1, False))
                        for text, value in self.health[table].items()
                    ),
                )
            case Table():
                return TableChange(
                    key,
                    tuple(
                        (str(host_id), self._entry(host_id) if host_id in self.live else None)
                        for host_id in sorted(set(HOSTS))
                    ),
                )

    def _entry(self, host_id: HostId) -> StateEntry:
        value = msgspec.json.encode(self.live[host_id]).decode()
        return StateEntry("host_state", str(host_id), value, host_id, 0, 1, False)

    def put(self, value: msgspec.Struct) -> None:
        self.objects[type(value)][value.id] = value  # type: ignore[attr-defined]

    def delete(self, kind: type[msgspec.Struct], object_id: ObjectId) -> None:
        """Delete an object and do to its referrers what the model says."""
        for reference in REFERENCES:
            if reference.target is kind and reference.on_target_delete is OnTargetDelete.REFUSE:
                sources = self.objects.get(reference.source, {}).values()
                if any(reference.held_by(source) == object_id for source in sources):
                    return
        if self.objects[kind].pop(object_id, None) is None:
            return
        for reference in REFERENCES:
            if reference.target is not kind or reference.source not in self.objects:
                continue
            for value in list(self.objects[reference.source].values()):
                held = reference.held_by(value)
                if isinstance(held, tuple) and object_id in held:
                    kept = tuple(one for one in held if one != object_id)
                    self.put(msgspec.structs.replace(value, **{reference.field: kept}))
                if held != object_id:
                    continue
                if reference.on_target_delete is OnTargetDelete.CASCADE:
                    self.delete(reference.source, value.id)  # type: ignore[attr-defined]
                else:
                    self.put(msgspec.structs.replace(value, **{reference.field: None}))

        if kind is IpAddressGroup:
            self.members[StateTables.ip_address_group(object_id)].clear()

    def every(self, kind: type[msgspec.Struct]) -> list:  # type: ignore[type-arg]
        return list(self.objects[kind].values())


class Watched:
    """An assembler that watches a world: answers come late, in any order, squashed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.assembler = TopologyAssembler(HERE, underlay_mtu_bytes=MTU, hash_seed=SEED)
        self.steps: list[Step] = []
        self._reported: dict[WatchKey, Change | None] = {}
        self._take(self.assembler.apply())

    def pending(self) -> list[WatchKey]:
        """Return the keys whose state differs from what was last reported."""
        return [key for key, last in self._reported.items() if self.world.answer(key) != last]

    def deliver(self, keys: list[WatchKey]) -> None:
        changes = []
        for key in keys:
            change = self.world.answer(key)
            self._reported[key] = change
            changes.append(change)
        self._take(self.assembler.apply(changes))

    def drain(self) -> None:
        """Deliver until nothing is pending, and settle."""
        while pending := self.pending():
            self.deliver(pending)
        self.settle()
        assert not self.pending()
        assert not self.assembler.is_holding

    def settle(self) -> None:
        self._take(self.assembler.settle())

    def request(self, object_ids: list[ObjectId]) -> None:
        self._take(self.assembler.request(object_ids))

    def collect(self, keep: set[ObjectId]) -> None:
        self._take(self.assembler.collect(keep))

    def _take(self, step: Step) -> None:
        for key in step.removed:
            del self._reported[key]
        for key in step.added:
            assert key not in self._reported
            self._reported[key] = None
        self.steps.append(step)


class Editor:
    """Random edits."""

    def __init__(self, world: World, random: Random) -> None:
        self.world = world
        self.random = random
        self._next = 0x1000
        self.balanced = BalancerEdits(self)
        self.serving = DhcpEdits(self)
        self.edits: list[Callable[[], None]] = [
            self.add_bridge, self.add_router, self.add_port, self.add_port, self.add_port,
            self.link, self.link, self.bind, self.bind, self.unbind, self.unlink, self.activate,
            self.move, self.add_chain, self.add_rule, self.add_rule, self.set_filter,
            self.set_filter, self.add_bridge, self.add_router, self.add_route, self.add_route,
            self.replace_route, self.delete, self.delete, self.toggle,
            self.host_liveness, self.zone, self.zone_member,
            self.flood_group, self.set_address, self.spoil, self.add_group, self.join_group,
            self.join_group, self.member, self.member, self.member,
            *self.balanced.edits,
            self.add_mirror, self.set_mirrors,
            self.add_policy, self.set_policy, self.set_policy, self.mark, self.mark,
            *self.serving.edits,
        ]  # fmt: skip

    def populate(self) -> None:
        """Make a world in which most edits touch what this host sees."""
        for edit, times in (
            (self.add_bridge, 2), (self.add_router, 2), (self.add_chain, 3), (self.add_rule, 6),
            (self.add_group, 4), (self.member, 8), (self.add_rule, 4),
            (self.add_port, 14), (self.join_group, 6), (self.link, 12), (self.bind, 10),
            (self.set_filter, 6),
            (self.host_liveness, 3), (self.zone, 2), (self.zone_member, 8), (self.add_route, 10),
            (self.flood_group, 2), (self.balanced.add_balancer, 2), (self.balanced.add_pool, 4),
            (self.balanced.add_member, 8), (self.balanced.add_vip, 5), (self.balanced.attach, 2),
            (self.add_mirror, 3), (self.set_mirrors, 5),
            (self.add_policy, 2), (self.mark, 2), (self.set_policy, 4),
            (self.serving.add_subnet, 6), (self.serving.add_client, 12),
        ):  # fmt: skip
            for _ in range(times):
                edit()

    def edit(self) -> None:
        self.random.choice(self.edits)()

    def new_id(self) -> UUID:
        self._next += 1
        return UUID(int=self.random.getrandbits(16) << 64 | self._next)

    def pick(self, kind: type[msgspec.Struct]):  # type: ignore[no-untyped-def]
        values = self.world.every(kind)
        return self.random.choice(values) if values else None

    def change(self, value: msgspec.Struct | None, **fields: object) -> None:
        if value is not None:
            self.world.put(msgspec.structs.replace(value, **fields))

    def add_bridge(self) -> None:
        self.world.put(Bridge(id=BridgeId(self.new_id())))

    def add_router(self) -> None:
        self.world.put(Router(id=RouterId(self.new_id())))

    def add_port(self) -> None:
        device = self.pick(self.random.choice([Bridge, Router]))
        if isinstance(device, Bridge):
            vlan_id = self.random.choice([0, 0, 10])
            self.world.put(Port(id=PortId(self.new_id()), bridge_id=device.id, vlan_id=vlan_id))
        elif isinstance(device, Router):
            number = self.random.randrange(4)
            self.world.put(
                Port(
                    id=PortId(self.new_id()),
                    router_id=device.id,
                    mac=f"02:00:00:00:00:0{number}",
                    addresses=(f"10.0.{number}.1/24", "2001:db8::1/64"),
                )
            )

    def link(self) -> None:
        one, two = self.pick(Port), self.pick(Port)
        if one is None or one.id == two.id:
            return
        if any(port.host_id or port.peer_port_id for port in (one, two)):
            return
        self.change(one, peer_port_id=two.id)
        self.change(two, peer_port_id=one.id)

    def unlink(self) -> None:
        port = self.pick(Port)
        if port is not None and port.peer_port_id is not None:
            self.change(self.world.objects[Port][port.peer_port_id], peer_port_id=None)
            self.change(port, peer_port_id=None)

    def bind(self) -> None:
        port = self.pick(Port)
        if port is None or port.peer_port_id or port.host_id:
            return
        host_id = self.random.choice(HOSTS)
        self.change(port, host_id=host_id, interface_name="tap0")
        if self.random.random() < 0.8:
            self.world.put(
                PortLocation(
                    id=port.id, host_id=host_id, tunnel_key=self.random.randrange(9), epoch=1,
                    active=self.random.random() < 0.7,
                )
            )  # fmt: skip

    def unbind(self) -> None:
        port = self.pick(Port)
        self.change(port, **({"host_id": None, "interface_name": None} if port else {}))

    def activate(self) -> None:
        location = self.pick(PortLocation)
        if location is not None:
            self.change(location, active=not location.active)

    def move(self) -> None:
        host_id = self.random.choice(HOSTS)
        self.change(self.pick(PortLocation), host_id=host_id, tunnel_key=self.random.randrange(9))

    def add_chain(self) -> None:
        self.world.put(Chain(id=ChainId(self.new_id())))

    def add_rule(self) -> None:
        chain, target = self.pick(Chain), self.pick(Chain)
        if chain is None:
            return
        action = self.random.choice(list(RuleAction))
        rule = Rule(
            id=RuleId(self.new_id()), chain_id=chain.id, rank=self.random.choice("abcd"),
            action=action, condition=self._condition(),
            jump_chain_id=target.id if action is RuleAction.JUMP else None,
        )  # fmt: skip
        self.world.put(rule)

    def _condition(self) -> Condition:
        port_group, addresses = self.pick(PortGroup), self.pick(IpAddressGroup)
        if self.random.random() < 0.5:
            return Condition()
        return Condition(
            in_port_group_id=port_group and port_group.id,
            ip_address_group_src_id=addresses and addresses.id,
        )

    def add_group(self) -> None:
        if self.random.random() < 0.5:
            is_stateful = self.random.random() < 0.5
            self.world.put(PortGroup(id=PortGroupId(self.new_id()), stateful=is_stateful))
        else:
            group = IpAddressGroup(id=IpAddressGroupId(self.new_id()), name="group")
            self.world.members[StateTables.ip_address_group(group.id)] = set()
            self.world.put(group)

    def join_group(self) -> None:
        port, group = self.pick(Port), self.pick(PortGroup)
        if port is not None and group is not None:
            self.change(port, port_group_ids=tuple({*port.port_group_ids} ^ {group.id}))
        if group is not None and self.random.random() < 0.2:
            self.change(group, stateful=not group.stateful)

    def member(self) -> None:
        group = self.pick(IpAddressGroup)
        if group is not None:
            weights = (1, 2, 2, 2, 2, 0.1)
            changed = self.random.choices(MEMBERS, weights)[0]
            self.world.members[StateTables.ip_address_group(group.id)] ^= {changed}

    def set_filter(self) -> None:
        device = self.pick(self.random.choice([Bridge, Router, Port]))
        chain = self.pick(Chain)
        field = self.random.choice(["inbound_filter_id", "outbound_filter_id"])
        self.change(device, **{field: self.random.choice([chain and chain.id, None])})

    def add_mirror(self) -> None:
        port = self.pick(Port)
        if port is not None:
            tests = (Condition(ip_proto=self.random.choice([6, 17])),)
            mirror_id = MirrorId(self.new_id())
            self.world.put(Mirror(id=mirror_id, to_port_id=port.id, conditions=tests))

    def set_mirrors(self) -> None:
        device = self.pick(self.random.choice([Bridge, Router, Port]))
        fields = ["inbound_mirror_ids", "outbound_mirror_ids"]
        if isinstance(device, Port):
            fields += ["post_in_filter_mirror_ids", "pre_out_filter_mirror_ids"]
        mirrors = [one.id for one in self.world.every(Mirror)]
        chosen = self.random.sample(mirrors, min(len(mirrors), self.random.randrange(3)))
        self.change(device, **{self.random.choice(fields): tuple(chosen)})

    def add_policy(self) -> None:
        self.world.put(QosPolicy(id=QosPolicyId(self.new_id())))

    def mark(self) -> None:
        """Give a policy a rule, another rule, or none."""
        policy = self.pick(QosPolicy)
        if policy is None:
            return
        for rule in self.world.every(QosDscpRule):
            if rule.policy_id == policy.id:
                self.world.delete(QosDscpRule, rule.id)
        if self.random.random() < 0.7:
            mark = self.random.randrange(64)
            self.world.put(QosDscpRule(id=self.new_id(), policy_id=policy.id, dscp_mark=mark))

    def set_policy(self) -> None:
        device, policy = self.pick(self.random.choice([Bridge, Port])), self.pick(QosPolicy)
        self.change(device, qos_policy_id=self.random.choice([policy and policy.id, None]))

    def add_route(self) -> None:
        port = self.pick(Port)
        if port is None or port.router_id is None:
            return
        number = self.random.randrange(6)
        version_6 = self.random.random() < 0.2
        kind = self.random.choice([NextHopKind.NORMAL, NextHopKind.LOCAL, NextHopKind.BLACKHOLE])
        self.world.put(
            Route(
                id=RouteId(self.new_id()),
                router_id=port.router_id,
                kind=kind,
                source="::/0" if version_6 else "0.0.0.0/0",
                destination="2001:db8::/32" if version_6 else f"10.{number}.0.0/16",
                next_hop_port_id=None if kind is NextHopKind.BLACKHOLE else port.id,
                gateway=self.random.choice([None, "0.0.0.0", "10.0.0.9"]),
                weight=self.random.randrange(3),
            )
        )

    def replace_route(self) -> None:
        route = self.pick(Route)
        if route is not None:
            self.world.delete(Route, route.id)
            self.change(route, id=RouteId(self.new_id()), weight=route.weight + 1)

    def delete(self) -> None:
        kinds = [Port, Chain, Rule, Route, PortLocation, PortGroup, Mirror, QosPolicy, QosDscpRule]
        kind = self.random.choice(kinds)
        if self.random.random() < 0.1:
            kind = self.random.choice([Bridge, Router, IpAddressGroup])
        value = self.pick(kind)
        if value is not None:
            self.world.delete(kind, value.id)

    def toggle(self) -> None:
        device = self.pick(self.random.choice([Bridge, Router, Port]))
        if device is not None:
            self.change(device, admin_state_up=not device.admin_state_up)

    def host_liveness(self) -> None:
        host_id = self.random.choice(HOSTS)
        if self.world.live.pop(host_id, None) is None:
            mtu = self.random.choice([0, 1400])
            self.world.live[host_id] = HostState(id=host_id, overlay_mtu_bytes=mtu)

    def zone(self) -> None:
        kind = self.random.choice(list(TunnelKind))
        zone_id = TunnelZoneId(UUID(int=0xB0 + self.random.randrange(2)))
        self.world.put(TunnelZone(id=zone_id, name="zone", kind=kind))

    def zone_member(self) -> None:
        zone = self.pick(TunnelZone)
        if zone is None:
            return
        host_id = self.random.choice(HOSTS)
        member_id = tunnel_zone_host_id(zone.id, host_id)
        if member_id in self.world.objects[TunnelZoneHost] and self.random.random() < 0.3:
            self.world.delete(TunnelZoneHost, member_id)
            return
        address = self.random.choice(["192.0.2.{}", "2001:db8::{}"]).format(host_id.int & 0xF)
        self.world.put(
            TunnelZoneHost(id=member_id, tunnel_zone_id=zone.id, host_id=host_id, address=address)
        )

    def flood_group(self) -> None:
        bridge = self.pick(Bridge)
        if bridge is None:
            return
        host_id = self.random.choice(HOSTS)
        group_id = flood_group_id(host_id, bridge.id)
        if group_id in self.world.objects[FloodGroup] and self.random.random() < 0.5:
            self.world.delete(FloodGroup, group_id)
            return
        key = self.random.randrange(9)
        self.world.put(
            FloodGroup(id=group_id, host_id=host_id, bridge_id=bridge.id, tunnel_key=key)
        )

    def set_address(self) -> None:
        port = self.pick(Port)
        if port is not None and port.router_id is not None:
            number = self.random.randrange(6)
            mac = f"02:00:00:00:00:0{number}"
            self.change(port, mac=mac, addresses=(f"10.0.{number}.1/24",))

    def spoil(self) -> None:
        """Store what cannot be understood."""
        if self.random.random() < 0.3:
            self.change(self.pick(Route), destination="rubbish")
        port = self.pick(Port)
        if self.random.random() < 0.2 and port is not None and port.router_id is not None:
            self.change(port, mac="rubbish")
