/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What a program keeps of the packet in hand. It is too large for the stack, whose 512 bytes are
 * for a whole chain of calls, so each CPU has a place for it: packets are not interrupted by
 * packets.
 */
#ifndef MIDONET_STATE_H
#define MIDONET_STATE_H

#include "packet.h"

/* An overlay packet: where it came from and what it is for. */
struct overlay {
	struct midonet_peer_key peer;
	__u32 key;   /* tunnel key */
	__u32 outer; /* bytes between the outer Ethernet header and the inner frame */
} __attribute__((aligned(8)));

/* The outer headers of IPv4 and IPv6, the first 8 bytes of what comes behind them included. */
#define OUTER_IPV4_SIZE (ETHERNET_SIZE + IPV4_SIZE + 8)
#define OUTER_IPV6_SIZE (ETHERNET_SIZE + IPV6_SIZE + 8)

struct state {
	struct packet packet;
	struct midonet_action action; /* copy of what was found for it */
	struct midonet_output output; /* copy of the output in hand, when it is not inline */
	struct midonet_tunnel tunnel; /* copy of the tunnel in hand */
	struct overlay overlay;       /* of a packet from the underlay, as is what follows */
	struct midonet_delivery delivery;
	__u8 room[OUTER_IPV6_SIZE];   /* for headers that are not linear */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
} states SEC(".maps");

static __always_inline struct state *get_state(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&states, &zero);
}

/* Begin with a packet. */
static __always_inline struct state *new_state(__u32 slot)
{
	struct state *state = get_state();

	if (state) {
		__builtin_memset(&state->packet, 0, sizeof(state->packet));
		state->packet.key.port = slot;
	}
	return state;
}

#endif /* MIDONET_STATE_H */
