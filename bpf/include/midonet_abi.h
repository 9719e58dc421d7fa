/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The kernel ABI: every structure and number shared by the datapath program and the agent.
 *
 * One definition. src/midonet/agent/datapath/ebpf/abi.py mirrors it; a test compares name,
 * offset and size of each field with the BTF of the built object. docs/adr/0002-kernel-abi.md
 * says why it looks like this.
 *
 * Rules:
 * - Header fields are in network byte order, wherever they are kept. An IPv4 address is the
 *   first four bytes of its 16-byte field and the other twelve are zero. All other integers
 *   are in the byte order of the host.
 * - There is no implicit padding. Fields named reserved* are zero.
 * - Times are nanoseconds of CLOCK_BOOTTIME, 0 is never.
 * - Changing a structure that a pinned map holds means a new MIDONET_ABI_VERSION.
 */
#ifndef MIDONET_ABI_H
#define MIDONET_ABI_H

#include <linux/types.h>

enum midonet_limits {
	MIDONET_ABI_VERSION = 3,
	MIDONET_MASKS_PER_PORT = 32,   /* length of a port's mask list, slot 0 is the exact mask */
	MIDONET_OUTPUTS_MAX = 1024,    /* outputs of one program or flood group */
	MIDONET_UPCALL_BYTES = 2048,   /* longest copy of a frame in an upcall record */
	MIDONET_DROP_REASONS = 128,    /* counters a port has, indexed by drop reason */
	MIDONET_OVERLAY_SLOT = 0,      /* port slot that stands for the overlay in counters */
	MIDONET_STATE_FRAME_MAX = 128, /* bytes of a state frame */
	MIDONET_STATE_TUNNEL_KEY = 0xffffff,
};

/* Marks of frames on the injection interface. A frame for classification carries the port slot
 * in the low 16 bits and the low 15 bits of the port's incarnation above it. */
#define MIDONET_MARK_OUTPUT 0x80000000u    /* the low 30 bits are an output identifier */
#define MIDONET_MARK_REWRITTEN 0x40000000u /* with it: the output's rewrite was done already */
#define MIDONET_MARK_OUTPUT_MASK 0x3fffffffu
#define MIDONET_MARK_INCARNATION_SHIFT 16
#define MIDONET_MARK_INCARNATION_MASK 0x7fffu

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
	MIDONET_DROP_SOURCE_MAC_MULTICAST = 20,
	MIDONET_DROP_HAIRPIN = 21,
	MIDONET_DROP_VLAN_MISMATCH = 22,
	MIDONET_DROP_NO_FLOOD_TARGET = 23,
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
	MIDONET_DROP_NO_LOCATION = 50,
	MIDONET_DROP_NO_TUNNEL = 51,
	MIDONET_DROP_UNKNOWN_TUNNEL_KEY = 52,
	MIDONET_DROP_UNKNOWN_PEER = 53,
	MIDONET_DROP_OVERLAY_MALFORMED = 54,
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
	MIDONET_DROP_UNSETTLED = 80,
	MIDONET_DROP_PACKET_CUT = 81,
	MIDONET_DROP_NOT_REINJECTED = 82,
	MIDONET_DROP_OUTPUT_GONE = 83,
	MIDONET_DROP_INJECTION_FAILED = 84,
	MIDONET_DROP_COPY_LIMIT = 85,
	MIDONET_DROP_RULE_LIMIT = 86,
	MIDONET_DROP_GENERATED_LIMIT = 87,
};

/* Numbers equal those of agent/datapath/protocol.py. */
enum midonet_upcall_reason {
	MIDONET_UPCALL_MISS = 1,
	MIDONET_UPCALL_GUARD = 2,
	MIDONET_UPCALL_PROGRAM = 3,
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
 * Class key of a stateless port: the header fields of FlowKey, in one hash for all ports and
 * masks. A lookup key is the packet's key ANDed with the mask of a slot, with port and mask_id
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

/* Addresses and ports of one direction of a connection. */
struct midonet_tuple {
	__u8 ip_src[16];
	__u8 ip_dst[16];
	__be16 l4_src;      /* port; ICMP echo: the identifier in both */
	__be16 l4_dst;
	__u8 ip_proto;
	__u8 family;        /* enum midonet_family */
	__u16 reserved0;
};

enum midonet_direction {
	MIDONET_DIRECTION_NONE = 0,
	MIDONET_DIRECTION_FORWARD = 1, /* the way the first packet went */
	MIDONET_DIRECTION_RETURN = 2,
};

enum midonet_connection_state {
	MIDONET_STATE_UNTRACKED = 0,   /* not looked up: ARP, multicast, stateless port */
	MIDONET_STATE_NEW = 1,         /* no entry, may begin a connection */
	MIDONET_STATE_HALF_OPEN = 2,   /* one direction seen */
	MIDONET_STATE_ESTABLISHED = 3, /* both directions seen */
	MIDONET_STATE_RELATED = 4,     /* ICMP error about an entry */
	MIDONET_STATE_UNKNOWN = 5,     /* no entry, cannot begin one: pull */
	MIDONET_STATE_DEAD = 6,        /* killed, kept until its timer so that it is not reborn */
};

/*
 * What a stateful port adds to the class. The owner of a translated side is the device whose
 * NAT rule chose it, by identity: the first eight bytes of its UUID (0: not translated).
 */
struct midonet_connection_class {
	struct midonet_tuple translated; /* as it leaves; equals the original without NAT */
	__u64 src_owner;
	__u64 dst_owner;
	__u32 zone;         /* slot of the port, or of its stateful port group */
	__be16 zone_vlan;   /* VID of the outermost tag, 0 untagged */
	__u8 state;         /* enum midonet_connection_state */
	__u8 direction;     /* enum midonet_direction */
};

/* Class key of a stateful port, in a hash of its own so that stateless ports do not pay. */
struct midonet_stateful_key {
	struct midonet_class_key header;
	struct midonet_connection_class connection;
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
	MIDONET_REWRITE_TRANSLATED = 1 << 10, /* addresses and ports come from the connection */
};

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
	MIDONET_OUTPUT_NO_PROOF = 1 << 0, /* a flood copy: confirms without proof */
};

/* One way out. Value of the outputs map, and inline in a program with a single output. */
struct midonet_output {
	__u8 kind;          /* enum midonet_output_kind */
	__u8 reserved0;
	__u16 flags;        /* enum midonet_output_flag */
	__u32 target;       /* local: port slot; tunnel: 24-bit tunnel key */
	__u32 incarnation;  /* local: of that port slot, so that a reused slot is noticed */
	__u32 tunnel;       /* tunnel: index into the tunnels map, >= 1 */
	struct midonet_rewrite rewrite;
};

/* Tunnel: a pair of underlay addresses and the way to the remote one. Value of the tunnels map. */
struct midonet_tunnel {
	__u8 local[16];
	__u8 remote[16];
	__u32 family;       /* enum midonet_family; 0 an unused entry */
	__u32 ifindex;      /* underlay interface towards remote; 0 no route */
	__u32 host;         /* index of the peer host and its epoch, for proof */
	__u32 host_epoch;
	__u32 next_hop_family; /* of next_hop; 0: the kernel looks up the route of each packet */
	__u8 next_hop[16];  /* neighbour on ifindex by which remote is reached */
	__u32 reserved0;
};

enum midonet_program_flag {
	MIDONET_PROGRAM_UPCALL = 1 << 0,    /* every packet of the class goes up */
	MIDONET_PROGRAM_ALLOCATE = 1 << 1,  /* choose a translation, then classify again */
	MIDONET_PROGRAM_CONFIRM = 1 << 2,   /* insert the connection's entries */
	MIDONET_PROGRAM_REBIND = 1 << 3,    /* the chosen pool member is gone: choose again */
	MIDONET_PROGRAM_KILL = 1 << 4,      /* delete the connection's entries here and at the peer */
};

/* Conditions that are not key fields. A packet that fails one goes up. */
struct midonet_guards {
	__u32 max_length;   /* largest IP packet, of one segment, in bytes; 0 no limit */
	__u8 ttl_above;     /* TTL or hop limit must be greater; ignored for other than IP */
	__u8 flags;
	__u16 reserved0;
};

/*
 * A program: value of the class maps. With one output it is inline; with more they are the
 * entries first_output .. first_output + output_count - 1 of the outputs map, written before
 * the program and removed after it. Identifiers of that map are not reused while anything can
 * still refer to them. sample_key is the whole key of the packet that was simulated, so that
 * a restarted agent can simulate it again.
 */
struct midonet_program {
	__u32 program_id;   /* statistics slot, >= 1 */
	__u32 flags;        /* enum midonet_program_flag */
	struct midonet_guards guards;
	__u16 drop_reason;  /* nonzero: drop */
	__u16 output_count;
	__u32 first_output; /* 0 when output_count <= 1 */
	__u64 installed_ns;
	__u64 expires_ns;   /* the agent removes it then; the kernel goes on using it */
	__u32 pool;         /* ALLOCATE, REBIND: index of the NAT pool */
	__u32 reserved0;
	struct midonet_output output;
	struct midonet_class_key sample_key;
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

/* Where a class was found last: an index into a mask list. A wrong hint only costs a scan. */
struct midonet_mask_hint {
	__u32 tag;          /* digest of the packet's key */
	__u32 mask_id;
};

/* Counters of a program: statistics[program_id * width + cpu % width], read through mmap. */
struct midonet_statistics {
	__u64 packets;      /* segments of a super-packet count one by one */
	__u64 bytes;        /* frame bytes, a super-packet's headers once */
	__u64 last_used_ns;
	__u64 reserved0;
};

enum midonet_port_flag {
	MIDONET_PORT_ATTACHED = 1 << 0,
	MIDONET_PORT_REDIRECT_PEER = 1 << 1, /* veth whose peer is in another network namespace */
	MIDONET_PORT_STATEFUL = 1 << 2,
	MIDONET_PORT_GONE = 1 << 3,          /* the interface disappeared while attached */
	MIDONET_PORT_IN_USE = 1 << 4,        /* the slot belongs to port_id */
};

/* Port slot: value of the ports map, index 1.. (0 is the overlay). Written by the agent. */
struct midonet_port {
	__u8 port_id[16];   /* UUID, as bytes in printed order */
	__u32 flags;        /* enum midonet_port_flag */
	__u32 ifindex;
	__u32 incarnation;  /* changes when the slot passes to another port */
	__u32 zone;         /* slot of the port or of its stateful port group */
	__u64 upcall_interval_ns; /* one over the upcall rate */
	__u64 upcall_burst_ns;    /* burst times the interval */
	__u32 connection_quota;
	__u32 half_open_quota;
	__u8 interface_name[16];  /* zero-terminated */
};

/* State of a port that the kernel writes: theoretical arrival time of the upcall bucket (GCRA). */
struct midonet_port_state {
	__u64 upcall_tat_ns;
	__u64 connections;
	__u64 half_open;
	__u64 reserved0;
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
	__u8 state;         /* enum midonet_connection_state */
	__u16 reserved0;
};

/* Delivery: tunnel key to one local port, or to the flood group first_output... */
struct midonet_delivery {
	__u32 port;         /* slot; 0 when a group */
	__u32 incarnation;
	__u32 first_output;
	__u32 output_count; /* 0 when a single port */
	__u64 forward_until_ns; /* after a migration: forward by the group until then */
};

/* What an entry of the peers map says. An address that the role does not name is zero. */
enum midonet_peer_role {
	MIDONET_PEER_SENDER = 0, /* overlay packets from `remote` to `local` are accepted */
	MIDONET_PEER_OWN = 1,    /* `local` is of this host: overlay packets of others are dropped */
};

struct midonet_peer_key {
	__u8 local[16];
	__u8 remote[16];
	__u32 family;       /* enum midonet_family */
	__u32 role;         /* enum midonet_peer_role */
};

struct midonet_peer {
	__u32 host;         /* index, for proof */
	__u32 host_epoch;
	__u64 heard_ns;     /* last packet, coarse; 0 never */
};

enum midonet_config_flag {
	MIDONET_CONFIG_COPY_TOS = 1 << 0, /* outer TOS is the inner one without ECN, else 0 */
	MIDONET_CONFIG_SHARED_COUNTERS = 1 << 1, /* more CPUs than statistics_width */
};

/* The one entry of the config map. */
struct midonet_config {
	__u32 abi_version;
	__u32 flags;        /* enum midonet_config_flag */
	__u64 hash_seed;
	__be16 vxlan_port;
	__u16 reserved0;
	__u32 inject_ifindex; /* where frames are sent to be injected; their peer is the hook */
	__u64 cookies[2];   /* deployment cookies of state frames: current, previous */
	__u32 host;         /* own index and epoch */
	__u32 host_epoch;
	__u32 statistics_width; /* counters a program has, one for each CPU up to this many */
	__u32 reserved1;
	__u64 boot_offset_ns; /* CLOCK_BOOTTIME minus CLOCK_MONOTONIC: the cheap clock is the latter */
};

/* Connection key: E1 = (zone of the ingress port, original tuple), E2 = (zone of the egress
 * port, inverse of the delivered tuple). */
struct midonet_connection_key {
	struct midonet_tuple tuple;
	__u32 zone;
	__be16 zone_vlan;
	__u16 reserved0;
};

enum midonet_tcp_state {
	MIDONET_TCP_NONE = 0,
	MIDONET_TCP_SYN_SENT = 1,
	MIDONET_TCP_SYN_RECEIVED = 2,
	MIDONET_TCP_ESTABLISHED = 3,
	MIDONET_TCP_FIN_WAIT = 4,
	MIDONET_TCP_CLOSED = 5,
};

enum midonet_connection_flag {
	MIDONET_CONNECTION_SLOW_PATH = 1 << 0, /* more than one owner on a side: bindings in the agent */
	MIDONET_CONNECTION_LOCAL = 1 << 1,     /* opened here, not by a state frame */
	MIDONET_CONNECTION_ALLOCATED = 1 << 2, /* owns an entry of the allocations map */
};

/* Connection entry: state, never actions. */
struct midonet_connection {
	struct midonet_tuple translated;
	__u64 src_owner;
	__u64 dst_owner;
	__u8 state;
	__u8 direction;
	__u8 tcp_state;
	__u8 flags;         /* enum midonet_connection_flag */
	__u32 initiator_port;        /* slot; 0 when the initiator is at another host */
	__u32 initiator_incarnation;
	__u32 initiator_tunnel_key;
	__u64 created_ns;
	__u64 forward_ns;   /* last packet of each direction */
	__u64 return_ns;
	__u32 timeout_ms;   /* idle lifetime of the present state */
	__u32 partner_zone; /* with partner_vlan and the tuples: key of the partner entry */
	__be16 partner_vlan;
	__u8 frames_sent;   /* state frames, until proof */
	__u8 reserved0;
	__u32 proof_tunnel_key;
	__u32 proof_host;
	__u32 proof_epoch;  /* 0: not proven */
	__u64 next_frame_ns;
};

/* Allocation of a translated endpoint: exclusive, freed only by its owner. */
struct midonet_allocation_key {
	__u64 owner;        /* device identity */
	__u8 address[16];   /* NAT address */
	__u8 remote[16];
	__be16 port;        /* NAT port or ICMP echo identifier */
	__be16 remote_port;
	__u8 ip_proto;
	__u8 family;
	__u16 reserved0;
};

struct midonet_allocation {
	struct midonet_connection_key connection; /* E1 of the connection that holds it */
	__u64 created_ns;
	__u32 pool;
	__u32 confirmed;    /* 0 while the packet that asked is on its way */
};

/* NAT pool: what ALLOCATE and REBIND choose from. */
struct midonet_pool {
	__u64 owner;
	__u8 first[16];     /* addresses, inclusive */
	__u8 last[16];
	__u16 port_first;   /* ports, inclusive, host order */
	__u16 port_last;
	__u8 family;
	__u8 is_source;     /* 1 SNAT, 0 DNAT or load balancer */
	__u16 weight;
	__u64 valid_until_ns; /* no new allocation afterwards: the lease */
};

/* Fragments: ports of a datagram's first fragment, for the later ones. */
struct midonet_fragment_key {
	__u8 ip_src[16];
	__u8 ip_dst[16];
	__be32 id;
	__u32 zone;
	__be16 zone_vlan;
	__u8 ip_proto;
	__u8 family;
	__u32 reserved0;
};

struct midonet_fragment_ports {
	__be16 l4_src;
	__be16 l4_dst;
	__u32 reserved0;
	__u64 seen_ns;
};

enum midonet_state_frame_type {
	MIDONET_FRAME_STATE = 1,   /* the connection, pushed */
	MIDONET_FRAME_PROOF = 2,   /* I hold it */
	MIDONET_FRAME_KILL = 3,    /* delete it */
	MIDONET_FRAME_PULL = 4,    /* do you hold it? */
	MIDONET_FRAME_MOVED = 5,   /* that tunnel key is not here any more */
};

/*
 * State frame: the one structure that goes over the wire, so every integer of it is in network
 * byte order. Under tunnel key MIDONET_STATE_TUNNEL_KEY, alone or in front of the inner frame.
 * A reader skips `size` bytes whatever the version. Lifetimes are relative.
 */
struct midonet_state_frame {
	__u8 version;
	__u8 type;          /* enum midonet_state_frame_type */
	__be16 size;        /* of this record, in bytes */
	__be32 flags;
	__be64 cookie;
	struct midonet_tuple original;
	struct midonet_tuple translated;
	__be64 src_owner;
	__be64 dst_owner;
	__be32 egress_tunnel_key;    /* 24 bits: whose delivery makes E2 */
	__be32 initiator_tunnel_key;
	__be32 initiator_epoch;      /* of the initiator's host */
	__be32 lifetime_ms;
};

#endif /* MIDONET_ABI_H */
