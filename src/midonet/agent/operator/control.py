"""What the control socket answers: binding, and looking inside.

PUT, DELETE /binding/PORT_ID      see `midonet.agent.ports.bind_request`
GET  /state                       host, ports, peers, counters
GET  /flows                       installed programs
GET  /drops                       dropped packets by port and reason
GET  /connections?port=&address=&protocol=&limit=   known connections
POST /trace                       {"portId", "frame" (hex), "allRules", "state", "reply"}: what
                                  would become of it
POST /inject                      {"portId", "frame" (hex), "waitSeconds"}; memory only
GET  /watch/PORT_ID?after=N&wait=S   frames that left after number N; memory only
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from midonet.agent.datapath.protocol import Datapath, FrameAccess
from midonet.agent.decisions.decisions import Decisions
from midonet.agent.operator.connection_list import list_connections
from midonet.agent.operator.control_socket import Request
from midonet.agent.operator.delivery_log import Delivery, DeliveryLog
from midonet.agent.operator.flow_text import describe_match, describe_output
from midonet.agent.operator.overview import Overview
from midonet.agent.operator.tracing import Tracer
from midonet.agent.ports.bind_request import bind_port, parse_port_id, unbind_port
from midonet.errors import NotFoundError, UserError
from midonet.model.hosts import Host
from midonet.model.ids import PortId
from midonet.nsdb.store import Store
from midonet.runtime.clock import Clock

_MAX_WAIT_S = 60.0
_FLOWS_SLICE = 100

Json = dict[str, Any]


class BindRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Body of `PUT /binding/PORT_ID`."""

    interface_name: str


class InjectRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Body of `POST /inject`. frame: hexadecimal."""

    port_id: str
    frame: str
    wait_seconds: float = 1.0


class TraceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    """Body of `POST /trace`. frame: hexadecimal."""

    port_id: str
    frame: str
    all_rules: bool = False
    state: bool = False
    reply: bool = False


class Control:
    """Answers requests."""

    def __init__(
        self,
        host: Host,
        store: Store,
        datapath: Datapath,
        decisions: Decisions,
        *,
        overview: Overview,
        tracer: Tracer,
        clock: Clock,
    ) -> None:
        self._host = host
        self._store = store
        self._datapath = datapath
        self._decisions = decisions
        self._overview = overview
        self._tracer = tracer
        self._clock = clock
        self.deliveries = DeliveryLog()
        self._frames = datapath.frame_access
        if self._frames is not None:
            self._frames.subscribe(self.deliveries.add)

    async def respond(self, request: Request) -> object:
        """Return what is sent as JSON. Raises UserError for what there is not."""
        match request.method, *request.path:
            case "PUT", "binding", port:
                body = _decode(request.body, BindRequest)
                port_id = parse_port_id(port)
                await bind_port(self._store, self._host.id, port_id, body.interface_name)
                return None
            case "DELETE", "binding", port:
                await unbind_port(self._store, self._host.id, parse_port_id(port))
                return None
            case "GET", "state":
                return self._overview.overview()
            case "GET", "flows":
                return await self._flows()
            case "GET", "drops":
                return _drop_rows(self._datapath.drops())
            case "GET", "connections":
                return await list_connections(
                    self._decisions.connections.table, self._clock.now_s(), request.query
                )
            case "POST", "trace":
                wanted = _decode(request.body, TraceRequest)
                return await self._tracer.trace(
                    parse_port_id(wanted.port_id),
                    _frame(wanted.frame),
                    all_rules=wanted.all_rules,
                    state=wanted.state,
                    reply=wanted.reply,
                )
            case "POST", "inject":
                return await self._inject(_decode(request.body, InjectRequest))
            case "GET", "watch", port:
                return await self._watch(parse_port_id(port), request.query)
            case method, *path:
                raise NotFoundError("control route", f"{method} /{'/'.join(path)}")
        return None

    async def _flows(self) -> list[Json]:
        statistics = self._datapath.statistics()
        rows: list[Json] = []
        for number, installed in enumerate(tuple(self._decisions.programs.table)):
            if number % _FLOWS_SLICE == 0:
                # A full table takes seconds to describe: packets are decided on in between.
                await asyncio.sleep(0)
            program = installed.program
            usage = statistics.get(installed.program_id)
            rows.append(
                {
                    "id": installed.program_id,
                    "port": str(program.ingress),
                    "match": describe_match(installed.key, installed.mask),
                    "outputs": [describe_output(output) for output in program.outputs],
                    "drop": program.drop_reason.name if program.drop_reason else None,
                    "packets": usage.packets if usage else 0,
                    "bytes": usage.bytes if usage else 0,
                }
            )
        return rows

    async def _inject(self, body: InjectRequest) -> Json:
        frames = self._frame_access()
        port_id = parse_port_id(body.port_id)
        if port_id not in self._datapath.attached():
            raise UserError(f"Port {port_id} is not attached at this agent.", field="portId")
        frame = _frame(body.frame)
        wait_s = _bounded(body.wait_seconds)
        first = self.deliveries.next_number
        before = dict(self._datapath.drops())
        frames.receive(port_id, frame)
        # Floods and answers leave one after the other: wait for all that come in time.
        await asyncio.sleep(wait_s)
        drops = {
            key: count - before.get(key, 0)
            for key, count in self._datapath.drops().items()
            if count > before.get(key, 0)
        }
        return {
            "deliveries": [_delivery_row(entry) for entry in self.deliveries.since(first)],
            "drops": _drop_rows(drops),
        }

    async def _watch(self, port_id: PortId, query: Mapping[str, str]) -> Json:
        self._frame_access()
        try:
            after = int(query.get("after", self.deliveries.next_number - 1))
            wait_s = _bounded(float(query.get("wait", "0")))
        except ValueError:
            raise UserError("after and wait are numbers") from None
        found = await self.deliveries.wait_since(after + 1, port_id, wait_s)
        following = found[-1].number + 1 if found else self.deliveries.next_number
        return {"deliveries": [_delivery_row(entry) for entry in found], "next": following}

    def _frame_access(self) -> FrameAccess:
        if self._frames is None:
            raise UserError("Frames are injected and watched with --datapath memory only.")
        return self._frames


def _frame(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UserError("frame is not hexadecimal", field="frame") from None


def _drop_rows(drops: Mapping[Any, int]) -> list[Json]:
    rows = sorted(drops.items(), key=lambda item: -item[1])
    return [
        {"port": str(port_id) if port_id else None, "reason": reason.name, "packets": packets}
        for (port_id, reason), packets in rows
    ]


def _delivery_row(entry: Delivery) -> Json:
    return {"number": entry.number, "portId": str(entry.port_id), "frame": entry.frame.hex()}


def _bounded(wait_s: float) -> float:
    if not 0 <= wait_s <= _MAX_WAIT_S:
        raise UserError(f"waiting is possible for 0 to {_MAX_WAIT_S:g} s")
    return wait_s


def _decode(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"bad request body: {error}") from None
