"""What would become of a packet: the real simulation, asked without sending anything.

The view and the learnt tables are those that decide about traffic at this moment. Devices that
are not loaded yet are loaded; nothing is learnt, installed, sent or asked for on the network.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from midonet.agent.decisions.decisions import Decisions
from midonet.agent.decisions.synthesis import answer_frame
from midonet.agent.flow_state.connection import Connection
from midonet.agent.flow_state.effects import ConfirmConnection
from midonet.agent.operator.flow_text import describe_match
from midonet.agent.operator.trace_text import describe_step, mentioned_ids
from midonet.agent.simulation.result import (
    Await,
    Consume,
    Drop,
    FetchConnection,
    Forward,
    GeneratedPacket,
    LoadDevices,
    ResolveNeighbour,
    SimulationResult,
)
from midonet.agent.simulation.trace import EnteredOutput, TraceStep, Waits
from midonet.errors import DecodeError, NotFoundError, UnavailableError, UserError
from midonet.model.chains import Chain
from midonet.model.devices import Bridge, Port, Router
from midonet.model.hosts import Host
from midonet.model.ids import HostId, ObjectId, PortId
from midonet.nsdb.store import Store
from midonet.packets.addresses import IpVersion
from midonet.packets.frame import ParsedFrame, parse_frame

Json = dict[str, Any]

_MAX_LOADS = 16
"""Rounds of loading before a trace says what it waits for: more devices than a packet may enter."""

_NAMES: tuple[tuple[type[msgspec.Struct], str], ...] = (
    (Bridge, "name"),
    (Router, "name"),
    (Chain, "name"),
    (Host, "name"),
    (Port, "interface_name"),
)
"""What an operator calls objects of a kind."""


_AWAITED: dict[type[object], str] = {
    LoadDevices: "devices",
    ResolveNeighbour: "neighbour",
    FetchConnection: "connection",
}


class Tracer:
    """Traces packets at the ports of one host."""

    def __init__(
        self,
        host: Host,
        store: Store,
        decisions: Decisions,
        load: Callable[[Sequence[ObjectId]], Awaitable[None]],
    ) -> None:
        """`load` brings objects into the view."""
        self._host = host
        self._store = store
        self._decisions = decisions
        self._load = load

    async def trace(
        self,
        port_id: PortId,
        frame: bytes,
        *,
        all_rules: bool = False,
        state: bool = False,
        reply: bool = False,
    ) -> Json:
        """Return steps, verdict, outputs and answers for a frame that enters at a port here.

        all_rules: show the rules that did not match as well. state: look for the connection of
        the packet whether a rule asks or not. reply: go on with the packet that answers, where
        this one leaves, as if its connection had been begun; it is in `reply` then, None when the
        packet does not leave or leads to no single answer. Raises UserError: no such port, a port
        of another host, a frame that cannot be parsed.
        """
        await self._require_local(port_id)
        answer, result = await self._follow(port_id, frame, all_rules=all_rules, state=state)
        if reply:
            answer["reply"] = await self._reply(frame, result, all_rules=all_rules, state=state)
        return answer

    async def _reply(
        self, frame: bytes, result: SimulationResult, *, all_rules: bool, state: bool
    ) -> Json | None:
        """Return the trace of the packet that answers, from where the first one leaves."""
        left = [one.event for one in result.steps if isinstance(one.event, EnteredOutput)]
        if not isinstance(result, Forward) or not left:
            return None
        answering = answer_frame(frame, left[0].output.rewrite)
        if answering is None:
            return None
        begun = [one.connection for one in result.effects if isinstance(one, ConfirmConnection)]
        answer, _ = await self._follow(
            left[0].port_id,
            answering,
            all_rules=all_rules,
            state=state,
            assumed=begun[0] if begun else None,
        )
        return {"frame": answering.hex(), **answer}

    async def _follow(
        self,
        port_id: PortId,
        frame: bytes,
        *,
        all_rules: bool,
        state: bool,
        assumed: Connection | None = None,
    ) -> tuple[Json, SimulationResult]:
        try:
            packet = parse_frame(frame, hash_seed=self._decisions.view.hash_seed)
        except DecodeError as error:
            raise UserError(f"the frame is malformed: {error}", field="frame") from None
        result, waits = await self._simulate(packet, port_id, state, assumed)
        steps = (*waits, *result.steps)
        names = await self._names(mentioned_ids(steps) | self._hosts(steps))
        is_ipv6 = packet.ip_version is IpVersion.V6
        answer = {
            "portId": str(port_id),
            "host": self._host.name,
            "steps": [
                describe_step(step, names, is_ipv6=is_ipv6)
                for step in steps
                if all_rules or getattr(step.event, "is_matching", True)
            ],
            "outputs": [
                self._output(step.event, names)
                for step in steps
                if isinstance(step.event, EnteredOutput)
            ],
            **_verdict(result),
        }
        return answer, result

    async def _require_local(self, port_id: PortId) -> None:
        if port_id in self._decisions.view.ports:
            port = self._decisions.view.ports[port_id]
            if port.host_id == self._host.id:
                return
        stored = await self._store.get(Port, port_id)
        if stored is None:
            raise NotFoundError("Port", port_id)
        if stored.value.host_id is None:
            raise UserError(f"Port {port_id} is not bound to a host.", field="portId")
        names = await self._names({stored.value.host_id})
        where = names.get(stored.value.host_id, str(stored.value.host_id))
        if stored.value.host_id == self._host.id:
            raise UnavailableError(f"Port {port_id} is not known here yet; try again.")
        raise UserError(f"Port {port_id} is bound at host {where}: ask its agent.", field="portId")

    async def _simulate(
        self, packet: ParsedFrame, port_id: PortId, must_ask: bool, assumed: Connection | None
    ) -> tuple[SimulationResult, list[TraceStep]]:
        """Return the result, and a step for each time that devices had to be loaded."""

        def explained() -> SimulationResult:
            return self._decisions.explain(packet, port_id, must_ask=must_ask, assumed=assumed)

        waits: list[TraceStep] = []
        result = explained()
        while (
            isinstance(result, Await)
            and isinstance(result.what, LoadDevices)
            and len(waits) < _MAX_LOADS
        ):
            waits.append(TraceStep(0, Waits(object_ids=result.what.object_ids)))
            await self._load(result.what.object_ids)
            result = explained()
        return result, waits

    def _hosts(self, steps: Iterable[TraceStep]) -> set[UUID]:
        locations = self._decisions.view.locations
        return {
            locations[step.event.port_id].host_id
            for step in steps
            if isinstance(step.event, EnteredOutput) and step.event.port_id in locations
        }

    def _output(self, entered: EnteredOutput, names: dict[UUID, str]) -> Json:
        location = self._decisions.view.locations.get(entered.port_id)
        host_id: HostId | None = location.host_id if location is not None else None
        return {
            "portId": str(entered.port_id),
            "interface": names.get(entered.port_id),
            "host": None if host_id is None else names.get(host_id, str(host_id)),
            "tunnelKey": None if location is None else location.tunnel_key,
        }

    async def _names(self, object_ids: set[UUID]) -> dict[UUID, str]:
        """Return what objects are called; nothing while the store is away."""
        names: dict[UUID, str] = {}
        ids = list(object_ids)
        try:
            for kind, field in _NAMES:
                for object_id, found in (await self._store.get_many(kind, ids)).items():
                    if name := getattr(found.value, field):
                        names[object_id] = name
        except UnavailableError:
            return {}
        return names


def _verdict(result: SimulationResult) -> Json:
    match result:
        case Forward(program=program, generated=generated):
            verdict: Json = {"verdict": "forward"}
        case Drop(reason=reason, program=program, generated=generated):
            verdict = {"verdict": "drop", "reason": reason.name}
        case Consume(generated=generated):
            return {"verdict": "consume", "answers": _answers(generated)}
        case Await(what=what):
            return {"verdict": "wait", "for": _AWAITED[type(what)], "answers": []}
    verdict["answers"] = _answers(generated)
    verdict["match"] = describe_match(program.key, program.mask)
    verdict["slowPath"] = program.slow_path
    return verdict


def _answers(generated: Iterable[GeneratedPacket]) -> list[Json]:
    return [{"portId": str(one.egress), "frame": one.frame.hex()} for one in generated]
