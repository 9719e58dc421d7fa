/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Every map: key, value, who writes, who reads, size and what happens when it is full.
 * "agent" is the process in Python; it may set other sizes before the object is loaded.
 */
#ifndef MIDONET_MAPS_H
#define MIDONET_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "midonet_abi.h"

#define PORTS_MAX 1024
#define PROGRAMS_MAX 65536
#define PROGRAM_RECORDS (PROGRAMS_MAX + 64) /* some more, so that a program is replaced unseen */
#define OUTPUT_RECORDS 131072 /* a power of two */
#define DELIVERIES_MAX 65536
#define STATISTICS_WIDTH 4

/* The one configuration. Written by the agent, read here. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct midonet_config);
} config SEC(".maps");

/* Programs of another ABI version, with tables of their own: asked by a tail call about what is not
 * found here, while the agent takes over. Written by the agent; empty otherwise. */
enum earlier_program {
	EARLIER_PORT = 0,
	EARLIER_UNDERLAY = 1,
};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 4);
	__type(key, __u32);
	__type(value, __u32);
} earlier SEC(".maps");

/* ifindex of a port's interface to its slot. Written by the agent, full: attaching fails. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PORTS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct midonet_interface);
} interfaces SEC(".maps");

/* Slot of the port that was last found at an interface, by the low bits of its ifindex. Written and
 * read here. Only a hint: the port says itself whether it is at that interface. */
#define INTERFACE_HINTS 1024
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, INTERFACE_HINTS);
	__type(key, __u32);
	__type(value, __u32);
} interface_hints SEC(".maps");

/* Port slots. Written by the agent; full: attaching fails. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS_MAX);
	__type(key, __u32);
	__type(value, struct midonet_port);
} ports SEC(".maps");

/* State of a port. Written here. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS_MAX);
	__type(key, __u32);
	__type(value, struct midonet_port_state);
} port_states SEC(".maps");

/* Mask lists by port slot. Written by the agent: programs first, then the mask that finds them. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS_MAX);
	__type(key, __u32);
	__type(value, struct midonet_port_masks);
} port_masks SEC(".maps");

/* Index of the program that was found last, by digest of the key; 0 none. Written and read here;
 * collisions lose. Only a hint: the record says itself whether it is for the packet. */
#define PROGRAM_HINTS 4096
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PROGRAM_HINTS);
	__type(key, __u32);
	__type(value, __u32);
} program_hints SEC(".maps");

/* Mask that a new class was found by last, by digest of port, type, protocol and direction. Written
 * and read here; a wrong one costs a look-up. */
#define MASK_HINTS 1024
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MASK_HINTS);
	__type(key, __u32);
	__type(value, __u32);
} mask_hints SEC(".maps");

/* Class to the index of its program. Written by the agent; full: installing fails and packets of
 * classes without a program go on to be upcalls. An element may be used for another class while it
 * is read, so what is found is verified at the record. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PROGRAMS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct midonet_class_key);
	__type(value, __u32);
} classes SEC(".maps");

/* Programs. Records, written by the agent through shared memory. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PROGRAM_RECORDS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct midonet_program);
} programs SEC(".maps");

/* Notes of the agent for its next process, by the same index. Not read here. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PROGRAM_RECORDS);
	__type(key, __u32);
	__type(value, struct midonet_program_note);
} program_notes SEC(".maps");

/* Outputs of programs with more than one, of flood groups, and those the agent emits by. Records,
 * written by the agent through shared memory; full: installing fails. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, OUTPUT_RECORDS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct midonet_output_record);
} outputs SEC(".maps");

/* Pairs of underlay addresses. Records, written by the agent through shared memory; full:
 * installing fails. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MIDONET_TUNNELS_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct midonet_tunnel);
} tunnels SEC(".maps");

/* Tunnel key to the index of its delivery. Written by the agent; full: set_delivery fails. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, DELIVERIES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u32);
} tunnel_keys SEC(".maps");

/* Tunnel keys that are delivered here. Records, written by the agent through shared memory. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, DELIVERIES_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct midonet_delivery);
} deliveries SEC(".maps");

/* Whose overlay packets are accepted. Written by the agent; full: configuring fails. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct midonet_peer_key);
	__type(value, struct midonet_peer);
} peers SEC(".maps");

/* Changes whenever deliveries or peers do. Written by the agent, after the change; read here. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} delivery_generation SEC(".maps");

/* What an earlier packet between the same hosts with the same tunnel key found in peers and
 * deliveries. Good for one generation of those. */
struct delivery_hint {
	struct midonet_peer_key peer;
	struct midonet_delivery delivery;
	__u64 generation;
	__u64 key;
};

/* Written and read here; collisions lose. */
#define DELIVERY_HINTS 1024
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DELIVERY_HINTS);
	__type(key, __u32);
	__type(value, struct delivery_hint);
} delivery_hints SEC(".maps");

/* Counters of programs: index (cpu % width) * stride + program_id. Written here, mapped by the
 * agent, which clears a slot before it gives it to another program. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, (PROGRAMS_MAX + 1) * STATISTICS_WIDTH);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct midonet_statistics);
} statistics SEC(".maps");

/* Drops: index slot * MIDONET_DROP_REASONS + reason. Written here, mapped by the agent. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, PORTS_MAX * MIDONET_DROP_REASONS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, __u64);
} drops SEC(".maps");

/* Packets on their way to the agent. Full: the packet is dropped by name. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} upcalls SEC(".maps");

struct upcall_scratch {
	struct midonet_upcall record;
	__u8 frame[MIDONET_UPCALL_BYTES];
};

/* Room to put an upcall together: too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct upcall_scratch);
} scratch SEC(".maps");

#endif /* MIDONET_MAPS_H */
