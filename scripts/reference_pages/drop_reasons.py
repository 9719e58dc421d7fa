"""`docs/reference/drop-reasons.md`: from the enumeration, and what to do about each reason."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from midonet.agent.flows import drop_reason
from midonet.agent.flows.drop_reason import DropReason
from scripts.reference_pages.tables import code, table

ADVICE: dict[DropReason, str] = {
    DropReason.MALFORMED: "Capture at the interface; the sender, or its offload settings, builds"
    " broken packets. Nothing to configure here.",
    DropReason.UNKNOWN_INGRESS_PORT: "The port was deleted or unbound while packets were under"
    " way. If it goes on, compare `midonet state` with the port's `hostId` and `interfaceName`.",
    DropReason.LOOP_LIMIT: "The packet goes in a circle, or the chain of devices is too long:"
    " look for linked bridges or routers that form a loop. Copies that come round a loop of bridges"
    " end silently where one that did not was delivered.",
    DropReason.PORT_DOWN: "Set `adminStateUp` of the port.",
    DropReason.DEVICE_DOWN: "Set `adminStateUp` of the bridge or router.",
    DropReason.PORT_UNPLUGGED: "Bind the port to an interface, link it to another port, or remove"
    " the route or MAC entry that leads to it.",
    DropReason.MISSING_DEVICE: "Passes by itself while a new topology arrives. If it stays, look"
    " in the agent's log for an object that does not parse.",
    DropReason.MISSING_CHAIN: "A port, bridge, router or jump rule names a chain that cannot be"
    " read; all of it is dropped until then. Look in the agent's log, then set the filter anew.",
    DropReason.MISSING_GROUP: "A rule names a port group or address group that does not exist:"
    " correct the rule.",
    DropReason.OFFLOAD_MISMATCH: "A virtual machine or a raw socket asks the kernel to write a"
    " checksum, or to cut segments, where its headers have none: an attack, or a broken driver."
    " Switch the sender's transmit offloads off to tell.",
    DropReason.FILTERED: "A rule of a filter on the way matched; `midonet flows` shows which"
    " fields were looked at. Change the chain if the packet should pass.",
    DropReason.REJECTED: "As FILTERED, or a `Reject` route; the sender was told by ICMP or a TCP"
    " reset.",
    DropReason.CHAIN_LIMIT: "Chains jump to chains too deep: flatten them.",
    DropReason.SPOOFED_MAC: "Add the MAC to the port's `allowedAddressPairs` if the machine may use"
    " it; `midonet trace` says more.",
    DropReason.SPOOFED_ADDRESS: "Add the MAC with this address to the port's"
    " `allowedAddressPairs` if the machine may use it.",
    DropReason.SPOOFED_NEIGHBOUR: "Add the MAC with the address that it claims to the port's"
    " `allowedAddressPairs` if it may; a machine that claims others' addresses diverts their"
    " traffic.",
    DropReason.UNTRUSTED_SERVER: "Set `portSecurityEnabled` to false where a DHCP server or"
    " router of yours is bound; elsewhere this is what it is for.",
    DropReason.SOURCE_MAC_MULTICAST: "The sender is misconfigured or forges frames.",
    DropReason.HAIRPIN: "Normal for frames that a switch behind the port flooded. If hosts behind"
    " one port cannot talk, their own switch must connect them.",
    DropReason.VLAN_MISMATCH: "Compare `vlanId` of the bridge's ports with the tags in use; a"
    " second tag is not supported.",
    DropReason.NO_FLOOD_TARGET: "The bridge has no other port that is bound or linked.",
    DropReason.NOT_REDIRECTED: "Normal: floods and strays do not reach the service behind the port."
    " What it is to see is said by L2 insertions.",
    DropReason.SERVICE_DOWN: "Bring the service port up (`active`), or let the insertion or rule"
    " fail open.",
    DropReason.LINK_LOCAL_FRAME: "Normal: spanning tree, pause, LACP, 802.1X and LLDP end at the"
    " first bridge, and a virtual bridge takes part in none of them.",
    DropReason.DHCP_NOT_SERVED: "A machine sends what only DHCP servers and relays do, or a type of"
    " message that does not exist: an attack, or a server in a virtual machine on a subnet that the"
    " bridge serves itself.",
    DropReason.NOT_FOR_ROUTER: "Normal for broadcast and multicast at a router port. Else the"
    " sender has a wrong MAC for its gateway, or asks for an address outside the port's subnet.",
    DropReason.UNSUPPORTED_ETHERTYPE: "Routers carry IPv4 and IPv6 without VLAN tag; for anything"
    " else, use a bridge.",
    DropReason.NO_ROUTE: "Add a route to the router. Its port may be down or not active: only"
    " usable routes count.",
    DropReason.BLACKHOLE_ROUTE: "Intended by whoever made the route.",
    DropReason.TTL_EXCEEDED: "Normal for traceroute. Else look for a routing loop.",
    DropReason.LOCAL_NOT_HANDLED: "The router answers echo requests only; nothing else listens at"
    " its addresses.",
    DropReason.NEIGHBOUR_UNRESOLVED: "The next hop is down, is not on that subnet, or its answers"
    " are filtered: ping it from a machine on the same bridge.",
    DropReason.NO_PORT_ADDRESS: "Give the router port an address (`portSubnet`) of the IP version"
    " that the route needs.",
    DropReason.MTU_EXCEEDED: "The sender was told (ICMP). If it does not react, ICMP is filtered"
    " on the way: lower its MTU to what the overlay takes, or raise that of the underlay.",
    DropReason.SOURCE_ADDRESS_INVALID: "The sender is misconfigured or forges packets.",
    DropReason.DESTINATION_ADDRESS_INVALID: "The sender is misconfigured: 0/8, 127/8, 169.254/16,"
    " 240/4, ::, ::1, ::ffff:0:0/96 and the broadcast address of a subnet are not routed.",
    DropReason.NO_POOL_MEMBER: "Every member of the pool is down, found ill by its health monitor"
    " or of weight 0, or the pool itself is down: see `status`, `weight` and `adminStateUp` of its"
    " members.",
    DropReason.BALANCING_ENDED: "A VIP, member or pool was removed or set down while connections"
    " ran. TCP clients were reset and connect anew; nothing to do. To let connections end by"
    " themselves set `adminStateUp` of the member to false and remove it later.",
    DropReason.NO_LOCATION: "The agent of the host to which the port is bound does not run, or the"
    " interface does not exist there: `midonet state` at that host.",
    DropReason.NO_TUNNEL: "Put both hosts into one tunnel zone, with addresses of one IP version.",
    DropReason.UNKNOWN_TUNNEL_KEY: "A few are normal just after a port moved or was unbound. If it"
    " goes on, the sending agent has lost the state database: `midonet state` there.",
    DropReason.UNKNOWN_PEER: "Something that is not in a tunnel zone with this host sends overlay"
    " packets here: add it to the zone, or find out who it is. Behind NAT overlays do not work.",
    DropReason.OVERLAY_MALFORMED: "Something else uses the overlay's UDP port or GRE, or the"
    " underlay fragments: check `vxlan_port` on all hosts and the MTU of the path.",
    DropReason.UNDERLAY_SPOOF: "A tenant sends to the underlay address of a host: by an uplink of a"
    " router, or an overlay packet from any port. No rule allows it; if the host offers a service"
    " to tenants, give it another address for that.",
    DropReason.OVERLAY_STRAY: "Overlay packets arrive where no peer sends them: at an interface"
    " that leads to no peer, at another address of this host, to a group. Find out who sends them:"
    " it is either a wrong address in a tunnel zone or an attack.",
    DropReason.UPCALL_RATE: "The port sends more new kinds of packets than its budget (5000 a"
    " second, bursts of 1000): a scan, or a forged flood. Other ports are not affected.",
    DropReason.UPCALL_RING_FULL: "The agent gets more new kinds of packets than it decides on:"
    " look for the port with most drops, and for a starved agent process.",
    DropReason.AWAIT_TIMEOUT: "Mostly a next hop that does not answer; else the state database is"
    " away: `midonet state` says so.",
    DropReason.AWAIT_QUEUE_FULL: "As AWAIT_TIMEOUT, with more packets waiting than the limit (128"
    " a port, 4096 in all).",
    DropReason.INTERFACE_GONE: "Passes by itself when an interface is removed under traffic. The"
    " port is attached again when an interface of that name comes back.",
    DropReason.INTERNAL: "A fault of the product. The agent's log has a line `packet_failed` with"
    " the error and the bytes of the packet: report it with that line.",
    DropReason.ENCAP_FAILED: "There is no route to the peer in the underlay, or the outer packet"
    " is larger than its interface takes: check both on this host.",
    DropReason.PORT_NOT_ATTACHED: "Passes by itself while a port is attached or moves away. If it"
    " stays, the interface of the port is missing: `midonet state`.",
    DropReason.REWRITE_FAILED: "The frame is too short or cut where a header must be changed;"
    " capture it at the ingress interface and report it.",
    DropReason.UPCALL_TOO_OLD: "The agent was away, stood still, or could not read the topology for"
    " longer; the sender sends again. Look at its log when it goes on.",
    DropReason.NOT_UNDERSTOOD: "The agent and the kernel program are of different builds: restart"
    " the agent, so that it loads its own.",
    DropReason.COPY_RATE: "Something at the port floods: broadcasts, or unicast to MACs that nobody"
    " has. Find it by `midonet flows`; the budget is 200,000 copies a second.",
    DropReason.UNSETTLED: "Passes by itself while the topology or learnt entries change quickly. If"
    " it goes on, look for a MAC or an address that two machines claim.",
    DropReason.PACKET_CUT: "A packet of more than 2048 bytes met a decision that holds for it alone"
    " (its hop limit, its length, an answer). Its sender repeats it; if it goes on, report it.",
    DropReason.NOT_REINJECTED: "Passes by itself while programs are replaced quickly, or the port"
    " is being detached. If it goes on, look for `install_refused` in the agent's log.",
    DropReason.OUTPUT_GONE: "Passes by itself: ports were moved or unbound under traffic.",
    DropReason.INJECTION_FAILED: "The host is out of socket memory, or the agent's own device is"
    " gone: see `dmesg` and the agent's log, then restart the agent.",
    DropReason.COPY_LIMIT: "A flood reaches more than 1024 ports and hosts, or more than 4096 ports"
    " in all: divide the bridges that are linked with each other.",
    DropReason.RULE_LIMIT: "The filters on the way of one packet, copies included, have more than"
    " 100,000 rules: shorten the chains of ports to which bridges flood.",
    DropReason.GENERATED_LIMIT: "Answers of devices lead to further answers: look for filters that"
    " reject what devices send, and for packets that many routers fragment.",
    DropReason.CONNECTION_LIMIT: "The port has begun as many connections as it may, all of them"
    " answered, or its address and ports are those of another's connection: look for a machine"
    " that scans, and for two with one address (`midonet connections`).",
    DropReason.REFUSAL_RATE: "Counted beside the refusal itself. A sender at the port does not stop"
    " though it is refused: a scan, or a machine that ignores errors (500 a second are told).",
    DropReason.NAT_EXHAUSTED: "All ports of the rule's targets are in use towards this"
    " destination, or no further ones can be leased while the state database is away: give the rule"
    " more addresses, or a wider range of ports (`midonet trace` names the rule).",
    DropReason.CONNECTION_UNKNOWN: "A rule would have to translate the middle of a conversation"
    " that no host knows, as after a restart: the sender will try again, or has to be restarted.",
    DropReason.FRAGMENT_UNKNOWN: "The first fragment of the datagram was dropped or lost, or came"
    " more than a quarter of a second later: see what else is dropped at this port.",
    DropReason.FAMILY_UNTRANSLATABLE: "A router with `nat64Prefix` got a fragment, an error about"
    " nobody's packet, or another protocol than TCP, UDP and ICMP echo for IPv4.",
    DropReason.FRAGMENT_INVALID: "Fragments of one datagram contradict each other, as no sender"
    " makes them: look for a faulty or hostile machine behind the port.",
}
"""What an operator does about each reason."""

_MEMBER = re.compile(r"^    ([A-Z_]+) = (\d+)  # (.+)$")
_GROUP = re.compile(r"^    # (.+)\.$")


@dataclass(frozen=True, slots=True)
class Described:
    """A reason with the comment beside it in the source and the heading above it."""

    reason: DropReason
    meaning: str
    group: str


def described() -> list[Described]:
    """Return every reason that the source describes, in its order."""
    found: list[Described] = []
    group = ""
    for line in inspect.getsource(drop_reason).splitlines():
        heading, member = _GROUP.match(line), _MEMBER.match(line)
        if heading:
            group = heading[1]
        elif member:
            found.append(Described(DropReason[member[1]], member[3], group))
    return found


def reasons() -> str:
    """Return a table for each group."""
    parts: list[str] = []
    groups = dict.fromkeys(each.group for each in described())
    for group in groups:
        rows = [
            (str(each.reason.value), code(each.reason.name), each.meaning, ADVICE[each.reason])
            for each in described()
            if each.group == group
        ]
        parts.append(f"## {group}\n\n{table(('number', 'name', 'meaning', 'what to do'), rows)}")
    return "\n\n".join(parts)
