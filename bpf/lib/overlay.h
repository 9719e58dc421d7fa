/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Outer headers: VXLAN (RFC 7348) and GRE with key and Ethernet inside (RFC 2784, RFC 2890), over
 * IPv4 and IPv6, with the segmentation offload of the inner packet kept.
 *
 * bpf_skb_adjust_room() keeps the Ethernet header at the front and makes or takes room
 * behind it, so the inner one is saved before and written after. It works on packets whose
 * protocol, as the kernel keeps it beside the bytes, is IPv4 or IPv6; force_protocol() makes
 * it so for ARP and others.
 */
#ifndef MIDONET_OVERLAY_H
#define MIDONET_OVERLAY_H

#include "packet.h"
#include "parse.h"

#define OUTER_TTL 64
#define VXLAN_HEADERS_SIZE 16 /* UDP and VXLAN */
#define GRE_HEADER_SIZE 8     /* with key */
#define GRE_KEY_PRESENT 0x2000
#define VXLAN_VNI_VALID 0x08000000

struct udp_header {
	__be16 source;
	__be16 destination;
	__be16 length;
	__be16 checksum;
} __attribute__((packed));

/* The part between the outer IP header and the inner frame. */
struct vxlan_headers {
	struct udp_header udp;
	__be32 flags;
	__be32 vni; /* 24 bits and a reserved byte */
} __attribute__((packed));

struct gre_header {
	__be16 flags;
	__be16 protocol;
	__be32 key;
} __attribute__((packed));

union tunnel_headers {
	struct vxlan_headers vxlan;
	struct gre_header gre;
};

/* Two bytes in front make the IP header word-aligned on the stack. */
struct outer_ipv4 {
	__u8 pad[2];
	struct ethernet_header ethernet;
	struct ipv4_header ip;
} __attribute__((packed, aligned(8)));

struct outer_ipv6 {
	__u8 pad[2];
	struct ethernet_header ethernet;
	struct ipv6_header ip;
} __attribute__((packed, aligned(8)));

/* The inner Ethernet header with up to two tags that were in metadata. */
struct inner_header {
	__u8 macs[12];
	__be16 words[5];
	__u16 reserved;
	__u32 size;
};

/*
 * Set the kernel's idea of the packet's protocol without a change to the bytes. There is no helper
 * for it; removing a tag from among the bytes sets it to what that tag says is inside. So: push a
 * tag twice (the first then lies among the bytes), write the wanted type into it, pop both. The
 * type field that this leaves behind is overwritten by the caller. No tag is in metadata.
 */
static __always_inline int force_protocol(struct __sk_buff *skb, __be16 type)
{
	if (bpf_skb_vlan_push(skb, bpf_htons(ETHERTYPE_VLAN), 1) ||
	    bpf_skb_vlan_push(skb, bpf_htons(ETHERTYPE_VLAN), 1) ||
	    bpf_skb_store_bytes(skb, 16, &type, sizeof(type), 0) || bpf_skb_vlan_pop(skb))
		return -1;
	return bpf_skb_vlan_pop(skb);
}

/* Take the Ethernet header and up to two tags that are metadata, which would stay with the outer
 * frame. The type is read last: popping a tag lifts the next one out of the bytes. */
static __always_inline int save_inner(struct __sk_buff *skb, struct inner_header *inner)
{
	__be16 type;

	inner->size = ETHERNET_SIZE;
	if (!skb->vlan_present)
		return bpf_skb_load_bytes(skb, 0, inner, ETHERNET_SIZE);
	if (bpf_skb_load_bytes(skb, 0, inner->macs, sizeof(inner->macs)))
		return -1;
	inner->words[0] = skb->vlan_proto;
	inner->words[1] = bpf_htons(skb->vlan_tci);
	inner->size += 4;
	if (bpf_skb_vlan_pop(skb))
		return -1;
	if (skb->vlan_present) {
		inner->words[2] = skb->vlan_proto;
		inner->words[3] = bpf_htons(skb->vlan_tci);
		inner->size += 4;
		if (bpf_skb_vlan_pop(skb) || skb->vlan_present)
			return -1;
	}
	if (bpf_skb_load_bytes(skb, 12, &type, sizeof(type)))
		return -1;
	if (inner->size == ETHERNET_SIZE + 4)
		inner->words[2] = type;
	else
		inner->words[4] = type;
	return 0;
}

/* Undo save_inner(). */
static __always_inline int restore_tags(struct __sk_buff *skb, const struct inner_header *inner)
{
	if (inner->size == ETHERNET_SIZE + 8 &&
	    bpf_skb_vlan_push(skb, inner->words[2], bpf_ntohs(inner->words[3])))
		return -1;
	if (inner->size > ETHERNET_SIZE &&
	    bpf_skb_vlan_push(skb, inner->words[0], bpf_ntohs(inner->words[1])))
		return -1;
	return 0;
}

static __always_inline int store_inner(struct __sk_buff *skb, struct inner_header *inner,
				       __u32 offset)
{
	if (inner->size == ETHERNET_SIZE)
		return bpf_skb_store_bytes(skb, offset, inner, ETHERNET_SIZE, 0);
	if (inner->size == ETHERNET_SIZE + 4)
		return bpf_skb_store_bytes(skb, offset, inner, ETHERNET_SIZE + 4, 0);
	return bpf_skb_store_bytes(skb, offset, inner, ETHERNET_SIZE + 8, 0);
}

/* The destination is replaced by neighbour resolution. It must not be a group address, with
 * which bpf_redirect_neigh() drops the packet. */
static __always_inline void fill_outer_ethernet(struct ethernet_header *ethernet, __u16 type)
{
	ethernet->destination[0] = 2;
	ethernet->source[0] = 2;
	ethernet->type = bpf_htons(type);
}

static __always_inline void fill_outer_ipv4(struct ipv4_header *ip, const struct midonet_tunnel *to,
					    __u8 protocol, __u8 tos, __u32 length)
{
	const __u16 *words = (const void *)ip;
	__u32 sum = 0;

	ip->version_ihl = 0x45;
	ip->tos = tos;
	ip->total_length = bpf_htons(length);
	ip->fragment = bpf_htons(0x4000);
	ip->ttl = OUTER_TTL;
	ip->protocol = protocol;
	__builtin_memcpy(&ip->source, to->local, 4);
	__builtin_memcpy(&ip->destination, to->remote, 4);
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->checksum = ~sum;
}

static __always_inline __u8 outer_tos(struct __sk_buff *skb)
{
	struct midonet_config *settings = get_config();
	__u8 head[2];

	if (!settings || !(settings->flags & MIDONET_CONFIG_COPY_TOS) ||
	    bpf_skb_load_bytes(skb, L3_OFFSET, head, sizeof(head)))
		return 0;
	if (skb->protocol == bpf_htons(ETHERTYPE_IPV4))
		return head[1] & 0xfc;
	if (skb->protocol == bpf_htons(ETHERTYPE_IPV6))
		return (head[0] << 4 | head[1] >> 4) & 0xfc;
	return 0;
}

static __always_inline __u32 fill_tunnel_headers(union tunnel_headers *headers, __u32 kind,
						 __u32 key, __u32 hash, __u32 payload)
{
	struct midonet_config *settings = get_config();

	if (kind == MIDONET_OUTPUT_GRE) {
		headers->gre.flags = bpf_htons(GRE_KEY_PRESENT);
		headers->gre.protocol = bpf_htons(ETHERTYPE_TEB);
		headers->gre.key = bpf_htonl(key);
		return GRE_HEADER_SIZE;
	}
	headers->vxlan.udp.source = bpf_htons(0xc000 | (hash & 0x3fff));
	headers->vxlan.udp.destination = settings ? settings->vxlan_port : 0;
	headers->vxlan.udp.length = bpf_htons(payload + VXLAN_HEADERS_SIZE);
	headers->vxlan.flags = bpf_htonl(VXLAN_VNI_VALID);
	headers->vxlan.vni = bpf_htonl(key << 8);
	return VXLAN_HEADERS_SIZE;
}

static __always_inline int store_outer(struct __sk_buff *skb, const struct midonet_tunnel *tunnel,
				       __u32 protocol, __u8 tos, __u32 length)
{
	if (tunnel->family == MIDONET_FAMILY_IPV6) {
		struct outer_ipv6 outer = {};

		fill_outer_ethernet(&outer.ethernet, ETHERTYPE_IPV6);
		outer.ip.word = bpf_htonl(6 << 28 | (__u32)tos << 20);
		outer.ip.payload_length = bpf_htons(length);
		outer.ip.next_header = protocol;
		outer.ip.hop_limit = OUTER_TTL;
		__builtin_memcpy(outer.ip.source, tunnel->local, 16);
		__builtin_memcpy(outer.ip.destination, tunnel->remote, 16);
		return bpf_skb_store_bytes(skb, 0, &outer.ethernet, ETHERNET_SIZE + IPV6_SIZE, 0);
	}
	struct outer_ipv4 outer = {};

	fill_outer_ethernet(&outer.ethernet, ETHERTYPE_IPV4);
	fill_outer_ipv4(&outer.ip, tunnel, protocol, tos, length + IPV4_SIZE);
	return bpf_skb_store_bytes(skb, 0, &outer.ethernet, ETHERNET_SIZE + IPV4_SIZE, 0);
}

/* All that VXLAN over IPv4 puts in front of an untagged frame, in one write: the common case. */
struct outer_vxlan {
	__u8 pad[2];
	struct ethernet_header ethernet;
	struct ipv4_header ip;
	struct vxlan_headers vxlan;
	__u8 inner[ETHERNET_SIZE];
} __attribute__((packed, aligned(8)));

static __always_inline int store_vxlan(struct __sk_buff *skb, const struct midonet_tunnel *tunnel,
				       const union tunnel_headers *headers,
				       const struct inner_header *inner, __u8 tos, __u32 length)
{
	struct outer_vxlan all = {};

	fill_outer_ethernet(&all.ethernet, ETHERTYPE_IPV4);
	fill_outer_ipv4(&all.ip, tunnel, PROTOCOL_UDP, tos, length + IPV4_SIZE);
	__builtin_memcpy(&all.vxlan, &headers->vxlan, sizeof(all.vxlan));
	__builtin_memcpy(all.inner, inner, ETHERNET_SIZE);
	return bpf_skb_store_bytes(skb, 0, &all.ethernet,
				   ETHERNET_SIZE + IPV4_SIZE + VXLAN_HEADERS_SIZE + ETHERNET_SIZE,
				   0);
}

/* What encapsulate() says of a frame that can only leave as single segments; it is as it was. */
#define ENCAPSULATE_SEGMENTS 1

/* As in linux/errno.h, the latter only inside the kernel. */
#define REFUSED_ALREADY -114
#define REFUSED_NOT_SUPPORTED -524

/*
 * Put the frame into a tunnel. The source port comes from the hash of the packet, which the caller
 * has set (use_flow_hash). Returns 0, ENCAPSULATE_SEGMENTS, or -1 when the kernel refused.
 *
 * The kernel keeps the offload of one tunnel beside a packet. For one that is, or was, in a tunnel
 * already (a container that tunnels or routes) it refuses; then the room is made without its
 * knowledge, which is right for all but super-packets. It does not know how to keep the offload of
 * UDP fragmentation and of SCTP either.
 */
__noinline int encapsulate(struct __sk_buff *skb, struct midonet_tunnel *tunnel, __u32 kind,
			   __u32 key)
{
	struct inner_header inner = {};
	union tunnel_headers headers = {};
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L2_ETH;
	__u32 hash = bpf_get_hash_recalc(skb);
	__u32 ip_size = IPV4_SIZE, headers_size, payload;
	__be16 type = bpf_htons(ETHERTYPE_IPV4);
	__u8 tos = outer_tos(skb);
	long refused;

	if (!tunnel || save_inner(skb, &inner))
		return -1;
	if (skb->protocol != bpf_htons(ETHERTYPE_IPV4) &&
	    skb->protocol != bpf_htons(ETHERTYPE_IPV6) &&
	    force_protocol(skb, bpf_htons(ETHERTYPE_IPV4)))
		return -1;
	payload = skb->len + inner.size - ETHERNET_SIZE;
	headers_size = fill_tunnel_headers(&headers, kind, key, hash, payload);
	flags |= kind == MIDONET_OUTPUT_GRE ? BPF_F_ADJ_ROOM_ENCAP_L4_GRE
					    : BPF_F_ADJ_ROOM_ENCAP_L4_UDP;
	if (tunnel->family == MIDONET_FAMILY_IPV6) {
		ip_size = IPV6_SIZE;
		type = bpf_htons(ETHERTYPE_IPV6);
		flags |= BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
	} else {
		flags |= BPF_F_ADJ_ROOM_ENCAP_L3_IPV4;
	}
	flags |= BPF_F_ADJ_ROOM_ENCAP_L2(inner.size);
	refused = bpf_skb_adjust_room(skb, ip_size + headers_size + inner.size, BPF_ADJ_ROOM_MAC,
				      flags);
	if ((refused == REFUSED_ALREADY || refused == REFUSED_NOT_SUPPORTED) && skb->gso_size)
		return restore_tags(skb, &inner) ? -1 : ENCAPSULATE_SEGMENTS;
	if (refused == REFUSED_ALREADY) {
		refused = bpf_skb_adjust_room(skb, ip_size + headers_size + inner.size,
					      BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO);
		if (!refused && skb->protocol != type)
			refused = force_protocol(skb, type);
	}
	if (refused)
		return -1;
	if (kind == MIDONET_OUTPUT_VXLAN && tunnel->family == MIDONET_FAMILY_IPV4 &&
	    inner.size == ETHERNET_SIZE)
		return store_vxlan(skb, tunnel, &headers, &inner, tos, payload + headers_size);
	if (store_outer(skb, tunnel,
			kind == MIDONET_OUTPUT_GRE ? PROTOCOL_GRE : PROTOCOL_UDP, tos,
			payload + headers_size))
		return -1;
	if (kind == MIDONET_OUTPUT_GRE) {
		if (bpf_skb_store_bytes(skb, ETHERNET_SIZE + ip_size, &headers, GRE_HEADER_SIZE, 0))
			return -1;
	} else if (bpf_skb_store_bytes(skb, ETHERNET_SIZE + ip_size, &headers, VXLAN_HEADERS_SIZE,
				       0)) {
		return -1;
	}
	return store_inner(skb, &inner, ETHERNET_SIZE + ip_size + headers_size);
}

#endif /* MIDONET_OVERLAY_H */
