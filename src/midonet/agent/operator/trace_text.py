"""Trace steps as JSON and in the words that people read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, assert_never
from uuid import UUID

from midonet.agent.flow_state.connection import ConnectionKey, Endpoint
from midonet.agent.flow_state.sight import Sight
from midonet.agent.flow_state.zone import Zone
from midonet.agent.flows.program import LocalOutput, TunnelOutput
from midonet.agent.operator.balancing_text import BALANCING, describe_balancing
from midonet.agent.operator.connection_text import (
    describe_key,
    describe_sight,
    describe_tuple,
    format_endpoint,
)
from midonet.agent.operator.flow_text import describe_output
from midonet.agent.simulation.trace import (
    Answered,
    BeganConnection,
    BeganFilter,
    CheckedSource,
    ChoseRoute,
    Crossed,
    EndedConnection,
    EnteredOutput,
    EnteredPort,
    Flooded,
    FollowsCopy,
    FoundConnection,
    LeftPort,
    LookedUpClient,
    LookedUpMac,
    LookedUpNeighbour,
    MarkedDscp,
    MetRule,
    Mirrored,
    Redirected,
    Rewrote,
    TraceStep,
    Translated,
    Waits,
    WasDropped,
    WasTooLong,
)
from midonet.packets.addresses import IpVersion, format_ip, format_mac

Names = Mapping[UUID, str]
"""What an object is called, by id; objects without a name are missing."""

Json = dict[str, Any]

_MAC_FIELDS = frozenset(("eth_dst", "eth_src"))
_ADDRESS_FIELDS = frozenset(("ip_src", "ip_dst"))


def mentioned_ids(steps: Iterable[TraceStep]) -> set[UUID]:
    """Return the ids of all objects that steps speak of."""
    found: set[UUID] = set()
    for step in steps:
        for name in step.event.__dataclass_fields__:
            value = getattr(step.event, name)
            found.update(
                one
                for one in (value if isinstance(value, tuple) else (value,))
                if isinstance(one, UUID)
            )
    return found


def describe_step(step: TraceStep, names: Names, *, is_ipv6: bool) -> Json:
    """Return a step as JSON: `event`, `depth`, `text`, and the fields of the event by name."""
    event = step.event
    words = _Words(names, is_ipv6)
    kind = type(event).__name__
    if isinstance(event, _WAY):
        text = words.way(event)
    elif isinstance(event, BALANCING):
        text = describe_balancing(event, names)
    else:
        text = words.state(event) if isinstance(event, _STATE) else words.finding(event)
    fields = {
        _camel(name): words.plain(name, getattr(event, name)) for name in event.__dataclass_fields__
    }
    return {"event": kind[0].lower() + kind[1:], "depth": step.depth, "text": text, **fields}


_Way = (
    EnteredPort
    | CheckedSource
    | LeftPort
    | Flooded
    | Mirrored
    | FollowsCopy
    | Redirected
    | EnteredOutput
    | WasDropped
    | WasTooLong
    | Waits
)
_WAY = (
    EnteredPort,
    CheckedSource,
    LeftPort,
    Flooded,
    Mirrored,
    FollowsCopy,
    Redirected,
    EnteredOutput,
    WasDropped,
    WasTooLong,
    Waits,
)
_Finding = (
    BeganFilter
    | MetRule
    | Translated
    | MarkedDscp
    | LookedUpMac
    | LookedUpNeighbour
    | LookedUpClient
    | ChoseRoute
    | Rewrote
    | Answered
)
_State = FoundConnection | BeganConnection | EndedConnection | Crossed
_STATE = (FoundConnection, BeganConnection, EndedConnection, Crossed)


class _Words:
    """Says things of one packet. is_ipv6: how wide its addresses are."""

    def __init__(self, names: Names, is_ipv6: bool) -> None:
        self._names = names
        self._version = IpVersion.V6 if is_ipv6 else IpVersion.V4

    def way(self, event: _Way) -> str:
        """Return where the packet goes, in words."""
        match event:
            case EnteredPort(port_id, device_id):
                return f"enters {self._name(device_id)} by port {self._name(port_id)}"
            case CheckedSource(port_id, why):
                verdict = f"does not pass, {why}" if why else "passes"
                return f"port security of {self._name(port_id)}: {verdict}"
            case LeftPort(port_id):
                return f"leaves by port {self._name(port_id)}"
            case Flooded(_, port_ids):
                return f"floods to {len(port_ids)} ports"
            case Mirrored(point, owner_id, mirror_id, port_id):
                where = f"{point.value} {self._name(owner_id)}"
                to = f"copied to port {self._name(port_id)}"
                return f"{where}: {to} by mirror {self._name(mirror_id)}"
            case Redirected(rule_id, port_id, is_ingress):
                way = "enter" if is_ingress else "leave"
                return f"rule {rule_id} redirects it to {way} by port {self._name(port_id)}"
            case FollowsCopy(mirror_id, port_id):
                return f"copy of mirror {self._name(mirror_id)} to port {self._name(port_id)}:"
            case EnteredOutput(port_id, output):
                return f"output for port {self._name(port_id)}: {describe_output(output)}"
            case WasDropped(reason, place_id, object_id):
                because = f", because of {self._name(object_id)}" if object_id else ""
                return f"dropped at port {self._name(place_id)}: {reason.name}{because}"
            case WasTooLong(length, limit):
                return f"is {length} bytes long, the tunnel takes {limit}"
            case Waits():
                return f"waits for {_awaited(event)}"
            case _:
                assert_never(event)

    def finding(self, event: _Finding) -> str:
        """Return what a device found or did, in words."""
        match event:
            case BeganFilter(hook, owner_id, chain_id):
                return f"{hook.value} {self._name(owner_id)}: chain {self._name(chain_id)}"
            case MetRule(chain_id, rule_id, position, action, is_matching):
                verdict = f"matches: {action.value.upper()}" if is_matching else "does not match"
                return f"rule {position} {rule_id} of chain {self._name(chain_id)} {verdict}"
            case Translated(_, device_id, action, before, after, reason):
                why = f" ({reason})" if reason else ""
                owner = f" for {self._name(device_id)}"
                return f"{action.value.upper()}{owner}: {before} becomes {after}{why}"
            case MarkedDscp(_, policy_id, dscp):
                return f"marked with DSCP {dscp} by policy {self._name(policy_id)}"
            case LookedUpMac(_, vlan, mac, port_id):
                where = f" in VLAN {vlan}" if vlan else ""
                answer = f"behind port {self._name(port_id)}" if port_id else "unknown"
                return f"MAC table{where}: {format_mac(mac)} is {answer}"
            case LookedUpNeighbour(device_id, address, known):
                answer = "unknown" if known is None else f"at {format_mac(known)}"
                return f"neighbour table of {self._name(device_id)}: {address} is {answer}"
            case LookedUpClient(bridge_id, client, given):
                answer = "has no entry" if given is None else f"is given {given}"
                return f"DHCP of {self._name(bridge_id)}: client {client} {answer}"
            case ChoseRoute():
                return self._route(event)
            case Rewrote(_, "ttl", before, after):
                return f"ttl -{after - before}"
            case Rewrote(_, field, before, after):
                return f"{field} {self._value(field, before)} -> {self._value(field, after)}"
            case Answered(port_id, answer):
                return f"answers by port {self._name(port_id)}: {answer}"
            case _:
                assert_never(event)

    def state(self, event: _State) -> str:
        """Return what the packet is to the connections that are known, in words."""
        match event:
            case FoundConnection(key, sight):
                where = f"in zone {self._zone(key.zone)}"
                if sight.connection is None:
                    return (
                        f"connection of {describe_tuple(key.tuple)} {where}: {sight.standing.value}"
                    )
                way = "return" if sight.is_return else "forward"
                began = describe_tuple(sight.connection.forward.tuple)
                return f"connection {began} {where}: {sight.standing.value}, {way}"
            case BeganConnection(forward, returns):
                zones = ", ".join(self._zone(key.zone) for key in returns)
                return f"begins connection {describe_tuple(forward.tuple)}, answers in zone {zones}"
            case EndedConnection(forward, is_dead):
                why = "its answers would lead elsewhere" if is_dead else "policy forbids it"
                return f"connection {describe_tuple(forward.tuple)} is over: {why}"
            case Crossed(source, destination, new_source, new_destination):
                return f"{source} > {destination} becomes {new_source} > {new_destination}"
            case _:
                assert_never(event)

    def _zone(self, zone: Zone) -> str:
        vlan = f" VLAN {zone.vlan}" if zone.vlan else ""
        return f"{self._name(zone.scope)}{vlan}"

    def plain(self, name: str, value: object) -> object:
        """Return a field of an event as JSON has it."""
        if isinstance(value, ConnectionKey):
            return describe_key(value)
        if isinstance(value, Sight):
            return describe_sight(value)
        if isinstance(value, Endpoint):
            return format_endpoint(*value)
        if isinstance(value, tuple):
            return [self.plain(name, one) for one in value]
        if isinstance(value, Enum):
            return value.name
        if name == "mac" and isinstance(value, int):
            return format_mac(value)
        if isinstance(value, LocalOutput | TunnelOutput):
            return describe_output(value)
        return value if isinstance(value, int | str | None) else str(value)

    def _route(self, event: ChoseRoute) -> str:
        by = f" via {event.gateway}" if event.gateway else ""
        to = f" by port {self._name(event.next_hop_port_id)}" if event.next_hop_port_id else ""
        among = f", one of {event.candidates} equal ones" if event.candidates > 1 else ""
        route = f"route {event.destination} ({event.route_id}): {event.kind.value}"
        return f"{route}{by}{to}{among}"

    def _name(self, object_id: UUID | None) -> str:
        if object_id is None:
            return "nothing"
        name = self._names.get(object_id)
        return str(object_id) if name is None else f"{name} ({object_id})"

    def _value(self, field: str, value: int) -> str:
        if field in _MAC_FIELDS:
            return format_mac(value)
        if field not in _ADDRESS_FIELDS:
            return str(value)
        # A packet may have become one of the other version.
        return format_ip(IpVersion.V6 if value >> 32 else self._version, value)


def _awaited(event: Waits) -> str:
    if event.connection is not None:
        return f"what other hosts know of {describe_tuple(event.connection.tuple)}"
    if event.is_fragment:
        return "the first fragment of its datagram"
    if event.is_port:
        return f"a lease of ports of {event.address}"
    if event.address is not None:
        return f"the MAC of {event.address}"
    return f"{len(event.object_ids)} objects to load"


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
