"""A program holds for every packet of its class.

A packet is simulated, then another packet of the same class (same bits under the mask, guards
satisfied) is: verdict, outputs and tags must be the same, and so must the bytes that leave, but
for the fields in which the packets differ from the start.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from midonet.agent.flows.apply import apply_rewrite
from midonet.agent.flows.classification import masked
from midonet.agent.flows.program import FlowProgram
from midonet.agent.simulation.result import Consume, Drop, Forward, SimulationResult
from midonet.packets.frame import ParsedFrame, parse_frame
from tests.fuzz.reachability import Reachability
from tests.property.simulation.networks import (
    FIELDS,
    LOCAL_PORTS,
    PacketSpec,
    filtered_bridges,
    packets,
    worlds,
)
from tests.worlds import World


def program_of(result: SimulationResult) -> FlowProgram | None:
    """Return the program that would be installed, None when nothing would be."""
    if not isinstance(result, Forward | Drop) or result.program.slow_path is not None:
        return None
    return result.program


def is_of_class(world: World, program: FlowProgram, packet: ParsedFrame) -> bool:
    """Tell whether a datapath would run the program on a packet."""
    key = packet.key._replace(flow_hash=packet.flow_hash(world.view().hash_seed))
    if masked(key, program.mask) != masked(program.key, program.mask):
        return False
    guards = program.guards
    if packet.ip_version is None:
        return True
    fits = guards.max_length is None or packet.ip_length <= guards.max_length
    return fits and packet.ttl > guards.ttl_above


def variant(spec: PacketSpec, data: st.DataObject) -> PacketSpec:
    """Return a packet that differs in one field or a few."""
    names = data.draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=3))
    return replace(spec, **{name: data.draw(FIELDS[name]) for name in names})


@settings(max_examples=200)
@given(worlds(), packets(), st.sampled_from(LOCAL_PORTS), st.data())
def test_every_packet_of_a_class_fares_alike(
    world: World, spec: PacketSpec, ingress: str, data: st.DataObject
) -> None:
    check_class(world, spec, ingress, [variant(spec, data) for _ in range(10)])


@settings(max_examples=300)
@given(filtered_bridges(), packets(), st.data())
def test_every_packet_of_a_class_fares_alike_in_a_filter(
    world: World, spec: PacketSpec, data: st.DataObject
) -> None:
    check_class(
        world,
        spec,
        "p1",
        [replace(spec, **{name: data.draw(FIELDS[name])}) for name in sorted(FIELDS)],
    )


def check_class(world: World, spec: PacketSpec, ingress: str, others: list[PacketSpec]) -> None:
    """Check that those of `others` that are of the class of `spec` get the same program."""
    frame = spec.frame()
    first = world.simulate(ingress, frame)
    program = program_of(first)
    assume(program is not None)
    assert program is not None
    assert is_of_class(world, program, parse_frame(frame))
    assert bool(program.outputs) == (program.drop_reason is None)
    for other_spec in others:
        other = parse_frame(other_spec.frame())
        if is_of_class(world, program, other):
            assert_alike(world, ingress, program, first, other)


def assert_alike(
    world: World, ingress: str, program: FlowProgram, first: SimulationResult, other: ParsedFrame
) -> None:
    second = world.simulate(ingress, other)
    assert type(second) is type(first), (first, second)
    assert not isinstance(second, Consume)
    assert isinstance(second, Forward | Drop)
    assert second.generated == ()
    again = second.program
    assert again.slow_path is None
    assert replace(again, key=program.key) == program
    for output in program.outputs:
        # The bytes that leave by the first program are those that a walk of the second gives.
        assert parse_frame(apply_rewrite(other.frame, output.rewrite)).ttl == (
            other.ttl - output.rewrite.ttl_decrement if other.ip_version else 0
        )


@settings(max_examples=80)
@given(worlds(), packets(), st.sampled_from(LOCAL_PORTS))
def test_simulation_is_a_function_and_trace_changes_nothing(
    world: World, spec: PacketSpec, ingress: str
) -> None:
    frame = spec.frame()
    first = world.simulate(ingress, frame)
    assert world.simulate(ingress, frame) == first
    traced = world.simulate(ingress, frame, trace=True)
    assert replace(traced, steps=()) == first


@settings(max_examples=80)
@given(worlds(), packets(), st.sampled_from(LOCAL_PORTS))
def test_everything_that_is_generated_finds_its_end(
    world: World, spec: PacketSpec, ingress: str
) -> None:
    reachable = Reachability(world.view())
    for delivery in world.send(ingress, spec.frame()):
        if isinstance(delivery.place, str):
            assert reachable.is_connected(world.port_id(ingress), world.port_id(delivery.place))
