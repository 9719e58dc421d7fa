/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * From a packet to its program. A packet like one before it: the hint names the record, and the
 * record says whether it is for this packet; nothing is hashed. Else the masks of the ingress port
 * are tried in turn on one hash, beginning with the one that found the last new class of its kind.
 */
#ifndef MIDONET_CLASSIFY_H
#define MIDONET_CLASSIFY_H

#include "hash.h"
#include "records.h"

#define KEY_WORDS (sizeof(struct midonet_class_key) / sizeof(__u64))

_Static_assert(sizeof(struct midonet_class_key) % sizeof(__u64) == 0, "the key is masked by words");

/* A cheap digest of what tells connections apart. */
static __always_inline __u32 hint_tag(const struct midonet_class_key *key)
{
	const __u64 *source = (const void *)key->ip_src;
	const __u64 *destination = (const void *)key->ip_dst;
	__u64 value = ((__u64)key->l4_src << 48 | (__u64)key->l4_dst << 32 | key->ip_proto << 24) ^
		      key->port ^ (__u64)key->eth_type << 8;

	value = (value ^ source[0] ^ source[1]) * 0x9e3779b97f4a7c15ull;
	value = (value ^ value >> 32 ^ destination[0] ^ destination[1]) * 0x9e3779b97f4a7c15ull;
	return value >> 32;
}

/* Digest of what packets of new connections of one kind share. The direction: towards the lower
 * port, which is that of a service, or from it. */
static __always_inline __u32 kind_index(const struct midonet_class_key *key)
{
	__u32 value = key->port * 0x9e3779b9u ^ key->eth_type << 16 ^ key->ip_proto << 8 ^
		      key->ip_frag << 4 ^ (key->eth_dst[0] & 1) << 1;

	value ^= bpf_ntohs(key->l4_src) < bpf_ntohs(key->l4_dst);
	return (value * 0x9e3779b9u) >> 22 & (MASK_HINTS - 1);
}

static __always_inline int is_for(const struct midonet_program *program, const struct packet *packet)
{
	const __u64 *key = (const void *)&packet->key, *mask = (const void *)&program->mask,
		    *wanted = (const void *)&program->key;
	__u64 difference = 0;

	/* The first word is the place: its mask_id is of the record and not of the packet. */
	if (program->key.port != packet->key.port)
		return 0;
#pragma unroll
	for (unsigned int i = 1; i < KEY_WORDS; i++)
		difference |= (key[i] & mask[i]) ^ wanted[i];
	return !difference;
}

/* Copy the action of the program at an index, if it is one for this packet. */
static __always_inline int take_program(struct state *state, __u32 index)
{
	struct midonet_program *program = bpf_map_lookup_elem(&programs, &index);
	__u32 seen;

	if (!program)
		return 0;
	seen = begin_read(&program->sequence);
	if (!seen)
		return 0;
	if (program->mask.flow_hash && !state->packet.key.flow_hash &&
	    fill_flow_hash(&state->packet))
		return 0;
	if (!is_for(program, &state->packet))
		return 0;
	state->action = program->action;
	return is_unchanged(&program->sequence, seen);
}

/* Index of the class of a packet under one mask, 0 when there is none. */
static __always_inline __u32 look_up_masked(const struct midonet_class_key *key,
					    const struct midonet_class_key *mask, __u32 mask_id)
{
	struct midonet_class_key masked __attribute__((aligned(8)));
	const __u64 *from = (const void *)key, *bits = (const void *)mask;
	__u64 *to = (void *)&masked;
	__u32 *found;

#pragma unroll
	for (unsigned int i = 0; i < KEY_WORDS; i++)
		to[i] = from[i] & bits[i];
	masked.port = key->port;
	masked.mask_id = mask_id;
	found = bpf_map_lookup_elem(&classes, &masked);
	return found ? *(volatile __u32 *)found : 0;
}

/* Find the program of a packet under one mask; leaves its action in state. Returns its index, 0 when
 * there is none. A class whose program was replaced in between names another one by now. */
__noinline __u32 try_mask(struct state *state, struct midonet_class_key *mask, __u32 mask_id)
{
	if (!state || !mask)
		return 0;
	for (int i = 0; i < TRIES; i++) {
		__u32 index = look_up_masked(&state->packet.key, mask, mask_id);

		if (!index)
			return 0;
		if (take_program(state, index))
			return index;
	}
	return 0;
}

/* Find the program by the masks of the port; leaves its action in state. Returns 1 when found. */
__noinline int scan_masks(struct state *state, __u32 hint_index)
{
	struct midonet_port_masks *masks;
	struct midonet_class_key *list;
	__u32 slot, kind, valid, first, *hint, *program_hint;

	if (!state)
		return 0;
	slot = state->packet.key.port;
	kind = kind_index(&state->packet.key);
	masks = bpf_map_lookup_elem(&port_masks, &slot);
	hint = bpf_map_lookup_elem(&mask_hints, &kind);
	program_hint = bpf_map_lookup_elem(&program_hints, &hint_index);
	if (!masks || !hint || !program_hint)
		return 0;
	valid = masks->valid;
	if (masks->uses_hash && !state->packet.key.flow_hash && fill_flow_hash(&state->packet))
		return 0;
	list = is_ipv6(&state->packet) ? masks->ipv6 : masks->other;
	first = *hint & (MIDONET_MASKS_PER_PORT - 1);
	for (__u32 i = 0; i <= MIDONET_MASKS_PER_PORT; i++) {
		__u32 id = i ? i - 1 : first, index;

		if (!(valid >> id & 1) || (i && id == first))
			continue;
		index = try_mask(state, &list[id & (MIDONET_MASKS_PER_PORT - 1)], id);
		if (index) {
			*program_hint = index;
			*hint = id;
			return 1;
		}
	}
	return 0;
}

/* Find the program of a packet and leave a copy of its action in state. Returns 1 when found. */
static __always_inline int classify(struct state *state)
{
	__u32 index = hint_tag(&state->packet.key) & (PROGRAM_HINTS - 1);
	__u32 *hint = bpf_map_lookup_elem(&program_hints, &index);

	if (hint && *hint && take_program(state, *hint))
		return 1;
	return scan_masks(state, index);
}

/* Conditions that are not part of the key: 1 when the packet meets them. */
static __always_inline int meets_guards(struct __sk_buff *skb, const struct packet *packet,
					const struct midonet_guards *guards)
{
	__u32 length = packet->ip_length;

	if (!is_ip(packet))
		return 1;
	if (packet->ttl <= guards->ttl_above || (packet->tcp_flags & guards->tcp_flags_clear))
		return 0;
	if (!guards->max_length)
		return 1;
	if (skb->gso_size) { /* of one segment */
		__u32 header = 0;

		length = skb->gso_size;
		if (packet->l4_offset) {
			header = packet->l4_offset - L3_OFFSET;
			if (packet->key.ip_proto == PROTOCOL_UDP)
				header += 8;
			if (packet->key.ip_proto == PROTOCOL_TCP) {
				__u8 data_offset;

				if (bpf_skb_load_bytes(skb, packet->l4_offset + 12, &data_offset, 1))
					return 0;
				header += (data_offset >> 4) * 4;
			}
		}
		length += header;
	}
	return length <= guards->max_length;
}

static __always_inline void count_program(struct __sk_buff *skb, __u32 program_id)
{
	struct midonet_config *settings = get_config();
	struct midonet_statistics *slot;
	__u32 width, index, cpu = bpf_get_smp_processor_id();
	__u64 packets = skb->gso_segs ? skb->gso_segs : 1;
	__u64 bytes = skb->len + (skb->vlan_present ? 4 : 0);

	if (!settings)
		return;
	width = settings->statistics_width;
	if (!width || program_id >= settings->statistics_stride)
		return;
	index = (cpu < width ? cpu : cpu % width) * settings->statistics_stride + program_id;
	slot = bpf_map_lookup_elem(&statistics, &index);
	if (!slot)
		return;
	if (settings->flags & MIDONET_CONFIG_SHARED_COUNTERS) {
		__sync_fetch_and_add(&slot->packets, packets);
		__sync_fetch_and_add(&slot->bytes, bytes);
	} else { /* a slot of this CPU's own, and packets are not interrupted by packets */
		slot->packets += packets;
		slot->bytes += bytes;
	}
	slot->last_used_ns = bpf_ktime_get_coarse_ns() + settings->boot_offset_ns;
}

#endif /* MIDONET_CLASSIFY_H */
