/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Budgets of a port: packets that go up, and copies for several outputs.
 *
 * Generic cell rate algorithm: conforming while the theoretical arrival time is at most a burst
 * ahead of now. One compare-and-swap; when other CPUs win it four times over, the packet
 * is refused, which errs on the side of the budget.
 */
#ifndef MIDONET_BUDGET_H
#define MIDONET_BUDGET_H

#include "packet.h"

static __always_inline int take_tokens(__u64 *arrival_ns, __u64 cost_ns, __u64 burst_ns, __u64 now)
{
	for (int i = 0; i < 4; i++) {
		__u64 seen = *(volatile __u64 *)arrival_ns;
		__u64 next = (seen > now ? seen : now) + cost_ns;

		if (next > now + burst_ns)
			return 0;
		if (__sync_val_compare_and_swap(arrival_ns, seen, next) == seen)
			return 1;
	}
	return 0;
}

static __always_inline int take_upcall_token(const struct midonet_port *port, __u32 slot, __u64 now)
{
	struct midonet_port_state *state = bpf_map_lookup_elem(&port_states, &slot);

	return state && take_tokens(&state->upcall_tat_ns, port->upcall_interval_ns,
				    port->upcall_burst_ns, now);
}

/* Tokens for all copies of a packet, or none. What comes from other hosts was limited there. */
static __always_inline int take_copy_tokens(__u32 slot, __u32 count)
{
	struct midonet_port_state *state = bpf_map_lookup_elem(&port_states, &slot);
	struct midonet_port *port = bpf_map_lookup_elem(&ports, &slot);

	if (slot == MIDONET_OVERLAY_SLOT)
		return 1;
	return state && port &&
	       take_tokens(&state->copy_tat_ns, port->copy_interval_ns * count,
			   port->copy_burst_ns, bpf_ktime_get_boot_ns());
}

#endif /* MIDONET_BUDGET_H */
