"""Where a service is: a port whose host is dead serves nobody, whatever was stored of it."""

from __future__ import annotations

from uuid import UUID

from midonet.agent.flows.tags import location_tag
from midonet.model.devices import Bridge, Port
from midonet.model.hosts import HostState, PortLocation
from midonet.model.ids import BridgeId, HostId, PortId
from tests.property.topology.worlds import HERE, Watched, World

THERE = HostId(UUID(int=0xA2))
BRIDGE = BridgeId(UUID(int=1))
HOME, SERVICE, OTHER = (PortId(UUID(int=number)) for number in (2, 3, 4))


def network() -> World:
    """Return a bridge with a port here, and a service port and another port on a live host."""
    world = World()
    world.put(Bridge(id=BRIDGE))
    for port_id, host_id, is_service in (
        (HOME, HERE, False), (SERVICE, THERE, True), (OTHER, THERE, False),
    ):  # fmt: skip
        world.put(
            Port(
                id=port_id,
                bridge_id=BRIDGE,
                host_id=host_id,
                interface_name="tap0",
                is_service=is_service,
            )
        )
        world.put(PortLocation(id=port_id, host_id=host_id, tunnel_key=7, epoch=1, active=True))
    for host_id in (HERE, THERE):
        world.live[host_id] = HostState(id=host_id)
    return world


def is_active(watched: Watched, port_id: PortId) -> bool:
    return watched.assembler.view.locations[port_id].active


def test_a_service_is_inactive_while_its_host_is_dead() -> None:
    world = network()
    watched = Watched(world)
    watched.drain()
    assert is_active(watched, SERVICE)
    del world.live[THERE]
    before = len(watched.steps)
    watched.drain()
    assert not is_active(watched, SERVICE)
    tags = [step.delta.tags for step in watched.steps[before:] if step.delta is not None]
    assert any(location_tag(SERVICE) in one for one in tags)
    world.live[THERE] = HostState(id=THERE)
    watched.drain()
    assert is_active(watched, SERVICE)


def test_the_death_of_a_host_is_no_news_of_its_other_ports() -> None:
    """Tunnels say where hosts are; thousands of ports are not judged again for it."""
    world = network()
    watched = Watched(world)
    watched.drain()
    del world.live[THERE]
    before = len(watched.steps)
    watched.drain()
    assert is_active(watched, OTHER)
    tags = [step.delta.tags for step in watched.steps[before:] if step.delta is not None]
    assert not any(location_tag(OTHER) in one for one in tags)
