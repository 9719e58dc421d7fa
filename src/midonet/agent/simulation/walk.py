"""The walk of one packet: where it is, what it has gathered, and what may come next.

A walk goes from port to port. Each step (a port, a bridge, a router) looks at the walk, enters
what it consulted and returns an outcome; `midonet.agent.simulation.simulate` runs the steps
until no branch is left. A walk has three parts: its `Inputs`, which never change; the `Branch`
that is being followed; the `Findings` of all branches together.

Viewpoint: ingress is into a device from a port, egress out of a device by a port.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from midonet.agent.flow_state.allocations import Allocation
from midonet.agent.flow_state.connection import Binding
from midonet.agent.flow_state.fragments import NO_FRAGMENTS, FragmentReader
from midonet.agent.flow_state.nat_reader import ALL_FREE, NatReader
from midonet.agent.flow_state.reader import NO_CONNECTIONS, ConnectionReader
from midonet.agent.flow_state.sight import Sight
from midonet.agent.flows.drop_reason import DropReason
from midonet.agent.flows.program import LearnedMac, Output, Rewrite, SlowPathReason
from midonet.agent.flows.tags import FlowTag, RouteRegion, TagKind, connection_tag
from midonet.agent.simulation.header import Header
from midonet.agent.simulation.result import (
    Await,
    Effect,
    GeneratedPacket,
    LoadDevices,
)
from midonet.agent.simulation.sighting import (
    RETURN_SIGHT,
    Known,
    Observation,
    observe,
    record_read,
)
from midonet.agent.simulation.trace import FoundConnection, TraceEvent, TraceStep, rewrites
from midonet.agent.soft_state.reading import SoftState
from midonet.agent.topology.balancing import LoadBalancerView
from midonet.agent.topology.view import (
    BridgeView,
    MirrorView,
    PortView,
    RouterView,
    TopologyView,
)
from midonet.model.ids import BridgeId, LoadBalancerId, ObjectId, PortId, RouterId
from midonet.packets.frame import ParsedFrame

MAX_DEVICES = 12
"""Devices that one packet may traverse on one way."""

# What one packet may cost in all, whatever the network. Past a bound the whole packet is dropped
# by name: half a flood would be worse to find than none. The numbers leave a packet of the
# largest sensible network a wide margin, and keep the worst one below some tenths of a second.

MAX_DEVICES_ENTERED = 1024
"""Devices that all copies of one packet may enter together."""

MAX_BRANCHES = 4096
"""Copies of one packet that may be followed."""

MAX_OUTPUTS = 1024
"""Outputs of one packet, a flood group counted once: what a program has room for."""

MAX_RULES = 100_000
"""Rules that one packet may meet. The chain that is begun below the bound is gone through."""

MAX_COPIES = 1024
"""Copies that mirrors may make of one packet, copies of copies included. Past it none is sent; the
packet itself goes its way."""

MAX_GENERATED = 128
"""Frames that devices may make because of one packet; further answers are left out."""


@dataclass(frozen=True, slots=True)
class ToIngress:
    """The packet enters the device of `port`.

    is_bounced: it was to leave by the port, which serves nobody, and enters as if it had come
    back: it does not matter that the port is down.
    """

    port: PortView
    is_bounced: bool = False


@dataclass(frozen=True, slots=True)
class ToEgress:
    """The packet leaves its device by `port`."""

    port: PortView


@dataclass(frozen=True, slots=True)
class ToRedirected:
    """A rule lets the packet leave by `port`, past what that port filters.

    fail_open: if nobody is there it enters by the port instead.
    """

    port: PortView
    fail_open: bool


@dataclass(frozen=True, slots=True)
class ToFlood:
    """The packet leaves `bridge` by each of `ports`."""

    bridge: BridgeView
    ports: tuple[PortView, ...]


@dataclass(frozen=True, slots=True)
class Dropped:
    """This branch ends. is_final: so do all others, and nothing of the packet is left.

    object_id: what made it end, for people: the rule, the route, the device that is missing.
    """

    reason: DropReason
    is_final: bool = False
    object_id: ObjectId | None = None


class Ended(Enum):
    """This branch is done."""

    DELIVERED = "delivered"  # an output was entered
    TAKEN = "taken"  # a device consumed the packet


Outcome = ToIngress | ToEgress | ToRedirected | ToFlood | Dropped | Ended | Await
Refusal = Dropped | Await
"""What a lookup says instead of finding something."""

HookOutcome = Outcome | None
"""What a hook makes of a packet. None lets it go on, perhaps with other headers and with copies
under way (`Walk.follow`); anything else is what becomes of it instead."""


@dataclass(frozen=True, slots=True)
class RouterVisit:
    """The last router on the way: where the packet entered it, and how it looked then.

    egress: set once the router has sent the packet on; `egress_header` is how it looked then.
    """

    port: PortView
    header: Header
    egress: PortView | None = None
    egress_header: Header | None = None


@dataclass(frozen=True, slots=True)
class PortOutput:
    """An output with where it came from, for grouping floods. copy: see `Branch`."""

    port: PortView
    output: Output
    flooded_by: BridgeId | None
    copy: int = 0


@dataclass(slots=True)
class Branch:
    """What one branch of the way changes.

    ingress_port, egress_port: of the device whose filters are evaluated.
    devices: number of devices entered. choices: of ECMP choices made.
    flooded_by: the bridge whose flood this branch is, until it enters another device.
    traversed: the ports that were passed, and the devices that were entered, in order.
    device_id: of the filter that is evaluated, or was last; it owns what its rules translate.
    dst_rewritten: a rule of NAT has changed the destination since the last port was entered.
    exterior_port: the last bound port by which the packet entered a device.
    bindings: translations of the packet's connection on its forward way, in order, whether they
        were chosen now or before. allocations: end points to be reserved for those chosen now.
    entered: when tracing, the header as it was where the present device was entered.
    copy: ordinal number of the copy of a mirror that this is a branch of; 0 is the packet itself.
    """

    header: Header
    ingress_port: PortView | None = None
    egress_port: PortView | None = None
    devices: int = 0
    choices: int = 0
    router: RouterVisit | None = None
    flooded_by: BridgeId | None = None
    entered: tuple[int, ...] | None = None
    traversed: tuple[ObjectId, ...] = ()
    device_id: ObjectId | None = None
    exterior_port: PortView | None = None
    dst_rewritten: bool = False
    copy: int = 0
    bindings: tuple[Binding, ...] = ()
    allocations: tuple[Allocation, ...] = ()

    def fork(self, flooded_by: BridgeId | None) -> Branch:
        """Return a branch that starts where this one is."""
        return Branch(
            self.header.copy(),
            self.ingress_port,
            None,
            self.devices,
            self.choices,
            self.router,
            flooded_by,
            self.entered,
            self.traversed,
            exterior_port=self.exterior_port,
            copy=self.copy,
            bindings=self.bindings,
            allocations=self.allocations,
        )


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a simulation is about, and what it may ask. Never changed.

    ingress: the port where the packet entered the virtual network; of a generated packet, the
        port by which its device sent it. is_generated: a device made the packet.
    now: seconds on a monotonic clock.
    connections, fragments: those that are known. nat: end points that are free.
    sight: of a generated packet: that of what it is about, or
        of which it is a part; None: it is a return packet of no connection.
    """

    view: TopologyView
    soft_state: SoftState
    packet: ParsedFrame
    ingress: PortId
    now: float
    is_generated: bool = False
    connections: ConnectionReader = NO_CONNECTIONS
    nat: NatReader = ALL_FREE
    fragments: FragmentReader = NO_FRAGMENTS
    sight: Sight | None = None


@dataclass(slots=True)
class Findings:
    """What all branches of a walk gather together: it grows, and no branch reads another's.

    tags, regions: facts that were consulted. max_length, ttl_above: guards. taken: a device
    consumed the packet. slow_path: why the outcome holds for this packet only.
    branches, devices, rules: how many there were, against their bounds.
    observation: of the packet's connection, once it was asked for.
    fragmented: where the packet leaves in fragments that are made on the way: port and rewrite.
    bindings, allocations: of the branches that left.
    tcp_flags_clear: a guard.
    seen: bridges passed, with the VLAN, the copy, and how the frame was rewritten there.
    steps: for people; None when nobody asked.
    """

    tags: list[FlowTag] = field(default_factory=list)
    regions: list[RouteRegion] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
    generated: list[GeneratedPacket] = field(default_factory=list)
    outputs: list[PortOutput] = field(default_factory=list)
    learned: dict[tuple[BridgeId, int, int], LearnedMac] = field(default_factory=dict)
    drops: list[DropReason] = field(default_factory=list)
    taken: bool = False
    max_length: int | None = None
    ttl_above: int = 0
    tcp_flags_clear: int = 0
    observation: Observation | None = None
    fragmented: list[tuple[PortView, Rewrite]] = field(default_factory=list)
    bindings: dict[Binding, None] = field(default_factory=dict)
    allocations: dict[Allocation, None] = field(default_factory=dict)
    slow_path: SlowPathReason | None = None
    branches: int = 1
    devices: int = 0
    rules: int = 0
    seen: set[tuple[BridgeId, int, int, tuple[int, ...]]] = field(default_factory=set)
    steps: list[TraceStep] | None = None

    def give_up(self, reason: DropReason) -> None:
        """Drop all that was found, with everything that it has led to so far."""
        self.drops = [reason]
        self.outputs, self.generated, self.effects, self.learned = [], [], [], {}
        self.fragmented, self.bindings, self.allocations = [], {}, {}
        self.taken = False

    def add_copies(self, copies: Findings) -> None:
        """Take in where copies of mirrors go, and what that depends on.

        What they would teach or begin, why they end, and what devices would answer to them is
        left out: a copy is for who looks at it, and must not change what becomes of the packet.
        """
        self.tags += copies.tags
        self.regions += copies.regions
        self.outputs += copies.outputs
        self.ttl_above = max(self.ttl_above, copies.ttl_above)
        limits = [one for one in (self.max_length, copies.max_length) if one is not None]
        self.max_length = min(limits, default=None)
        self.slow_path = self.slow_path or copies.slow_path
        self.tcp_flags_clear |= copies.tcp_flags_clear


@dataclass(frozen=True, slots=True)
class WaitingCopy:
    """A copy that a mirror has made and that is still to be followed."""

    branch: Branch
    mirror: MirrorView


class Walk:
    """One simulation: its inputs, the branch that is being followed, and the findings of all.

    header: that of the branch. waiting: the branches still to be followed, the next one last.
    copies: those of mirrors, to be followed when the packet's own way is known to its end.
    copies_made: how many there were so far.
    """

    __slots__ = ("branch", "copies", "copies_made", "findings", "header", "inputs", "waiting")

    def __init__(self, inputs: Inputs, *, trace: bool) -> None:
        self.inputs = inputs
        self.header = Header.from_key(inputs.packet.key)
        self.branch = Branch(self.header)
        self.waiting: list[tuple[Branch, PortView]] = []
        self.copies: deque[WaitingCopy] = deque()
        self.copies_made = 0
        self.findings = Findings(steps=[] if trace else None)

    def follow(self, ports: Sequence[PortView], flooded_by: BridgeId | None) -> Dropped | None:
        """Let a copy of the packet, as it is now, leave its device by each of `ports` later.

        flooded_by: the bridge whose flood these copies are. Return the end of the packet when
        there would be too many.
        """
        self.findings.branches += len(ports)
        if self.findings.branches > MAX_BRANCHES:
            return Dropped(DropReason.COPY_LIMIT, is_final=True)
        self.waiting.extend((self.branch.fork(flooded_by), port) for port in reversed(ports))
        return None

    def next_branch(self) -> PortView | None:
        """Go on with the next branch; return the port by which it leaves, None if none is left."""
        if not self.waiting:
            return None
        self.branch, port = self.waiting.pop()
        self.header = self.branch.header
        return port

    def follow_copy(self, mirror: MirrorView) -> None:
        """Let a copy of the packet, as it is now, leave by the port of a mirror later."""
        self.copies_made += 1
        if self.copies_made > MAX_COPIES:
            return  # whoever follows the copies gives them all up
        branch = self.branch.fork(None)
        branch.copy = self.copies_made
        branch.devices += 1
        self.copies.append(WaitingCopy(branch, mirror))

    def next_copy(self) -> MirrorView | None:
        """Go on with the next copy of a mirror; return the mirror, None if no copy is left."""
        if not self.copies:
            return None
        waiting = self.copies.popleft()
        self.branch, self.header = waiting.branch, waiting.branch.header
        return waiting.mirror

    def give_up(self, reason: DropReason) -> None:
        """Drop the packet as a whole, or the copies of mirrors when one of them is followed."""
        self.waiting.clear()
        self.copies.clear()
        self.findings.give_up(reason)

    def is_repeated(self, bridge_id: BridgeId, vlan: int) -> bool:
        """Note that this frame passes a bridge in a VLAN; tell whether it has done so before.

        A frame that comes back unchanged has gone round a loop of bridges.
        """
        place = bridge_id, vlan, self.branch.copy, self.header.written()
        if place in self.findings.seen:
            return True
        self.findings.seen.add(place)
        return False

    # The connection.

    def sight(self) -> Sight:
        """Return what the packet is to the connections that are known; recorded when first asked.

        It is one for all branches, and follows from the packet as it entered.
        """
        observed = self.findings.observation
        if observed is None:
            observed = self.findings.observation = self._observe()
        return observed.sight

    def _observe(self) -> Observation:
        inputs, findings = self.inputs, self.findings
        port = inputs.view.ports.get(inputs.ingress)
        if inputs.is_generated or port is None:
            return Observation(inputs.sight or RETURN_SIGHT)
        known = Known(inputs.connections, inputs.fragments)
        observed = observe(known, inputs.packet, port, inputs.now)
        record_read(inputs.packet, observed.key is not None, self.header.mask)
        findings.tcp_flags_clear = observed.tcp_flags_clear
        if observed.key is not None:
            findings.tags.append(connection_tag(observed.key))
        if observed.is_single and findings.slow_path is None:
            findings.slow_path = SlowPathReason.CONNECTION
        if findings.steps is not None and observed.key is not None:
            self.step(FoundConnection(observed.key, observed.sight))
        return observed

    def note_leaving(self) -> None:
        """Enter the translations of a branch that leaves: they are its connection's."""
        self.findings.bindings |= dict.fromkeys(self.branch.bindings)
        self.findings.allocations |= dict.fromkeys(self.branch.allocations)

    # Lookups. A referent that does not exist fails closed; one not loaded is awaited.

    def port(self, port_id: PortId) -> PortView | Refusal:
        """Return a port and note that its configuration matters."""
        self.findings.tags.append(FlowTag(TagKind.DEVICE, port_id))
        port = self.inputs.view.ports.get(port_id)
        return self.unavailable(port_id, DropReason.MISSING_DEVICE) if port is None else port

    def bridge(self, bridge_id: BridgeId) -> BridgeView | Refusal:
        """Return a bridge and note that its configuration matters."""
        self.findings.tags.append(FlowTag(TagKind.DEVICE, bridge_id))
        bridge = self.inputs.view.bridges.get(bridge_id)
        return self.unavailable(bridge_id, DropReason.MISSING_DEVICE) if bridge is None else bridge

    def router(self, router_id: RouterId) -> RouterView | Refusal:
        """Return a router and note that its configuration matters."""
        self.findings.tags.append(FlowTag(TagKind.DEVICE, router_id))
        router = self.inputs.view.routers.get(router_id)
        return self.unavailable(router_id, DropReason.MISSING_DEVICE) if router is None else router

    def balancer(self, balancer_id: LoadBalancerId) -> LoadBalancerView | Refusal:
        """Return a load balancer and note that its configuration matters."""
        self.findings.tags.append(FlowTag(TagKind.DEVICE, balancer_id))
        found = self.inputs.view.balancers.get(balancer_id)
        return self.unavailable(balancer_id, DropReason.MISSING_DEVICE) if found is None else found

    def unavailable(self, object_id: ObjectId, reason: DropReason) -> Refusal:
        """Return what to say of an object that the view does not hold."""
        if object_id in self.inputs.view.absent:
            return Dropped(reason, object_id=object_id)
        return Await(LoadDevices((object_id,)))

    # For people. Callers test `steps` first, so that nothing is built in vain.

    def step(self, event: TraceEvent) -> None:
        """Enter a trace step."""
        if self.findings.steps is not None:
            self.findings.steps.append(TraceStep(self.branch.devices, event))

    def note_entry(self) -> None:
        """Remember how the packet looks where it enters a device."""
        self.branch.entered = (*self.header.values, self.header.ttl_decrement)

    def note_rewrites(self, device_id: ObjectId) -> None:
        """Enter a step for each field that a device has changed."""
        branch = self.branch
        now = (*self.header.values, self.header.ttl_decrement)
        for event in rewrites(device_id, branch.entered or now, now):
            self.step(event)
        branch.entered = now
