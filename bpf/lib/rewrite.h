/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Applies a rewrite template. Templates are relative to the packet as it entered, so that the
 * copies of a flood can each have their own: what an earlier copy changed and this one does not
 * set is put back from the key. Checksums are updated, never recomputed (RFC 1624), so a wrong
 * one stays wrong, and one that the sender's device was to complete stays so. A sum that a receiving
 * device made of the whole packet (CHECKSUM_COMPLETE) is kept right too: a field that no checksum in
 * the packet covers changes it (BPF_F_RECOMPUTE_CSUM), others cancel out.
 */
#ifndef MIDONET_REWRITE_H
#define MIDONET_REWRITE_H

#include "packet.h"

/* Offset of the checksum in the L4 header, -1 when there is none that this program may change. */
static __always_inline int checksum_offset(const struct packet *packet)
{
	if (!packet->l4_offset)
		return -1;
	switch (packet->key.ip_proto) {
	case PROTOCOL_TCP:
		return packet->l4_offset + 16;
	case PROTOCOL_UDP:
		return packet->l4_offset + 6;
	case PROTOCOL_ICMPV6:
		return is_ipv6(packet) ? packet->l4_offset + 2 : -1;
	}
	return -1;
}

static __always_inline __u64 mangled_flag(const struct packet *packet)
{
	return packet->key.ip_proto == PROTOCOL_UDP ? BPF_F_MARK_MANGLED_0 : 0;
}

struct ipv6_address {
	__be32 words[4];
};

__noinline int set_ipv6_address(struct __sk_buff *skb, struct packet *packet, __u32 offset,
				struct ipv6_address *address)
{
	__be32 old[4];
	__s64 difference;
	int checksum;

	if (!packet || !address || bpf_skb_load_bytes(skb, offset, old, sizeof(old)))
		return -1;
	difference = bpf_csum_diff(old, 16, address->words, 16, 0);
	checksum = checksum_offset(packet);
	if (difference < 0 ||
	    (checksum >= 0 && bpf_l4_csum_replace(skb, checksum, 0, difference,
						  BPF_F_PSEUDO_HDR | mangled_flag(packet))))
		return -1;
	/* The device's sum of the whole packet (CHECKSUM_COMPLETE). Replacing took the difference off,
	 * which is right for IPv4, whose header has a sum of its own; where nothing was replaced,
	 * the address is what changed. Both ways it is missing. Linux 6.16 has BPF_F_IPV6 for the
	 * first, and other kernels refuse that flag. Without such a sum this does nothing. */
	bpf_csum_update(skb, difference);
	return bpf_skb_store_bytes(skb, offset, address, sizeof(*address), 0);
}

/* CRC32c is linear: a changed field changes the sum by the CRC of the difference followed by as
 * many zero bytes as lie behind the field. Appending a zero byte is multiplying by x^8 modulo the
 * polynomial; POWERS[k] is x^(8 * 2^k). All bits are reflected (RFC 9260 appendix A). */
#define CRC32C_POLYNOMIAL 0x82f63b78u
#define CRC32C_POWERS 17

static const __u32 POWERS[CRC32C_POWERS] = {
	0x00800000, 0x00008000, 0x82f63b78, 0x6ea2d55c, 0x18b8ea18,
	0x510ac59a, 0xb82be955, 0xb8fdb1e7, 0x88e56f72, 0x74c360a4,
	0xe4172b16, 0x0d65762a, 0x35d73a62, 0x28461564, 0xbf455269,
	0xe2ea32dc, 0xfe7740e6,
};

/* Multiplying by a bit keeps the compiler from a branch and the verifier from looking at 0 and 1
 * apart: either would double the paths at every step. */
static __always_inline __u32 opaque(__u32 bit)
{
	asm volatile("" : "+r"(bit));
	return bit;
}

__noinline int crc32c_multiply(__u32 left, __u32 right)
{
	__u32 product = 0;

	for (int i = 0; i < 32; i++) {
		product ^= right * opaque(left >> 31);
		left <<= 1;
		right = right >> 1 ^ CRC32C_POLYNOMIAL * opaque(right & 1);
	}
	return product;
}

/* What to xor into the sum. difference: the 16 bits as they lie in memory, old xor new. */
__noinline int crc32c_change(__u32 difference, __u32 trailing)
{
	__u32 value = difference & 0xffff;

	for (int i = 0; i < 16; i++)
		value = value >> 1 ^ CRC32C_POLYNOMIAL * opaque(value & 1);
	/* 0x80000000 is x^0. */
	for (__u32 i = 0; i < CRC32C_POWERS; i++) {
		__u32 bit = opaque(trailing >> i & 1);

		value = crc32c_multiply(POWERS[i] * bit + 0x80000000u * (1 - bit), value);
	}
	return value;
}

static __always_inline int update_sctp_checksum(struct __sk_buff *skb, const struct packet *packet,
						__u32 offset, __u16 difference)
{
	__u32 at = packet->l4_offset + 8;
	__u8 sum[4];
	__u32 change;

	change = crc32c_change(difference, L3_OFFSET + packet->ip_length - offset - 2);
	if (bpf_skb_load_bytes(skb, at, sum, sizeof(sum)))
		return -1;
	for (int i = 0; i < 4; i++)
		sum[i] ^= change >> 8 * i;
	return bpf_skb_store_bytes(skb, at, sum, sizeof(sum), BPF_F_RECOMPUTE_CSUM);
}

/* Ports of TCP, UDP and SCTP; a packet without ports stays as it is. offset: in the L4 header. */
__noinline int set_port(struct __sk_buff *skb, struct packet *packet, __u32 offset, __u32 port)
{
	__be16 old, new = port;
	__u64 flags = BPF_F_RECOMPUTE_CSUM;
	__u8 protocol;
	int checksum;

	if (!packet)
		return -1;
	protocol = packet->key.ip_proto;
	if (!packet->l4_offset || (protocol != PROTOCOL_TCP && protocol != PROTOCOL_UDP &&
				   protocol != PROTOCOL_SCTP))
		return 0;
	offset += packet->l4_offset;
	if (bpf_skb_load_bytes(skb, offset, &old, sizeof(old)))
		return -1;
	if (old == new)
		return 0;
	if (protocol == PROTOCOL_SCTP) {
		/* The first byte on the wire is the low one of the reflected sum. */
		__u16 difference = bpf_ntohs(old ^ new);

		if (update_sctp_checksum(skb, packet, offset, difference >> 8 | difference << 8))
			return -1;
	} else {
		__be16 sum;

		checksum = checksum_offset(packet);
		if (bpf_skb_load_bytes(skb, checksum, &sum, sizeof(sum)) ||
		    bpf_l4_csum_replace(skb, checksum, old, new, mangled_flag(packet) | 2))
			return -1;
		if (sum || protocol != PROTOCOL_UDP)
			flags = 0;
	}
	return bpf_skb_store_bytes(skb, offset, &new, sizeof(new), flags);
}

static __always_inline void choose_macs(__u8 macs[12], const struct packet *packet,
					const struct midonet_rewrite *rewrite)
{
	__builtin_memcpy(macs, rewrite->fields & MIDONET_REWRITE_ETH_DST ? rewrite->eth_dst
									 : packet->key.eth_dst, 6);
	__builtin_memcpy(macs + 6, rewrite->fields & MIDONET_REWRITE_ETH_SRC ? rewrite->eth_src
									     : packet->key.eth_src, 6);
}

#define MAC_FIELDS (MIDONET_REWRITE_ETH_DST | MIDONET_REWRITE_ETH_SRC)
#define ADDRESS_FIELDS (MIDONET_REWRITE_IP_SRC | MIDONET_REWRITE_IP_DST)
#define PORT_FIELDS (MIDONET_REWRITE_L4_SRC | MIDONET_REWRITE_L4_DST)

/* The TTL that a rewrite leaves, relative to the packet as it came. A guard lets no packet by with
 * which it would not stay above zero. */
static __always_inline int lowered_ttl(const struct packet *packet,
				       const struct midonet_rewrite *rewrite)
{
	if (!(rewrite->fields & MIDONET_REWRITE_TTL))
		return packet->ttl;
	return packet->ttl <= rewrite->ttl_decrement ? -1 : packet->ttl - rewrite->ttl_decrement;
}

static __always_inline int rewrite_ports(struct __sk_buff *skb, struct packet *packet,
					 const struct midonet_rewrite *rewrite, __u32 fields)
{
	__u32 set = rewrite->fields;

	if ((fields & MIDONET_REWRITE_L4_SRC) &&
	    set_port(skb, packet, 0,
		     set & MIDONET_REWRITE_L4_SRC ? rewrite->l4_src : packet->key.l4_src))
		return -1;
	if ((fields & MIDONET_REWRITE_L4_DST) &&
	    set_port(skb, packet, 2,
		     set & MIDONET_REWRITE_L4_DST ? rewrite->l4_dst : packet->key.l4_dst))
		return -1;
	return 0;
}

/* Both headers of an IPv4 frame; two bytes in front align the addresses on the stack. */
struct ipv4_frame {
	__u8 pad[2];
	__u8 macs[12];
	__be16 type;
	__be16 words[6]; /* the IPv4 header up to its checksum, which is the last */
	__be32 addresses[2];
} __attribute__((packed, aligned(8)));

/* Change of a one's complement sum when a word of the data does (RFC 1624 equation 3). */
static __always_inline __u32 word_change(__u16 old, __u16 new)
{
	return (__u16)~old + (__u32)new;
}

/* MACs, addresses, TOS and TTL of an IPv4 frame in one read and one write. */
__noinline int rewrite_ipv4(struct __sk_buff *skb, struct packet *packet,
			    struct midonet_rewrite *rewrite)
{
	struct ipv4_frame frame;
	__be32 old[2];
	__u32 fields, set, sum = 0;
	__be16 first, fifth;
	int ttl, checksum;

	if (!packet || !rewrite ||
	    bpf_skb_load_bytes(skb, 0, frame.macs, ETHERNET_SIZE + IPV4_SIZE))
		return -1;
	set = rewrite->fields;
	fields = packet->rewritten | set;
	ttl = lowered_ttl(packet, rewrite);
	if (ttl < 0)
		return -1;
	choose_macs(frame.macs, packet, rewrite);
	__builtin_memcpy(old, frame.addresses, sizeof(old));
	if (fields & MIDONET_REWRITE_IP_SRC)
		__builtin_memcpy(&frame.addresses[0],
				 set & MIDONET_REWRITE_IP_SRC ? rewrite->ip_src : packet->key.ip_src,
				 4);
	if (fields & MIDONET_REWRITE_IP_DST)
		__builtin_memcpy(&frame.addresses[1],
				 set & MIDONET_REWRITE_IP_DST ? rewrite->ip_dst : packet->key.ip_dst,
				 4);
	first = frame.words[0];
	fifth = frame.words[4];
	((__u8 *)&frame.words[0])[1] =
		set & MIDONET_REWRITE_IP_TOS ? rewrite->ip_tos : packet->key.ip_tos;
	((__u8 *)&frame.words[4])[0] = ttl;
	sum = (__u16)~frame.words[5];
	sum += word_change(first, frame.words[0]) + word_change(fifth, frame.words[4]);
#pragma unroll
	for (int i = 0; i < 2; i++)
		sum += word_change(old[i], frame.addresses[i]) +
		       word_change(old[i] >> 16, frame.addresses[i] >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	frame.words[5] = ~sum;
	checksum = checksum_offset(packet);
	if ((fields & ADDRESS_FIELDS) && checksum >= 0) {
		__s64 difference = bpf_csum_diff(old, 8, frame.addresses, 8, 0);

		if (difference < 0 ||
		    bpf_l4_csum_replace(skb, checksum, 0, difference,
					BPF_F_PSEUDO_HDR | mangled_flag(packet)))
			return -1;
	}
	return bpf_skb_store_bytes(skb, 0, frame.macs, ETHERNET_SIZE + IPV4_SIZE, 0);
}

static __always_inline int set_ipv6_tos(struct __sk_buff *skb, __u8 tos)
{
	__u8 head[2];

	if (bpf_skb_load_bytes(skb, L3_OFFSET, head, sizeof(head)))
		return -1;
	head[0] = (head[0] & 0xf0) | tos >> 4;
	head[1] = (head[1] & 0x0f) | tos << 4;
	return bpf_skb_store_bytes(skb, L3_OFFSET, head, sizeof(head), BPF_F_RECOMPUTE_CSUM);
}

static __always_inline int set_address(struct __sk_buff *skb, struct packet *packet, __u32 offset,
				       const __u8 *bytes)
{
	struct ipv6_address address;

	__builtin_memcpy(&address, bytes, sizeof(address));
	return set_ipv6_address(skb, packet, offset, &address);
}

/* Everything but tags and ports of a frame that is not IPv4. */
__noinline int rewrite_other(struct __sk_buff *skb, struct packet *packet,
			     struct midonet_rewrite *rewrite)
{
	__u32 fields, set;
	__u8 macs[12] __attribute__((aligned(8)));
	__u8 hop_limit;
	int ttl;

	if (!packet || !rewrite)
		return -1;
	set = rewrite->fields;
	fields = packet->rewritten | set;
	if (fields & MAC_FIELDS) {
		choose_macs(macs, packet, rewrite);
		if (bpf_skb_store_bytes(skb, 0, macs, sizeof(macs), 0))
			return -1;
	}
	if (!is_ipv6(packet))
		return 0; /* it has no such fields */
	if ((fields & MIDONET_REWRITE_IP_SRC) &&
	    set_address(skb, packet, L3_OFFSET + 8,
			set & MIDONET_REWRITE_IP_SRC ? rewrite->ip_src : packet->key.ip_src))
		return -1;
	if ((fields & MIDONET_REWRITE_IP_DST) &&
	    set_address(skb, packet, L3_OFFSET + 24,
			set & MIDONET_REWRITE_IP_DST ? rewrite->ip_dst : packet->key.ip_dst))
		return -1;
	if ((fields & MIDONET_REWRITE_IP_TOS) &&
	    set_ipv6_tos(skb, set & MIDONET_REWRITE_IP_TOS ? rewrite->ip_tos : packet->key.ip_tos))
		return -1;
	ttl = lowered_ttl(packet, rewrite);
	if (ttl < 0)
		return -1;
	hop_limit = ttl;
	if (fields & MIDONET_REWRITE_TTL)
		return bpf_skb_store_bytes(skb, L3_OFFSET + 7, &hop_limit, 1, BPF_F_RECOMPUTE_CSUM);
	return 0;
}

#define VLAN_FIELDS (MIDONET_REWRITE_POP_VLAN | MIDONET_REWRITE_PUSH_VLAN)

/* Bring the tag back to what it was. Runs before anything else: a pushed tag may have moved
 * another one in front of L3. */
static __always_inline int restore_vlan(struct __sk_buff *skb, struct packet *packet)
{
	if ((packet->rewritten & MIDONET_REWRITE_PUSH_VLAN) && bpf_skb_vlan_pop(skb))
		return -1;
	if ((packet->rewritten & MIDONET_REWRITE_POP_VLAN) && packet->vlan_proto)
		return bpf_skb_vlan_push(skb, packet->vlan_proto, packet->vlan_tci);
	return 0;
}

/* Returns 0, or -1 when the kernel refused; the packet must then be dropped. */
__noinline int rewrite_packet(struct __sk_buff *skb, struct packet *packet,
			      struct midonet_rewrite *rewrite)
{
	__u32 fields;

	if (!packet || !rewrite)
		return -1;
	fields = packet->rewritten | rewrite->fields;
	if ((packet->rewritten & VLAN_FIELDS) && restore_vlan(skb, packet))
		return -1;
	if (fields & ~(VLAN_FIELDS | PORT_FIELDS)) {
		if (packet->key.eth_type == bpf_htons(ETHERTYPE_IPV4)) {
			if (rewrite_ipv4(skb, packet, rewrite))
				return -1;
		} else if (rewrite_other(skb, packet, rewrite)) {
			return -1;
		}
	}
	if ((fields & PORT_FIELDS) && rewrite_ports(skb, packet, rewrite, fields))
		return -1;
	if ((rewrite->fields & MIDONET_REWRITE_POP_VLAN) && bpf_skb_vlan_pop(skb))
		return -1;
	if ((rewrite->fields & MIDONET_REWRITE_PUSH_VLAN) &&
	    bpf_skb_vlan_push(skb, bpf_htons(ETHERTYPE_VLAN), bpf_ntohs(rewrite->push_vlan)))
		return -1;
	packet->rewritten = rewrite->fields;
	return 0;
}

#endif /* MIDONET_REWRITE_H */
