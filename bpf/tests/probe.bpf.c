// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * Test entry points around single concerns of the datapath. Each leaves what it computed in the
 * probe map, because a test run reports nothing but bytes and a return code.
 */
#include "lib/classify.h"
#include "lib/output.h"
#include "lib/parse.h"

char license_text[] SEC("license") = "GPL"; /* which the kernel asks for; see SPDX above */

struct probe {
	struct midonet_class_key key;
	__u32 l4_offset;
	__u32 ip_length;
	__u32 ttl;
	__u32 vlan_tci;
	struct midonet_rewrite rewrite; /* in: what probe_rewrite applies */
	struct midonet_tunnel tunnel;   /* in: what probe_encapsulate uses */
	__u32 kind;
	__u32 tunnel_key;
	__u64 hash_seed;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct probe);
} probe SEC(".maps");

static __always_inline struct probe *get_probe(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&probe, &zero);
}

/* The tag beside the bytes, with bit 16 set; 0 when there is none. The verifier takes a field of the
 * context only at its offset from the context, which the compiler likes to compute before. */
static __always_inline __u32 tag_of(struct __sk_buff *skb)
{
	asm volatile("" : "+r"(skb));
	return skb->vlan_present ? skb->vlan_tci | 0x10000 : 0;
}

SEC("tc")
int probe_parse(struct __sk_buff *skb)
{
	struct probe *room = get_probe();
	struct packet packet = {};

	if (!room || parse_packet(skb, &packet))
		return -1;
	packet.key.flow_hash = bpf_htonl(flow_hash(&packet, room->hash_seed));
	room->key = packet.key;
	room->l4_offset = packet.l4_offset;
	room->ip_length = packet.ip_length;
	room->ttl = packet.ttl;
	room->vlan_tci = tag_of(skb);
	return 0;
}

SEC("tc")
int probe_rewrite(struct __sk_buff *skb)
{
	struct probe *room = get_probe();
	struct packet packet = {};

	if (!room || parse_packet(skb, &packet))
		return -1;
	if (rewrite_packet(skb, &packet, &room->rewrite))
		return -2;
	room->vlan_tci = tag_of(skb);
	return 0;
}

/* Rewrite, then rewrite with an empty template: everything must be as it was. */
SEC("tc")
int probe_restore(struct __sk_buff *skb)
{
	struct probe *room = get_probe();
	struct packet packet = {};
	struct midonet_rewrite nothing = {};

	if (!room || parse_packet(skb, &packet))
		return -1;
	if (rewrite_packet(skb, &packet, &room->rewrite) ||
	    rewrite_packet(skb, &packet, &nothing))
		return -2;
	room->vlan_tci = tag_of(skb);
	return 0;
}

SEC("tc")
int probe_encapsulate(struct __sk_buff *skb)
{
	struct probe *room = get_probe();

	struct packet packet = {};

	if (!room || parse_packet(skb, &packet))
		return -1;
	return encapsulate(skb, &room->tunnel, room->kind, room->tunnel_key);
}

SEC("tc")
int probe_guards(struct __sk_buff *skb)
{
	struct probe *room = get_probe();
	struct packet packet = {};
	struct midonet_guards guards = {};

	if (!room || parse_packet(skb, &packet))
		return -1;
	guards.max_length = room->kind;
	guards.ttl_above = room->tunnel_key & 0xff;
	guards.tcp_flags_clear = room->tunnel_key >> 16;
	return meets_guards(skb, &packet, &guards);
}
