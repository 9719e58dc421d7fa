/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The kernel ABI: every structure and number shared by the datapath program and the agent.
 *
 * One definition. src/midonet/agent/datapath/ebpf/abi.py mirrors it; a test compares name,
 * offset and size of each field with the BTF of the built object. docs/adr/0002-kernel-abi.md and
 * docs/adr/0010-verified-records.md say why it looks like this.
 *
 * Rules:
 * - Header fields are in network byte order, wherever they are kept. An IPv4 address is the
 *   first four bytes of its 16-byte field and the other twelve are zero. All other integers
 *   are in the byte order of the host.
 * - There is no implicit padding. Fields named reserved* are zero.
 * - Times are nanoseconds of CLOCK_BOOTTIME, 0 is never.
 * - Changing a structure that a pinned map holds means a new MIDONET_ABI_VERSION.
 * - A record is an entry of an array that the agent writes while packets read it. It begins with a
 *   sequence: 0 never written, odd while it is written or unused, else valid. A reader copies what
 *   it needs between two reads of the same even number, and compares what the record says it is.
 */
#ifndef MIDONET_ABI_H
#define MIDONET_ABI_H

#include <linux/types.h>

enum midonet_limits {
	MIDONET_ABI_VERSION = 4,
	MIDONET_MASKS_PER_PORT = 32,   /* length of a port's mask list, slot 0 is the exact mask */
	MIDONET_OUTPUTS_MAX = 1024,    /* outputs of one program or flood group */
	MIDONET_UPCALL_BYTES = 2048,   /* longest copy of a frame in an upcall record */
	MIDONET_DROP_REASONS = 128,    /* counters a port has, indexed by drop reason */
	MIDONET_OVERLAY_SLOT = 0,      /* port slot that stands for the overlay in counters */
	MIDONET_TUNNELS_MAX = 4096,    /* tunnel records, a power of two */
	MIDONET_STATE_KEY = 0xffffff,  /* tunnel key of what agents tell each other of connections */
};

/* Marks of frames on the injection interface. A frame for classification carries the port slot
 * in the low 16 bits and the low 14 bits of the port's incarnation above it. */
#define MIDONET_MARK_OUTPUT 0x80000000u    /* the low 29 bits are an output identifier */
#define MIDONET_MARK_REWRITTEN 0x40000000u /* with it: the output's rewrite was done already */
#define MIDONET_MARK_OUTPUT_MASK 0x1fffffffu
/* With both: a super-packet is cut into segments for a tunnel. The low bits of the tunnel's identifier
 * and of the tunnel key follow; the rest of the key is in a VLAN tag, whose type says which kind of
 * tunnel it is. */
#define MIDONET_MARK_SEGMENTS 0x20000000u
#define MIDONET_MARK_TUNNEL_SHIFT 8
#define MIDONET_MARK_TUNNEL_MASK 0x1fffffu
#define MIDONET_MARK_INCARNATION_SHIFT 16
#define MIDONET_MARK_INCARNATION_MASK 0x3fffu
#define MIDONET_MARK_FIRST_TIME 0x40000000u /* a segment of what has not been classified yet */

/* Reasons. Numbers equal those of agent/flows/drop_reason.py and are never reused. */
enum midonet_drop_reason {
	MIDONET_DROP_MALFORMED = 1,
	MIDONET_DROP_UNKNOWN_INGRESS_PORT = 2,
	MIDONET_DROP_LOOP_LIMIT = 3,
	MIDONET_DROP_PORT_DOWN = 4,
	MIDONET_DROP_DEVICE_DOWN = 5,
	MIDONET_DROP_PORT_UNPLUGGED = 6,
	MIDONET_DROP_MISSING_DEVICE = 7,
	MIDONET_DROP_MISSING_CHAIN = 8,
	MIDONET_DROP_MISSING_GROUP = 9,
	MIDONET_DROP_FILTERED = 10,
	MIDONET_DROP_REJECTED = 11,
	MIDONET_DROP_CHAIN_LIMIT = 12,
	MIDONET_DROP_OFFLOAD_MISMATCH = 13,
	MIDONET_DROP_SPOOFED_MAC = 14,
	MIDONET_DROP_SPOOFED_ADDRESS = 15,
	MIDONET_DROP_SPOOFED_NEIGHBOUR = 16,
	MIDONET_DROP_UNTRUSTED_SERVER = 17,
	MIDONET_DROP_SOURCE_MAC_MULTICAST = 20,
	MIDONET_DROP_HAIRPIN = 21,
	MIDONET_DROP_VLAN_MISMATCH = 22,
	MIDONET_DROP_NO_FLOOD_TARGET = 23,
	MIDONET_DROP_LINK_LOCAL_FRAME = 24,
	MIDONET_DROP_DHCP_NOT_SERVED = 25,
	MIDONET_DROP_NOT_REDIRECTED = 26,
	MIDONET_DROP_SERVICE_DOWN = 27,
	MIDONET_DROP_NOT_FOR_ROUTER = 30,
	MIDONET_DROP_UNSUPPORTED_ETHERTYPE = 31,
	MIDONET_DROP_NO_ROUTE = 32,
	MIDONET_DROP_BLACKHOLE_ROUTE = 33,
	MIDONET_DROP_TTL_EXCEEDED = 34,
	MIDONET_DROP_LOCAL_NOT_HANDLED = 35,
	MIDONET_DROP_NEIGHBOUR_UNRESOLVED = 36,
	MIDONET_DROP_NO_PORT_ADDRESS = 37,
	MIDONET_DROP_MTU_EXCEEDED = 38,
	MIDONET_DROP_SOURCE_ADDRESS_INVALID = 39,
	MIDONET_DROP_DESTINATION_ADDRESS_INVALID = 40,
	MIDONET_DROP_NO_POOL_MEMBER = 41,
	MIDONET_DROP_BALANCING_ENDED = 42,
	MIDONET_DROP_NO_LOCATION = 50,
	MIDONET_DROP_NO_TUNNEL = 51,
	MIDONET_DROP_UNKNOWN_TUNNEL_KEY = 52,
	MIDONET_DROP_UNKNOWN_PEER = 53,
	MIDONET_DROP_OVERLAY_MALFORMED = 54,
	MIDONET_DROP_UNDERLAY_SPOOF = 55,
	MIDONET_DROP_OVERLAY_STRAY = 56,
	MIDONET_DROP_UPCALL_RATE = 60,
	MIDONET_DROP_UPCALL_RING_FULL = 61,
	MIDONET_DROP_AWAIT_TIMEOUT = 62,
	MIDONET_DROP_AWAIT_QUEUE_FULL = 63,
	MIDONET_DROP_INTERFACE_GONE = 64,
	MIDONET_DROP_INTERNAL = 65,
	MIDONET_DROP_ENCAP_FAILED = 66,
	MIDONET_DROP_PORT_NOT_ATTACHED = 67,
	MIDONET_DROP_REWRITE_FAILED = 68,
	MIDONET_DROP_UPCALL_TOO_OLD = 69,
	MIDONET_DROP_NOT_UNDERSTOOD = 75,
	MIDONET_DROP_COPY_RATE = 76,
	MIDONET_DROP_UNSETTLED = 80,
	MIDONET_DROP_PACKET_CUT = 81,
	MIDONET_DROP_NOT_REINJECTED = 82,
	MIDONET_DROP_OUTPUT_GONE = 83,
	MIDONET_DROP_INJECTION_FAILED = 84,
	MIDONET_DROP_COPY_LIMIT = 85,
	MIDONET_DROP_RULE_LIMIT = 86,
	MIDONET_DROP_GENERATED_LIMIT = 87,
	MIDONET_DROP_CONNECTION_LIMIT = 88,
	MIDONET_DROP_REFUSAL_RATE = 89,
	MIDONET_DROP_NAT_EXHAUSTED = 93,
	MIDONET_DROP_CONNECTION_UNKNOWN = 94,
	MIDONET_DROP_FRAGMENT_UNKNOWN = 95,
	MIDONET_DROP_FRAGMENT_INVALID = 96,
	MIDONET_DROP_FAMILY_UNTRANSLATABLE = 97,
};

/* Numbers equal those of agent/datapath/protocol.py. */
enum midonet_upcall_reason {
	MIDONET_UPCALL_MISS = 1,
	MIDONET_UPCALL_GUARD = 2,
	MIDONET_UPCALL_PROGRAM = 3,
	MIDONET_UPCALL_EARLIER = 4,
	MIDONET_UPCALL_STATE = 5, /* a state frame of another host; its port is the overlay's */
};

enum midonet_family {
	MIDONET_FAMILY_IPV4 = 4,
	MIDONET_FAMILY_IPV6 = 6,
};

enum midonet_fragment {
	MIDONET_FRAGMENT_NONE = 0,
	MIDONET_FRAGMENT_FIRST = 1,
	MIDONET_FRAGMENT_LATER = 2,
};

/* vlan_tci bit of a tagged frame (the place of the DEI bit). */
#define MIDONET_VLAN_PRESENT 0x1000

/*
 * Class key: the header fields of FlowKey, in one hash for all ports and masks. A lookup key is the packet's key ANDed with the mask of a slot, with port and mask_id
 * of that slot. Entry of the mask list: the same structure with one bits.
 */
struct midonet_class_key {
	__u32 port;         /* slot of the ingress port */
	__u32 mask_id;      /* slot in that port's mask list */
	__u8 eth_dst[6];
	__u8 eth_src[6];
	__be16 eth_type;    /* behind the outermost tag; 0 for an 802.3 length */
	__be16 vlan_tci;    /* 0 untagged, else MIDONET_VLAN_PRESENT | PCP << 13 | VID */
	__u8 ip_proto;      /* last next-header; low byte of the ARP operation */
	__u8 ip_tos;
	__u8 ip_frag;       /* enum midonet_fragment */
	__u8 reserved0;
	__be16 l4_src;      /* port, or ICMP type */
	__be16 l4_dst;      /* port, or ICMP code */
	__be32 flow_hash;   /* packets/flow_hash.py; zero when no mask of the port reads it */
	__u32 reserved1;
	__u8 ip_src[16];    /* ARP: sender protocol address */
	__u8 ip_dst[16];    /* ARP: target protocol address */
};

/* What a rewrite sets. Fields without their bit are left as they are. */
enum midonet_rewrite_field {
	MIDONET_REWRITE_ETH_DST = 1 << 0,
	MIDONET_REWRITE_ETH_SRC = 1 << 1,
	MIDONET_REWRITE_POP_VLAN = 1 << 2,
	MIDONET_REWRITE_PUSH_VLAN = 1 << 3,
	MIDONET_REWRITE_IP_SRC = 1 << 4,
	MIDONET_REWRITE_IP_DST = 1 << 5,
	MIDONET_REWRITE_IP_TOS = 1 << 6,
	MIDONET_REWRITE_L4_SRC = 1 << 7,
	MIDONET_REWRITE_L4_DST = 1 << 8,
	MIDONET_REWRITE_TTL = 1 << 9,
};

/* A rewrite with another bit is not understood, and its packets are dropped. */
#define MIDONET_REWRITE_KNOWN ((1 << 10) - 1)

/* Rewrite template, relative to the packet as it entered; checksums follow (RFC 1624). */
struct midonet_rewrite {
	__u32 fields;       /* enum midonet_rewrite_field */
	__u8 eth_dst[6];
	__u8 eth_src[6];
	__u8 ip_src[16];
	__u8 ip_dst[16];
	__be16 l4_src;      /* port, or ICMP type */
	__be16 l4_dst;      /* port, or ICMP code */
	__be16 push_vlan;   /* 16-bit TCI, PCP and VID */
	__u8 ip_tos;
	__u8 ttl_decrement;
};

enum midonet_output_kind {
	MIDONET_OUTPUT_NONE = 0,
	MIDONET_OUTPUT_LOCAL = 1,
	MIDONET_OUTPUT_VXLAN = 2,
	MIDONET_OUTPUT_GRE = 3,
};

enum midonet_output_flag {
	MIDONET_OUTPUT_UPLINK = 1 << 0, /* leads out of the virtual network */
};

/* One way out. Part of an output record, and inline in a program with a single output. */
struct midonet_output {
	__u8 kind;          /* enum midonet_output_kind */
	__u8 reserved0;
	__u16 flags;        /* none is known: others drop */
	__u32 target;       /* local: port slot; tunnel: 24-bit tunnel key */
	__u32 incarnation;  /* local: of that port slot, so that a reused slot is noticed */
	__u32 tunnel;       /* tunnel: identifier in the tunnels map, 0 none */
	struct midonet_rewrite rewrite;
};

/* Record of the outputs map, at index identifier % output_slots. */
struct midonet_output_record {
	__u32 sequence;
	__u32 identifier;   /* 30 bits, >= 1 */
	struct midonet_output output;
};

/* Tunnel: a pair of underlay addresses and the way to the remote one. Record of the tunnels map,
 * at index identifier % MIDONET_TUNNELS_MAX. */
struct midonet_tunnel {
	__u32 sequence;
	__u32 identifier;   /* >= 1 */
	__u8 local[16];
	__u8 remote[16];
	__u32 family;       /* enum midonet_family; 0 an unused entry */
	__u32 ifindex;      /* underlay interface towards remote; 0 no route */
	__u32 next_hop_family; /* of next_hop; 0: the kernel looks up the route of each packet */
	__u8 next_hop[16];  /* neighbour on ifindex by which remote is reached */
	__u32 reserved0;
};

enum midonet_program_flag {
	MIDONET_PROGRAM_UPCALL = 1 << 0,    /* every packet of the class goes up */
};

/* A program with another flag is not understood, and its packets are dropped. */
#define MIDONET_PROGRAM_KNOWN (MIDONET_PROGRAM_UPCALL)

/* Conditions that are not key fields. A packet that fails one goes up. */
struct midonet_guards {
	__u32 max_length;   /* largest IP packet, of one segment, in bytes; 0 no limit */
	__u8 ttl_above;     /* TTL or hop limit must be greater; ignored for other than IP */
	__u8 flags;
	__u8 tcp_flags_clear; /* no TCP segment with one of these flags; ignored for other than TCP */
	__u8 reserved0;
};

/*
 * What is done with the packets of a class. With one output it is inline; with more they are the
 * output records first_output .. first_output + output_count - 1, written before the program and
 * removed after it.
 */
struct midonet_action {
	__u32 program_id;   /* counters, >= 1 */
	__u32 flags;        /* enum midonet_program_flag */
	struct midonet_guards guards;
	__u16 drop_reason;  /* nonzero: drop */
	__u16 output_count;
	__u32 first_output; /* 0 when output_count <= 1 */
	struct midonet_output output;
};

/*
 * A program: record of the programs map, at any index >= 1. The classes map and the hints name the
 * index; whether it holds the program of a packet, the record says: the packet's key ANDed with
 * the mask equals the key, port and all. The mask has the form of the packets it is for.
 */
struct midonet_program {
	__u32 sequence;
	__u32 reserved0;
	struct midonet_class_key key;  /* as in the classes map, mask_id included */
	struct midonet_class_key mask; /* port: all bits; mask_id: none */
	struct midonet_action action;
	__u64 reserved1;
};

/*
 * What the agent keeps of a program for its own restart, at the same index. sample_key is the whole
 * key of the packet that was simulated, so that it can be simulated again; facts is a Bloom filter
 * of the topology facts that the program depends on (agent/flows/fact_filter.py).
 */
struct midonet_program_note {
	__u64 installed_ns;
	__u64 expires_ns;   /* the agent removes it then; the kernel goes on using it */
	struct midonet_class_key sample_key;
	__u8 facts[40];
};

/* Mask list of a port. IPv4 and IPv6 addresses lie differently in a mask of plain numbers, so
 * each slot has two forms; the packet's Ethernet type chooses. Bit n of valid: slot n in use. */
struct midonet_port_masks {
	__u32 valid;
	__u32 uses_hash;    /* bit n: slot n reads flow_hash */
	__u64 generation;   /* counts changes */
	struct midonet_class_key other[MIDONET_MASKS_PER_PORT];
	struct midonet_class_key ipv6[MIDONET_MASKS_PER_PORT];
};

/* Counters of a program: statistics[(cpu % width) * stride + program_id], read through mmap. What
 * one CPU counts lies together, so that two of them do not share a cache line. */
struct midonet_statistics {
	__u64 packets;      /* segments of a super-packet count one by one */
	__u64 bytes;        /* frame bytes, a super-packet's headers once */
	__u64 last_used_ns;
	__u64 reserved0;
};

enum midonet_port_flag {
	MIDONET_PORT_ATTACHED = 1 << 0,
	MIDONET_PORT_REDIRECT_PEER = 1 << 1, /* veth whose peer is in another network namespace */
	MIDONET_PORT_GONE = 1 << 3,          /* the interface disappeared while attached */
	MIDONET_PORT_IN_USE = 1 << 4,        /* the slot belongs to port_id */
};

/* Port slot: value of the ports map, index 1.. (0 is the overlay). Written by the agent, which
 * may undo a `mac` of the same moment: that is a hint. */
struct midonet_port {
	__u8 port_id[16];   /* UUID, as bytes in printed order */
	__u32 flags;        /* enum midonet_port_flag */
	__u32 ifindex;
	__u32 incarnation;  /* changes when the slot passes to another port */
	__u32 reserved0;
	__u64 upcall_interval_ns; /* one over the upcall rate */
	__u64 upcall_burst_ns;    /* burst times the interval */
	__u64 copy_interval_ns;   /* the same for the copies of packets with several outputs */
	__u64 copy_burst_ns;
	__u8 interface_name[16];  /* zero-terminated */
	__u8 mac[6];        /* of the last frame that entered here; written by the program */
	__u16 reserved1;
};

/* State of a port that the kernel writes: theoretical arrival times of its buckets (GCRA). */
struct midonet_port_state {
	__u64 upcall_tat_ns;
	__u64 copy_tat_ns;
};

/* interfaces map: ifindex to port slot, for frames that enter from a port's interface. */
struct midonet_interface {
	__u32 slot;
	__u32 incarnation;
};

/* Record of the upcall ring, followed by `captured` bytes of the frame. */
struct midonet_upcall {
	__u64 received_ns;
	__u32 port;         /* slot */
	__u32 incarnation;
	__u32 length;       /* of the frame as received */
	__u32 captured;
	__u32 gso_size;
	__u32 gso_segments;
	__u32 program_id;
	__u32 flow_hash;    /* host order */
	__be16 vlan_tci;    /* as in the key: the tag is not in the copied bytes */
	__be16 vlan_proto;
	__u8 reason;        /* enum midonet_upcall_reason */
	__u8 reserved0;
	__u16 reserved1;
};

/* Delivery: tunnel key to one local port, or to the flood group first_output... Record of the
 * deliveries map; the tunnel_keys map names the index. */
struct midonet_delivery {
	__u32 sequence;
	__u32 tunnel_key;
	__u32 port;         /* slot; 0 when a group */
	__u32 incarnation;
	__u32 first_output;
	__u32 output_count; /* 0 when a single port */
};

/* What an entry of the peers map says. An address that the role does not name is zero. */
enum midonet_peer_role {
	MIDONET_PEER_SENDER = 0, /* overlay packets from `remote` to `local` are accepted */
	MIDONET_PEER_OWN = 1,    /* `local` is of this host: overlay packets of others are dropped */
	MIDONET_PEER_ADDRESS = 2, /* `remote` is of some host: no tenant may reach it */
};

struct midonet_peer_key {
	__u8 local[16];
	__u8 remote[16];
	__u32 family;       /* enum midonet_family */
	__u32 role;         /* enum midonet_peer_role */
};

struct midonet_peer {
	__u64 reserved0;    /* being there is all */
};

enum midonet_config_flag {
	MIDONET_CONFIG_COPY_TOS = 1 << 0, /* outer TOS is the inner one without ECN, else 0 */
	MIDONET_CONFIG_SHARED_COUNTERS = 1 << 1, /* more CPUs than statistics_width */
	MIDONET_CONFIG_COPY_EARLIER = 1 << 2, /* what an earlier program forwards is copied up */
};

/* The one entry of the config map. */
struct midonet_config {
	__u32 abi_version;
	__u32 flags;        /* enum midonet_config_flag */
	__u64 hash_seed;
	__be16 vxlan_port;
	__u16 reserved0;
	__u32 inject_ifindex; /* where frames are sent to be injected; their peer is the hook */
	__u32 statistics_width; /* counters a program has, one for each CPU up to this many */
	__u32 statistics_stride; /* counters that one CPU has: a program's capacity and one */
	__u32 output_slots;     /* output records, a power of two */
	__u32 segment_ifindex;  /* where overlay super-packets are cut up; their peer is the hook */
	__u64 boot_offset_ns; /* CLOCK_BOOTTIME minus CLOCK_MONOTONIC: the cheap clock is the latter */
};

#endif /* MIDONET_ABI_H */
