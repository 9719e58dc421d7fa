/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The flow hash, equal to src/midonet/packets/flow_hash.py bit by bit.
 */
#ifndef MIDONET_HASH_H
#define MIDONET_HASH_H

#include "packet.h"

/* Finaliser of MurmurHash3, 32 bits. */
static __always_inline __u32 hash_mix(__u32 value)
{
	value ^= value >> 16;
	value *= 0x85ebca6b;
	value ^= value >> 13;
	value *= 0xc2b2ae35;
	return value ^ value >> 16;
}

static __always_inline __u32 hash_half(__u32 seed, const __u8 *address, __u16 port)
{
	const __be32 *words = (const void *)address;
	__u32 value = seed;

#pragma unroll
	for (int i = 0; i < 4; i++)
		value = hash_mix(value ^ bpf_ntohl(words[i]));
	return hash_mix(value ^ port);
}

/* Direction-symmetric hash of an IP packet's tuple; 0 for other frames. ICMP and fragments hash
 * on addresses and protocol only. */
static __always_inline __u32 flow_hash(const struct packet *packet, __u64 seed)
{
	const struct midonet_class_key *key = &packet->key;
	__u16 source = 0, destination = 0;
	__u32 total;

	if (!is_ip(packet))
		return 0;
	if (key->ip_frag == MIDONET_FRAGMENT_NONE &&
	    (key->ip_proto == PROTOCOL_TCP || key->ip_proto == PROTOCOL_UDP ||
	     key->ip_proto == PROTOCOL_SCTP)) {
		source = bpf_ntohs(key->l4_src);
		destination = bpf_ntohs(key->l4_dst);
	}
	total = hash_half(seed >> 32, key->ip_src, source) +
		hash_half(seed >> 32, key->ip_dst, destination);
	return hash_mix(total ^ (__u32)seed ^ key->ip_proto);
}

/* Compute the hash in a function of its own: few ports read it. */
__noinline int fill_flow_hash(struct packet *packet)
{
	struct midonet_config *settings = get_config();

	if (!packet || !settings)
		return -1;
	packet->key.flow_hash = bpf_htonl(flow_hash(packet, settings->hash_seed));
	return 0;
}

/* Make the flow hash the packet's own, so that it survives rewrites and the way through another
 * interface: tunnels take their source port from it. */
static __always_inline void use_flow_hash(struct __sk_buff *skb, struct packet *packet)
{
	if (!packet->key.flow_hash)
		fill_flow_hash(packet);
	bpf_set_hash(skb, bpf_ntohl(packet->key.flow_hash));
}

#endif /* MIDONET_HASH_H */
