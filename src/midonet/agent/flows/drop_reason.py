"""The closed list of reasons to drop a packet, shared with the kernel program, metrics and docs.

Numbers are never reused. `bpf/include/midonet_abi.h` carries the same list; a test compares them.
"""

from __future__ import annotations

from enum import IntEnum


class DropReason(IntEnum):
    """Why a packet was dropped."""

    # Parsing and entry.
    MALFORMED = 1  # a header is truncated, contradicts itself, or is read differently by receivers
    UNKNOWN_INGRESS_PORT = 2  # no virtual port is bound where the packet entered
    LOOP_LIMIT = 3  # more than 12 devices on one way, or the frame came round a loop of bridges
    PORT_DOWN = 4  # a port on the way is administratively down
    DEVICE_DOWN = 5  # a bridge or router on the way is administratively down
    PORT_UNPLUGGED = 6  # the egress port is neither bound nor linked
    MISSING_DEVICE = 7  # a referenced device does not exist
    MISSING_CHAIN = 8  # a filter or a jump names a chain that does not exist
    MISSING_GROUP = 9  # a condition names a group that does not exist
    OFFLOAD_MISMATCH = 13  # the checksum or segments left to a device are not its headers'
    # Policy.
    FILTERED = 10  # a rule says drop
    REJECTED = 11  # a rule or a REJECT route says reject
    CHAIN_LIMIT = 12  # chains nested too deep
    SPOOFED_MAC = 14  # port security: the source MAC is not one of the port's
    SPOOFED_ADDRESS = 15  # port security: the source address is not one of the MAC's
    SPOOFED_NEIGHBOUR = 16  # port security: ARP or neighbour discovery speaks for another machine
    UNTRUSTED_SERVER = 17  # port security: it answers DHCP clients, or speaks as a router
    # Bridge.
    SOURCE_MAC_MULTICAST = 20  # the frame claims a group address as its source
    HAIRPIN = 21  # the destination is behind the port the frame came in by
    VLAN_MISMATCH = 22  # the tag does not match the VLAN of the egress port
    NO_FLOOD_TARGET = 23  # a flood has no other port to go to
    LINK_LOCAL_FRAME = 24  # a group address that no bridge relays (01-80-C2-00-00-00 to 0F)
    DHCP_NOT_SERVED = 25  # a DHCP client sends a message of a type that is no client's
    NOT_REDIRECTED = 26  # a service port takes only what a rule redirects to it
    SERVICE_DOWN = 27  # a rule redirects to a port that is down or inactive, and not to fail open
    # Router.
    NOT_FOR_ROUTER = 30  # the destination MAC is not that of the router port
    UNSUPPORTED_ETHERTYPE = 31  # routers take IPv4, IPv6 and ARP, untagged
    NO_ROUTE = 32  # no route matches
    BLACKHOLE_ROUTE = 33  # a BLACKHOLE route matched
    TTL_EXCEEDED = 34  # the TTL or hop limit would reach zero
    LOCAL_NOT_HANDLED = 35  # addressed to the router itself, and it does not serve that
    NEIGHBOUR_UNRESOLVED = 36  # the next hop did not answer ARP or ND
    NO_PORT_ADDRESS = 37  # the egress port has no address of this IP version
    MTU_EXCEEDED = 38  # larger than the path takes and may not be fragmented
    SOURCE_ADDRESS_INVALID = 39  # a source that may not be routed: reserved, multicast, link-local
    DESTINATION_ADDRESS_INVALID = 40  # reserved, link-local or a broadcast address: not routed
    NO_POOL_MEMBER = 41  # a new connection to a VIP, and no member of its pool takes any
    BALANCING_ENDED = 42  # the VIP or member of a running connection is gone, or out of service
    # Placement and overlay.
    NO_LOCATION = 50  # the egress port is bound to a host that has not reported it
    NO_TUNNEL = 51  # this host and the egress host share no tunnel zone
    UNKNOWN_TUNNEL_KEY = 52  # overlay packet with a key that no port here has
    UNKNOWN_PEER = 53  # overlay packet from an address that is not a known peer
    OVERLAY_MALFORMED = 54  # truncated or unsupported tunnel header
    UNDERLAY_SPOOF = 55  # a tenant's packet to a host's underlay address
    OVERLAY_STRAY = 56  # an overlay packet that only the host's own tunnel device would take
    # Resources.
    UPCALL_RATE = 60  # the port's upcall budget is used up
    UPCALL_RING_FULL = 61  # the agent does not keep up
    AWAIT_TIMEOUT = 62  # what the simulation waited for did not come in 5 s
    AWAIT_QUEUE_FULL = 63  # too many packets wait already
    INTERFACE_GONE = 64  # the egress interface disappeared
    INTERNAL = 65  # the agent failed while it decided on the packet; its log holds the bytes
    ENCAP_FAILED = 66  # the kernel refused to add or remove the outer headers
    PORT_NOT_ATTACHED = 67  # the egress port is local but not attached to the datapath
    REWRITE_FAILED = 68  # the kernel refused a header rewrite
    NOT_UNDERSTOOD = 75  # a program asks for what this datapath does not know
    COPY_RATE = 76  # the port's budget of copies for several outputs is used up
    UPCALL_TOO_OLD = 69  # it waited more than 5 s for an agent that was away or not ready
    # What the agent cannot finish.
    UNSETTLED = 80  # the facts it depends on changed at each attempt to decide on it
    PACKET_CUT = 81  # it must be handled whole, and only its beginning came up
    NOT_REINJECTED = 82  # it was put back after a decision and found no program there
    OUTPUT_GONE = 83  # the output was taken away while the packet was on its way
    INJECTION_FAILED = 84  # the kernel refused a packet that the agent sent
    # What one packet may cost.
    COPY_LIMIT = 85  # it would be copied to more places than one packet may
    RULE_LIMIT = 86  # it would meet more rules than one packet may
    GENERATED_LIMIT = 87  # one packet has led to as many answers and fragments as it may
    CONNECTION_LIMIT = 88  # its connection cannot be entered: the port's share, or its key is taken
    REFUSAL_RATE = 89  # the port's packets have led to as many ICMP errors and resets as they may
    # Translation and fragments.
    NAT_EXHAUSTED = 93  # no end point of the rule's targets is free towards this destination
    CONNECTION_UNKNOWN = 94  # it would have to be translated, and belongs to no known connection
    FRAGMENT_UNKNOWN = 95  # a later fragment whose first has not passed
    FAMILY_UNTRANSLATABLE = 97  # it cannot become a packet of the other IP version
    FRAGMENT_INVALID = 96  # a fragment that overlaps others of its datagram, or is one too many
