"""History does not matter: any order of any edits leads to the view built from scratch."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from midonet.agent.flows.tags import (
    FlowTag,
    RouteRegion,
    bridge_neighbour_tag,
    chain_tag,
    device_tag,
    flood_group_tag,
    flood_set_tag,
    group_member_tag,
    location_tag,
    mac_tag,
    tunnel_tag,
    underlay_tag,
)
from midonet.agent.topology.fib import RoutingTable
from midonet.agent.topology.view import BridgeView, RouterView, TopologyView
from midonet.model.devices import Bridge, Port, Router
from midonet.model.ids import ObjectId
from tests.property.topology import balanced, serving
from tests.property.topology.worlds import Editor, Watched, World


def comparable(view: TopologyView) -> TopologyView:
    return replace(view, revision=0)


def rebuilt(world: World, keep: set[ObjectId]) -> TopologyView:
    watched = Watched(world)
    watched.request(sorted(keep))
    watched.drain()
    return watched.assembler.view


def differing(old: object, new: object) -> set[object]:
    """Return keys of two mappings whose values differ."""
    assert hasattr(old, "keys")
    assert hasattr(new, "keys")
    return {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}  # type: ignore[attr-defined]


def routes(router: RouterView | None) -> set[object]:
    return set(router.fib) if router and isinstance(router.fib, RoutingTable) else set()


def links(bridge: BridgeView) -> tuple[object, ...]:
    return (
        bridge.flood_port_ids,
        bridge.linked_port_ids,
        bridge.bridge_port_ids,
        bridge.vlan_ports,
    )


def group_tags(old: TopologyView, new: TopologyView) -> set[FlowTag]:
    """Return the tags of ports, of their memberships and of groups that differ."""
    tags = {device_tag(one) for one in old.port_groups.keys() ^ new.port_groups.keys()}
    tags |= {device_tag(one) for one in old.address_groups.keys() ^ new.address_groups.keys()}
    for port_id in differing(old.ports, new.ports):
        one, two = old.ports.get(port_id), new.ports.get(port_id)
        groups = [set(port.port_group_ids) if port else set() for port in (one, two)]
        tags |= {group_member_tag(group_id, port_id) for group_id in groups[0] ^ groups[1]}
        if not one or not two or replace(one, port_group_ids=two.port_group_ids) != two:
            tags.add(device_tag(port_id))
    return tags


def member_regions(old: TopologyView, new: TopologyView) -> set[RouteRegion]:
    """Return the regions of addresses that came into groups or left them."""
    return {
        RouteRegion(group_id, member.version, member.network, member.length)
        for group_id in old.address_groups.keys() & new.address_groups.keys()
        for member in set(old.address_groups[group_id]) ^ set(new.address_groups[group_id])
    }


def settings_of(bridge: BridgeView) -> tuple[object, ...]:
    return (
        bridge.admin_state_up,
        bridge.inbound_filter_id,
        bridge.outbound_filter_id,
        bridge.inbound_mirror_ids,
        bridge.outbound_mirror_ids,
        bridge.qos_policy_id,
    )


def expected_tags(old: TopologyView, new: TopologyView) -> tuple[set[FlowTag], set[RouteRegion]]:
    """Return what a delta must say, found by comparing two views fact by fact."""
    tags: set[FlowTag] = set()
    regions: set[RouteRegion] = set()
    tags |= group_tags(old, new)
    regions |= member_regions(old, new)
    balanced_tags, vip_regions = balanced.expected(old, new)
    tags |= balanced_tags
    regions |= vip_regions
    tags |= serving.expected(old, new)
    tags |= {chain_tag(one) for one in differing(old.chains, new.chains)}
    tags |= {device_tag(one) for one in differing(old.mirrors, new.mirrors)}
    tags |= {device_tag(one) for one in differing(old.qos_policies, new.qos_policies)}
    tags |= {location_tag(one) for one in differing(old.locations, new.locations)}
    tags |= {tunnel_tag(one) for one in differing(old.tunnels, new.tunnels)}
    tags |= {flood_group_tag(*one) for one in differing(old.flood_groups, new.flood_groups)}
    if old.underlay_addresses != new.underlay_addresses:
        tags.add(underlay_tag(new.host_id))
    for bridge_id in differing(old.bridges, new.bridges):
        before = old.bridges.get(bridge_id, BridgeView(bridge_id))
        after = new.bridges.get(bridge_id, BridgeView(bridge_id))
        if (bridge_id in old.bridges) != (bridge_id in new.bridges) or (
            settings_of(before) != settings_of(after)
        ):
            tags.add(device_tag(bridge_id))
        if links(before) != links(after):
            tags.add(flood_set_tag(bridge_id))
        for vlan, mac in differing(before.attachments, after.attachments):
            tags.add(mac_tag(bridge_id, vlan, mac))
        for _, address in differing(before.attachment_by_address, after.attachment_by_address):
            tags.add(bridge_neighbour_tag(bridge_id, *address))
    for router_id in differing(old.routers, new.routers):
        one, two = old.routers.get(router_id), new.routers.get(router_id)
        if one is None or two is None or replace(one, fib=two.fib, port_ids=two.port_ids) != two:
            tags.add(device_tag(router_id))
        regions |= {
            RouteRegion(
                router_id,
                route.destination.version,
                route.destination.network,
                route.destination.length,
            )
            for route in routes(one) ^ routes(two)
        }
    for object_id in old.absent ^ new.absent:
        tags |= {device_tag(object_id), chain_tag(object_id)}
    return tags, regions


def vlan_links(view: TopologyView) -> dict[object, set[object]]:
    """Return the VLANs of ports, by bridge."""
    links: dict[object, set[object]] = {}
    for port in view.ports.values():
        if port.vlan_id and port.bridge_id is not None:
            links.setdefault(port.bridge_id, set()).add((port.vlan_id, port.id))
    return links


def check_consistent(view: TopologyView) -> None:
    """Check that what a visible object refers to is visible, or known to be absent."""
    for chain in view.chains.values():
        for rule in chain.rules:
            target = rule.jump_chain_id
            assert target is None or target in view.chains or target in view.absent
    devices = [*view.ports.values(), *view.bridges.values(), *view.routers.values()]
    for device in devices:
        for chain_id in (device.inbound_filter_id, device.outbound_filter_id):
            assert chain_id is None or chain_id in view.chains or chain_id in view.absent
    members = [one for bridge in view.bridges.values() for one in bridge.flood_port_ids]
    members += [one for bridge in view.bridges.values() for one in bridge.linked_port_ids]
    members += [one for router in view.routers.values() for one in router.port_ids]
    assert all(one in view.ports or one in view.absent for one in members)
    for router in view.routers.values():
        balancer_id = router.load_balancer_id
        assert balancer_id is None or balancer_id in view.balancers or balancer_id in view.absent
    assert not set(view.absent) & set(view.ports)


def check_groups(view: TopologyView) -> None:
    """Check that ports and groups say the same, when nothing waits to become visible."""
    for port in view.ports.values():
        assert set(port.port_group_ids) <= view.port_groups.keys()
        stateful = [one for one in port.port_group_ids if view.port_groups[one]]
        assert port.stateful_group_id == min(stateful, default=None)


@given(seed=st.integers(0, 2**32), edits=st.integers(1, 60))
@settings(max_examples=100)
def test_any_history_leads_to_the_view_built_from_scratch(seed: int, edits: int) -> None:
    random = Random(seed)
    world = World()
    editor = Editor(world, random)
    editor.populate()
    watched = Watched(world)
    keep: set[ObjectId] = set()
    for _ in range(edits):
        for _ in range(random.randrange(3)):
            editor.edit()
        pending = watched.pending()
        random.shuffle(pending)
        watched.deliver(pending[: random.randrange(len(pending) + 1)])
        action = random.random()
        if action < 0.1:
            known = editor.pick(random.choice([Port, Bridge, Router]))
            keep.add(known.id if known is not None else editor.new_id())
            watched.request(sorted(keep))
        elif action < 0.15:
            watched.settle()
        elif action < 0.2:
            watched.drain()
        elif action < 0.25:
            keep = {one for one in keep if random.random() < 0.7}
            watched.collect(keep)
    watched.drain()
    watched.collect(keep)
    watched.drain()
    watched.collect(keep)
    check_groups(watched.assembler.view)
    assert comparable(watched.assembler.view) == comparable(rebuilt(world, keep))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=100)
def test_delta_carries_the_tag_of_every_fact_that_differs(seed: int) -> None:
    random = Random(seed)
    world = World()
    editor = Editor(world, random)
    editor.populate()
    watched = Watched(world)
    old = watched.assembler.view
    for _ in range(40):
        for _ in range(random.randrange(4)):
            editor.edit()
        before = len(watched.steps)
        pending = watched.pending()
        random.shuffle(pending)
        watched.deliver(pending[: random.randrange(len(pending) + 1)])
        if random.random() < 0.1:
            known = editor.pick(Port)
            watched.request([known.id if known is not None else editor.new_id()])
        if random.random() < 0.1:
            watched.drain()
        if random.random() < 0.05:
            watched.collect(set())
        for step in watched.steps[before:]:
            tags, regions = expected_tags(old, step.view)
            if step.delta is None:
                assert comparable(step.view) == comparable(old)
                continue
            assert step.delta.revision == step.view.revision == old.revision + 1
            assert tags <= step.delta.tags
            # Beyond these, bridges whose VLAN ports or whose routers in VLANs changed.
            assert step.delta.tags - tags <= {
                device_tag(port.bridge_id)
                for port in (*old.ports.values(), *step.view.ports.values())
                if port.bridge_id is not None and port.vlan_id
            }
            vlans = {one: vlan_links(view) for one, view in (("old", old), ("new", step.view))}
            for bridge_id in differing(vlans["old"], vlans["new"]):
                assert device_tag(bridge_id) in step.delta.tags
            assert step.delta.regions == regions
            assert step.delta.urgent <= step.delta.tags
            check_consistent(step.view)
            old = step.view
