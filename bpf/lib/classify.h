/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * From a key to its program: the masks of the ingress port are tried in turn on one hash, the
 * one that matched a packet like this last time first.
 */
#ifndef MIDONET_CLASSIFY_H
#define MIDONET_CLASSIFY_H

#include "hash.h"
#include "packet.h"

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

static __always_inline struct midonet_program *
look_up_masked(const struct midonet_class_key *key, const struct midonet_class_key *mask,
	       __u32 mask_id)
{
	struct midonet_class_key masked __attribute__((aligned(8)));
	const __u64 *from = (const void *)key, *bits = (const void *)mask;
	__u64 *to = (void *)&masked;

#pragma unroll
	for (unsigned int i = 0; i < KEY_WORDS; i++)
		to[i] = from[i] & bits[i];
	masked.port = key->port;
	masked.mask_id = mask_id;
	return bpf_map_lookup_elem(&programs, &masked);
}

static __always_inline struct midonet_program *classify(struct packet *packet)
{
	struct midonet_class_key *key = &packet->key;
	struct midonet_port_masks *masks;
	const struct midonet_class_key *list;
	struct midonet_mask_hint *hint;
	struct midonet_program *program;
	__u32 slot = key->port, tag, index, valid;

	masks = bpf_map_lookup_elem(&port_masks, &slot);
	if (!masks)
		return NULL;
	valid = masks->valid;
	if (masks->uses_hash && fill_flow_hash(packet))
		return NULL;
	list = is_ipv6(packet) ? masks->ipv6 : masks->other;
	tag = hint_tag(key);
	index = tag & (MASK_HINTS - 1);
	hint = bpf_map_lookup_elem(&mask_hints, &index);
	if (!hint)
		return NULL;
	if (hint->tag == tag) {
		__u32 id = hint->mask_id & (MIDONET_MASKS_PER_PORT - 1);

		if (valid >> id & 1) {
			program = look_up_masked(key, &list[id], id);
			if (program)
				return program;
		}
	}
	for (__u32 id = 0; id < MIDONET_MASKS_PER_PORT; id++) {
		if (!(valid >> id))
			break;
		if (!(valid >> id & 1))
			continue;
		program = look_up_masked(key, &list[id], id);
		if (program) {
			hint->tag = tag;
			hint->mask_id = id;
			return program;
		}
	}
	return NULL;
}

/* Conditions that are not part of the key: 1 when the packet meets them. */
static __always_inline int meets_guards(struct __sk_buff *skb, const struct packet *packet,
					const struct midonet_guards *guards)
{
	__u32 length = packet->ip_length;

	if (!is_ip(packet))
		return 1;
	if (packet->ttl <= guards->ttl_above)
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
	if (!width)
		return;
	index = program_id * width + (cpu < width ? cpu : cpu % width);
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
