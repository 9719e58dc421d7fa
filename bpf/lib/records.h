/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Reading what the agent writes at the same time. A record is copied between two reads of its
 * sequence, and says itself what it is: a stale index, or an element of a hash that was used for
 * another key in between, never leads to somebody else's program, output, tunnel or port.
 */
#ifndef MIDONET_RECORDS_H
#define MIDONET_RECORDS_H

#include "state.h"

/* Set before loading where the CPU reorders loads; elsewhere the barrier is not even compiled. */
SEC(".rodata.cpu") const volatile __u32 reorders_loads = 0;

#define TRIES 4 /* the agent writes a record in a microsecond */

static __always_inline void order_loads(void)
{
	asm volatile("" ::: "memory");
	if (reorders_loads) {
		__u64 anything = 0;

		__sync_fetch_and_add(&anything, 1); /* a full barrier, as every such value-returning one */
	}
}

/* Sequence of a record that is valid, else 0. */
static __always_inline __u32 begin_read(const __u32 *sequence)
{
	__u32 seen = *(const volatile __u32 *)sequence;

	order_loads();
	return seen & 1 ? 0 : seen;
}

static __always_inline int is_unchanged(const __u32 *sequence, __u32 seen)
{
	order_loads();
	return *(const volatile __u32 *)sequence == seen;
}

/* Copy the output with an identifier; 0 when it is not there any more. */
static __always_inline int take_output(struct state *state, __u32 identifier)
{
	struct midonet_config *settings = get_config();
	struct midonet_output_record *record;
	__u32 index, seen;

	if (!settings || !settings->output_slots)
		return 0;
	index = identifier & (settings->output_slots - 1);
	record = bpf_map_lookup_elem(&outputs, &index);
	if (!record)
		return 0;
	seen = begin_read(&record->sequence);
	if (!seen || record->identifier != identifier)
		return 0;
	state->output = record->output;
	return is_unchanged(&record->sequence, seen);
}

/* Copy the tunnel with an identifier; 0 when there is none. Its route may change under way, so it
 * is tried again. */
static __always_inline int take_tunnel(struct state *state, __u32 identifier)
{
	__u32 index = identifier & (MIDONET_TUNNELS_MAX - 1);
	struct midonet_tunnel *record = bpf_map_lookup_elem(&tunnels, &index);

	if (!record)
		return 0;
	for (int i = 0; i < TRIES; i++) {
		__u32 seen = begin_read(&record->sequence);

		if (!seen)
			continue;
		state->tunnel = *record;
		if (is_unchanged(&record->sequence, seen))
			return state->tunnel.identifier == identifier;
	}
	return 0;
}

/* Copy the delivery of a tunnel key; 0 when there is none. */
static __always_inline int take_delivery(struct midonet_delivery *copy, __u32 tunnel_key)
{
	for (int i = 0; i < TRIES; i++) {
		__u32 *index = bpf_map_lookup_elem(&tunnel_keys, &tunnel_key), at, seen;
		struct midonet_delivery *record;

		if (!index)
			return 0;
		at = *(volatile __u32 *)index;
		record = bpf_map_lookup_elem(&deliveries, &at);
		if (!record)
			return 0;
		seen = begin_read(&record->sequence);
		if (!seen)
			continue;
		*copy = *record;
		if (is_unchanged(&record->sequence, seen) && copy->tunnel_key == tunnel_key)
			return 1;
	}
	return 0;
}

#endif /* MIDONET_RECORDS_H */
