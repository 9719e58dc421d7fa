"""What `simulate` returns."""

from __future__ import annotations

from dataclasses import dataclass

from midonet.agent.flow_state.connection import ConnectionKey
from midonet.agent.flow_state.effects import ConnectionEffect
from midonet.agent.flow_state.fragments import DatagramId
from midonet.agent.flow_state.sight import Sight
from midonet.agent.flow_state.source_choice import LeaseBlock
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import FlowProgram
from midonet.agent.simulation.trace import TraceStep
from midonet.agent.soft_state.lessons import LearnMac, LearnNeighbour, MoveBridgeNeighbour
from midonet.model.ids import ObjectId, PortId, RouterId
from midonet.packets.addresses import IpAddress


@dataclass(frozen=True, slots=True)
class GeneratedPacket:
    """A frame that a device made; it leaves the virtual network's device by `egress`.

    The shell hands it to `simulate_generated`, which starts at the egress side of that port.
    router_id: of the router that has to route the packet first; `egress` is then where the
        question came from, the way back to a link-local address.
    sight: RELATED to the connection of the packet that it is about, or the packet's own when it
        is a part of it; None: it is a return packet of no connection.
    is_refusal: it tells a sender that its packet was refused.
    is_unfiltered: it leaves whatever the state and the filters of `egress`, a bound port.
    is_local: only copies for ports of this host are sent: every host makes the packet itself.
    """

    egress: PortId
    frame: bytes
    router_id: RouterId | None = None
    sight: Sight | None = None
    is_refusal: bool = False
    is_unfiltered: bool = False
    is_local: bool = False


@dataclass(frozen=True, slots=True)
class RefreshNeighbour:
    """Effect: an entry in use is stale; resolve it again while it stays in use."""

    router_id: RouterId
    port_id: PortId
    address: IpAddress


Effect = LearnMac | LearnNeighbour | RefreshNeighbour | MoveBridgeNeighbour | ConnectionEffect


@dataclass(frozen=True, slots=True)
class Forward:
    """The packet leaves by the outputs of `program`. `generated` goes out beside it."""

    program: FlowProgram
    effects: tuple[Effect, ...] = ()
    generated: tuple[GeneratedPacket, ...] = ()
    steps: tuple[TraceStep, ...] = ()


@dataclass(frozen=True, slots=True)
class Drop:
    """The packet ends here. `generated` is what the sender is told (ICMP error, TCP RST).

    A drop with `generated` packets carries a program with `slow_path` set: every such packet
    comes up, rate-limited at its port.
    """

    reason: DropReason
    program: FlowProgram
    effects: tuple[Effect, ...] = ()
    generated: tuple[GeneratedPacket, ...] = ()
    steps: tuple[TraceStep, ...] = ()


@dataclass(frozen=True, slots=True)
class Consume:
    """A device took the packet and answers with `generated`; nothing is installed."""

    generated: tuple[GeneratedPacket, ...]
    effects: tuple[Effect, ...] = ()
    steps: tuple[TraceStep, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadDevices:
    """Awaited: objects that the view does not hold yet."""

    object_ids: tuple[ObjectId, ...]


@dataclass(frozen=True, slots=True)
class ResolveNeighbour:
    """Awaited: the MAC of `address`, to be asked for out of `port_id` of `router_id`."""

    router_id: RouterId
    port_id: PortId
    address: IpAddress


@dataclass(frozen=True, slots=True)
class FetchConnection:
    """Awaited: what other hosts know of a connection."""

    key: ConnectionKey


@dataclass(frozen=True, slots=True)
class FetchFirstFragment:
    """Awaited: the first fragment of a datagram, which comes soon or not at all."""

    datagram: DatagramId


Awaited = LoadDevices | ResolveNeighbour | FetchConnection | FetchFirstFragment | LeaseBlock


@dataclass(frozen=True, slots=True)
class Await:
    """Not known yet. The shell obtains it and simulates again from the start; nothing was done."""

    what: Awaited
    steps: tuple[TraceStep, ...] = ()


SimulationResult = Forward | Drop | Consume | Await
