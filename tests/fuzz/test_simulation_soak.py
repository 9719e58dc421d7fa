"""Arbitrary frames through simulation: always a verdict, never beyond the tenant's own ports."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from midonet.agent.flows.apply import apply_rewrite
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import LocalOutput, Output
from midonet.agent.simulation import walk
from midonet.agent.simulation.result import Await, Consume, Drop, Forward, SimulationResult
from midonet.agent.simulation.simulate import simulate, simulate_generated
from midonet.errors import DecodeError
from midonet.model.ids import PortId
from midonet.packets.frame import ParsedFrame, parse_frame
from tests.fuzz.hostile_frames import FrameSource
from tests.fuzz.hostile_worlds import WORLDS
from tests.fuzz.reachability import Reachability
from tests.fuzz.soaking import FACTOR, FAILURES, SEED, named
from tests.worlds import NOW, World

FRAMES = 30_000
"""Frames for each kind of topology."""

WORLD_FRAMES = 500
"""Frames that one topology gets."""

TRACED = 8
"""Frames whose last byte is below this are traced too, which changes nothing."""

MAX_DEPTH = 5
MAX_TABLE = 5_000
MAX_OUTPUTS = 16
"""Copies of one frame: as many as a tenant has bound ports here, also where links form rings."""


class Soak:
    """One run over many topologies of a kind."""

    def __init__(self, kind: str, seed: int) -> None:
        self._random = Random(f"{kind} {seed}")
        self._kind, self._seed = kind, seed
        self._frames = FrameSource(self._random)
        self.seen: Counter[str] = Counter()
        self.digest = hashlib.sha256()

    def run(self, frames: int) -> None:
        """Send so many frames."""
        for number in range(frames // WORLD_FRAMES):
            one = _Topology(WORLDS[self._kind](self._random))
            for index in range(WORLD_FRAMES):
                ingress, frame = self._random.choice(one.ports), self._frames.draw()
                place = f"{self._kind} {number}, frame {index} at {one.world.name(ingress)}"
                with named(self._seed, place, frame):
                    self._note(one, one.send(ingress, frame))

    def _note(self, one: _Topology, result: SimulationResult | None) -> None:
        match result:
            case None:
                what = DropReason.MALFORMED.name
            case Drop(reason):
                what = reason.name
            case _:
                what = type(result).__name__
        self.seen[what] += 1
        self.digest.update(f"{what} {one.left}".encode())


class _Topology:
    """A world, and what leaves it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._view = world.view()
        self._soft = world.soft_state()
        self._reachable = Reachability(self._view)
        self.ports = [port.id for port in self._view.ports.values()
                      if port.host_id == self._view.host_id]  # fmt: skip
        self.left = 0

    def send(self, ingress: PortId, frame: bytes) -> SimulationResult | None:
        """Return the verdict on a frame, None when it is malformed."""
        try:
            packet = parse_frame(frame, hash_seed=self._view.hash_seed)
        except DecodeError:
            return None
        result = simulate(self._view, self._soft, packet, ingress, NOW)
        if frame[-1] < TRACED:
            traced = simulate(self._view, self._soft, packet, ingress, NOW, trace=True)
            assert isinstance(traced, Await) or replace(traced, steps=()) == result
        self._follow(ingress, packet, result, 0)
        return result

    def _follow(
        self, ingress: PortId, packet: ParsedFrame, result: SimulationResult, depth: int
    ) -> None:
        if isinstance(result, Await):
            return
        assert depth < MAX_DEPTH, "generated packets give rise to each other"
        if isinstance(result, Drop):
            assert result.reason not in FAILURES, result.reason.name
        if isinstance(result, Forward):
            self._leave(ingress, packet, result.program.outputs)
        if len(self._soft.macs) + len(self._soft.neighbours) < MAX_TABLE:
            self._soft.apply(result.effects)
        for made in result.generated:
            assert self._reachable.is_connected(ingress, made.egress), "answers elsewhere"
            answer = parse_frame(made.frame, hash_seed=self._view.hash_seed)
            again = simulate_generated(
                self._view,
                self._soft,
                answer,
                made.egress,
                NOW,
                router_id=made.router_id,
                is_unfiltered=made.is_unfiltered,
            )
            self._follow(ingress, answer, again, depth + 1)

    def _leave(self, ingress: PortId, packet: ParsedFrame, outputs: tuple[Output, ...]) -> None:
        assert outputs
        most = MAX_OUTPUTS if self._reachable.is_plain else walk.MAX_OUTPUTS
        assert len(outputs) <= most, f"{len(outputs)} copies"
        if self._reachable.is_plain:
            assert len({_place(one) for one in outputs}) == len(outputs), "two copies at a place"
        self._reachable.check(ingress, outputs)
        for output in outputs:
            assert len(apply_rewrite(packet.frame, output.rewrite)) >= 14
        self.left += len(outputs)


def _place(output: Output) -> tuple[object, ...]:
    """Return where a copy goes: a port gets none twice but with another tag."""
    if isinstance(output, LocalOutput):
        return output.port_id, output.rewrite
    return output.remote, output.tunnel_key, output.rewrite


@pytest.mark.parametrize("kind", WORLDS)
def test_every_frame_has_a_verdict_within_its_tenant(kind: str) -> None:
    soak = Soak(kind, SEED)
    soak.run(FRAMES * FACTOR)
    assert soak.seen.total() == FRAMES * FACTOR
    wanted = {Forward.__name__, DropReason.MALFORMED.name}
    if kind != "bridges":
        wanted |= {Consume.__name__, Await.__name__}
    assert wanted <= soak.seen.keys()


def test_a_seed_repeats_a_run() -> None:
    runs = [Soak("random", SEED), Soak("random", SEED), Soak("random", SEED + 1)]
    for soak in runs:
        soak.run(2000)
    first, again, other = (soak.digest.hexdigest() for soak in runs)
    assert first == again
    assert first != other
