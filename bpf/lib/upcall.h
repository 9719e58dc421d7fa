/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Packets for the agent: a budget for each port, then a record with a copy. The packet itself
 * ends here; it comes back by injection once the agent has decided.
 */
#ifndef MIDONET_UPCALL_H
#define MIDONET_UPCALL_H

#include "budget.h"
#include "hash.h"
#include "packet.h"

/* A packet does not go up. A copy is only a copy. */
static __always_inline int refuse(__u32 slot, __u32 reason, __u32 drop_reason)
{
	return reason == MIDONET_UPCALL_EARLIER ? TC_ACT_SHOT : drop(slot, drop_reason);
}

__noinline int upcall(struct __sk_buff *skb, struct packet *packet, __u32 reason, __u32 program_id)
{
	struct upcall_scratch *room;
	struct midonet_upcall *record;
	struct midonet_port *port;
	__u32 slot, size, zero = 0;
	__u64 now = bpf_ktime_get_boot_ns();

	if (!packet)
		return TC_ACT_SHOT;
	slot = packet->key.port;
	port = bpf_map_lookup_elem(&ports, &slot);
	room = bpf_map_lookup_elem(&scratch, &zero);
	if (!port || !room)
		return drop(slot, MIDONET_DROP_UNKNOWN_INGRESS_PORT);
	if (!take_upcall_token(port, slot, now))
		return refuse(slot, reason, MIDONET_DROP_UPCALL_RATE);
	fill_flow_hash(packet);
	record = &room->record;
	record->received_ns = now;
	record->port = slot;
	record->incarnation = port->incarnation;
	record->length = skb->len;
	record->gso_size = skb->gso_size;
	record->gso_segments = skb->gso_segs;
	record->program_id = program_id;
	record->flow_hash = bpf_ntohl(packet->key.flow_hash);
	record->vlan_tci = 0;
	if (packet->vlan_proto)
		record->vlan_tci = bpf_htons(packet->vlan_tci);
	record->vlan_proto = packet->vlan_proto;
	record->reason = reason;
	record->reserved0 = 0;
	record->reserved1 = 0;
	size = skb->len;
	if (size > MIDONET_UPCALL_BYTES)
		size = MIDONET_UPCALL_BYTES;
	/* The verifier loses the lower bound of a value that it saw only as a field of skb. */
	asm volatile("" : "+r"(size));
	if (size < ETHERNET_SIZE || size > MIDONET_UPCALL_BYTES)
		return drop(slot, MIDONET_DROP_MALFORMED);
	record->captured = size;
	if (bpf_skb_load_bytes(skb, 0, room->frame, size))
		return drop(slot, MIDONET_DROP_MALFORMED);
	if (bpf_ringbuf_output(&upcalls, room, sizeof(*record) + size, 0))
		return refuse(slot, reason, MIDONET_DROP_UPCALL_RING_FULL);
	return TC_ACT_SHOT;
}

/* State frames that all hosts together may send up, and how many at once. A host sends a few for each
 * connection that begins or ends. */
#define STATE_INTERVAL_NS 20000ULL
#define STATE_BURST_NS (10000 * STATE_INTERVAL_NS)

/* Hand the inner frame at `offset` to the agent: another host's agent made it. Only the agent can
 * tell whether that is so. */
__noinline int upcall_state(struct __sk_buff *skb, __u32 offset)
{
	struct midonet_port_state *budget;
	struct upcall_scratch *room;
	struct midonet_upcall *record;
	__u32 size, zero = 0, slot = MIDONET_OVERLAY_SLOT;
	__u64 now = bpf_ktime_get_boot_ns();

	budget = bpf_map_lookup_elem(&port_states, &slot);
	room = bpf_map_lookup_elem(&scratch, &zero);
	if (!budget || !room)
		return drop(slot, MIDONET_DROP_INTERNAL);
	if (!take_tokens(&budget->upcall_tat_ns, STATE_INTERVAL_NS, STATE_BURST_NS, now))
		return drop(slot, MIDONET_DROP_UPCALL_RATE);
	size = skb->len;
	asm volatile("" : "+r"(size));
	if (skb->gso_size || offset > 256 || size < offset + ETHERNET_SIZE ||
	    size > offset + MIDONET_UPCALL_BYTES)
		return drop(slot, MIDONET_DROP_OVERLAY_MALFORMED);
	size -= offset;
	asm volatile("" : "+r"(size));
	if (size < ETHERNET_SIZE || size > MIDONET_UPCALL_BYTES)
		return drop(slot, MIDONET_DROP_OVERLAY_MALFORMED);
	record = &room->record;
	__builtin_memset(record, 0, sizeof(*record));
	record->received_ns = now;
	record->length = size;
	record->captured = size;
	record->reason = MIDONET_UPCALL_STATE;
	if (bpf_skb_load_bytes(skb, offset, room->frame, size))
		return drop(slot, MIDONET_DROP_OVERLAY_MALFORMED);
	if (bpf_ringbuf_output(&upcalls, room, sizeof(*record) + size, 0))
		return drop(slot, MIDONET_DROP_UPCALL_RING_FULL);
	return TC_ACT_SHOT;
}

#endif /* MIDONET_UPCALL_H */
