/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * From a frame to its class key, by the numbered rules of src/midonet/packets/frame.py; a test
 * compares both on generated frames. Numbers in comments are those rules.
 */
#ifndef MIDONET_PARSE_H
#define MIDONET_PARSE_H

#include "packet.h"

#define EXTENSION_HEADERS_MAX 6
#define EXTENSION_BYTES_MAX 1024
#define PRIORITY_TAGS_MAX 4
#define VLAN_ID_MASK 0x0fff

struct ethernet_header {
	__u8 destination[6];
	__u8 source[6];
	__be16 type;
} __attribute__((packed));

struct ipv4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment;
	__u8 ttl;
	__u8 protocol;
	__be16 checksum;
	__be32 source;
	__be32 destination;
} __attribute__((packed));

struct ipv6_header {
	__be32 word;
	__be16 payload_length;
	__u8 next_header;
	__u8 hop_limit;
	__u8 source[16];
	__u8 destination[16];
} __attribute__((packed));

struct arp_message {
	__be16 hardware_space;
	__be16 protocol_space;
	__u8 hardware_size;
	__u8 protocol_size;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender_ip[4];
	__u8 target_mac[6];
	__u8 target_ip[4];
} __attribute__((packed));

static __always_inline int is_tag(__be16 type)
{
	return type == bpf_htons(ETHERTYPE_VLAN) || type == bpf_htons(ETHERTYPE_SERVICE_VLAN);
}

/* Move the tag that comes first among the bytes to metadata, where the receive path puts it. */
static __always_inline int lift_vlan_tag(struct __sk_buff *skb, const __be16 *words)
{
	return bpf_skb_vlan_pop(skb) ||
	       bpf_skb_vlan_push(skb, words[0], bpf_ntohs(words[1]));
}

/*
 * Rule 2: afterwards the outermost tag is metadata and names a VLAN, so that L3 is always at the
 * same place, and no priority tag is left in front of it. Popping a tag that is metadata moves the
 * next one there from the bytes. A function of its own, because few frames need it.
 */
__noinline int settle_vlan_tags(struct __sk_buff *skb)
{
	__u32 popped = 0;

	/* A round pops a priority tag, or lifts the first tag. */
#pragma unroll
	for (int i = 0; i < PRIORITY_TAGS_MAX + 2; i++) {
		__be16 words[2] = {};
		int is_tagged;

		if (bpf_skb_load_bytes(skb, 12, words, sizeof(words[0])))
			return -1;
		is_tagged = is_tag(words[0]);
		if (is_tagged && (skb->len < ETHERNET_SIZE + 4 ||
				  bpf_skb_load_bytes(skb, 14, &words[1], sizeof(words[1]))))
			return -1;
		if (!skb->vlan_present) {
			if (!is_tagged)
				return 0;
			if (lift_vlan_tag(skb, words))
				return -1;
		} else if (!(skb->vlan_tci & VLAN_ID_MASK)) {
			if (++popped > PRIORITY_TAGS_MAX || bpf_skb_vlan_pop(skb))
				return -1;
		} else if (is_tagged && !(words[1] & bpf_htons(VLAN_ID_MASK))) {
			__be16 proto = skb->vlan_proto;
			__u16 tci = skb->vlan_tci;

			if (++popped > PRIORITY_TAGS_MAX || bpf_skb_vlan_pop(skb) ||
			    bpf_skb_vlan_pop(skb) || bpf_skb_vlan_push(skb, proto, tci))
				return -1;
		} else {
			return 0;
		}
	}
	return -1;
}

/* Rule 10: bytes of L4 that must be there; 0 for protocols that are not read. */
static __always_inline __u32 transport_size(__u8 protocol, int ipv6)
{
	if (protocol == PROTOCOL_TCP)
		return 20;
	if (protocol == PROTOCOL_UDP)
		return 8;
	if (protocol == PROTOCOL_SCTP)
		return 12;
	return protocol == (ipv6 ? PROTOCOL_ICMPV6 : PROTOCOL_ICMP) ? 8 : 0;
}

/* Rule 8. Walks from *offset; leaves there where the payload begins. A function of its own, so
 * that it is verified once. */
__noinline int walk_extension_headers(struct __sk_buff *skb, struct packet *packet, __u32 end)
{
	__u32 offset = L3_OFFSET + IPV6_SIZE;
	__u32 seen = 0;
	__u8 next;

	if (!packet)
		return -1;
	next = packet->key.ip_proto;
	/* Unrolled: kernels before 6.3 refuse a loop whose head is also reached by falling through. */
#pragma unroll
	for (int i = 0; i <= EXTENSION_HEADERS_MAX; i++) {
		__u8 head[4];
		__u32 size = 8;

		if (next != PROTOCOL_FRAGMENT && next != PROTOCOL_HOP_BY_HOP &&
		    next != PROTOCOL_ROUTING && next != PROTOCOL_DESTINATION_OPTIONS) {
			packet->key.ip_proto = next;
			packet->l4_offset = offset;
			return 0;
		}
		if (i == EXTENSION_HEADERS_MAX || offset + 8 > end ||
		    bpf_skb_load_bytes(skb, offset, head, sizeof(head)))
			return -1;
		if (next == PROTOCOL_FRAGMENT) {
			__u16 position = head[2] << 8 | head[3];

			if (seen)
				return -1;
			seen = 1;
			if (position & 0xfff8) {
				packet->key.ip_frag = MIDONET_FRAGMENT_LATER;
				if ((position & 0xfff8) < transport_size(head[0], 1))
					return -1;
			} else if (position & 1)
				packet->key.ip_frag = MIDONET_FRAGMENT_FIRST;
		} else {
			size = (head[1] + 1) * 8;
		}
		next = head[0];
		offset += size;
		if (offset > end || offset - L3_OFFSET - IPV6_SIZE > EXTENSION_BYTES_MAX)
			return -1;
		if (packet->key.ip_frag == MIDONET_FRAGMENT_LATER) {
			packet->key.ip_proto = next;
			packet->l4_offset = offset;
			return 0;
		}
	}
	return -1;
}

/* What is read of an L4 header. */
struct transport {
	__be16 source;      /* port, or ICMP type and code */
	__be16 destination; /* port */
	__be16 length;      /* UDP */
	__u8 data_offset;   /* TCP, in the upper four bits */
	__u8 flags;         /* TCP */
};

/* From the packet's linear part in the common places, which saves a call. */
static __always_inline int load_transport(struct __sk_buff *skb, const struct packet *packet,
					  struct transport *read)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 offset = packet->l4_offset;
	int is_tcp = packet->key.ip_proto == PROTOCOL_TCP;
	__u8 *found = data + L3_OFFSET + IPV4_SIZE;

	if (offset == L3_OFFSET + IPV6_SIZE)
		found = data + L3_OFFSET + IPV6_SIZE;
	if ((offset != L3_OFFSET + IPV4_SIZE && offset != L3_OFFSET + IPV6_SIZE) ||
	    (void *)(found + 8) > end) {
		if (bpf_skb_load_bytes(skb, offset, read, 6))
			return -1;
	} else {
		__builtin_memcpy(read, found, 6);
		if (is_tcp && (void *)(found + 14) <= end) {
			__builtin_memcpy(&read->data_offset, found + 12, 2);
			return 0;
		}
	}
	return is_tcp ? bpf_skb_load_bytes(skb, offset + 12, &read->data_offset, 2) : 0;
}

/* Rules 9 and 10. */
static __always_inline int parse_transport(struct __sk_buff *skb, struct packet *packet, __u32 end)
{
	struct midonet_class_key *key = &packet->key;
	struct transport read = {};
	__u32 size, length;

	packet->tcp_flags = 0;
	if (key->ip_frag == MIDONET_FRAGMENT_LATER) {
		packet->l4_offset = 0;
		return 0;
	}
	size = transport_size(key->ip_proto, is_ipv6(packet));
	if (!size)
		return 0;
	if (packet->l4_offset + size > end || load_transport(skb, packet, &read))
		return -1;
	key->l4_src = read.source;
	key->l4_dst = read.destination;
	packet->tcp_flags = read.flags; /* of other protocols it was not read */
	if (key->ip_proto == PROTOCOL_ICMP || key->ip_proto == PROTOCOL_ICMPV6) {
		__u16 type_and_code = bpf_ntohs(read.source);

		key->l4_src = bpf_htons(type_and_code >> 8);
		key->l4_dst = bpf_htons(type_and_code & 0xff);
		return 0;
	}
	if (key->ip_frag != MIDONET_FRAGMENT_NONE)
		return 0;
	length = size;
	if (key->ip_proto == PROTOCOL_TCP)
		length = (read.data_offset >> 4) * 4;
	else if (key->ip_proto == PROTOCOL_UDP && !skb->gso_size)
		length = bpf_ntohs(read.length);
	return length < size || packet->l4_offset + length > end ? -1 : 0;
}

/* Rule 6. */
static __always_inline int parse_ipv4(struct __sk_buff *skb, struct packet *packet,
				      const struct ipv4_header *header)
{
	struct midonet_class_key *key = &packet->key;
	__u32 size = (header->version_ihl & 15) * 4;
	__u32 total = bpf_ntohs(header->total_length);

	if (header->version_ihl >> 4 != 4 || size < IPV4_SIZE)
		return -1;
	if (skb->gso_size)
		total = skb->len - L3_OFFSET;
	if (total < size || L3_OFFSET + total > skb->len)
		return -1;
	key->ip_proto = header->protocol;
	key->ip_tos = header->tos;
	__builtin_memcpy(key->ip_src, &header->source, 4);
	__builtin_memcpy(key->ip_dst, &header->destination, 4);
	if (header->fragment & bpf_htons(0x1fff)) {
		key->ip_frag = MIDONET_FRAGMENT_LATER;
		if ((bpf_ntohs(header->fragment) & 0x1fff) * 8 < transport_size(key->ip_proto, 0))
			return -1;
	} else if (header->fragment & bpf_htons(0x2000))
		key->ip_frag = MIDONET_FRAGMENT_FIRST;
	packet->ttl = header->ttl;
	packet->ip_length = total;
	packet->l4_offset = L3_OFFSET + size;
	return parse_transport(skb, packet, L3_OFFSET + total);
}

static __always_inline int is_mapped(const __u8 *address)
{
	const __be32 *words = (const void *)address;

	return !(words[0] | words[1]) && words[2] == bpf_htonl(0xffff);
}

/* Rules 7 and 8. */
static __always_inline int parse_ipv6(struct __sk_buff *skb, struct packet *packet,
				      const struct ipv6_header *header)
{
	struct midonet_class_key *key = &packet->key;
	__u32 word = bpf_ntohl(header->word);
	__u32 total = IPV6_SIZE + bpf_ntohs(header->payload_length);

	if (word >> 28 != 6)
		return -1;
	if (skb->gso_size)
		total = skb->len - L3_OFFSET;
	if (L3_OFFSET + total > skb->len)
		return -1;
	key->ip_proto = header->next_header;
	key->ip_tos = word >> 20;
	__builtin_memcpy(key->ip_src, header->source, 16);
	__builtin_memcpy(key->ip_dst, header->destination, 16);
	if (is_mapped(key->ip_src) || is_mapped(key->ip_dst))
		return -1;
	packet->ttl = header->hop_limit;
	packet->ip_length = total;
	packet->l4_offset = L3_OFFSET + IPV6_SIZE;
	switch (key->ip_proto) {
	case PROTOCOL_HOP_BY_HOP:
	case PROTOCOL_ROUTING:
	case PROTOCOL_FRAGMENT:
	case PROTOCOL_DESTINATION_OPTIONS:
		if (walk_extension_headers(skb, packet, L3_OFFSET + total))
			return -1;
	}
	return parse_transport(skb, packet, L3_OFFSET + total);
}

/* Rule 5. */
static __always_inline void parse_arp(struct packet *packet, const struct arp_message *message)
{
	struct midonet_class_key *key = &packet->key;

	if (message->protocol_space != bpf_htons(ETHERTYPE_IPV4) || message->hardware_size != 6 ||
	    message->protocol_size != 4 || (message->operation & bpf_htons(0xff00)))
		return;
	key->ip_proto = bpf_ntohs(message->operation);
	__builtin_memcpy(key->ip_src, message->sender_ip, 4);
	__builtin_memcpy(key->ip_dst, message->target_ip, 4);
}

/* An 802.2 header, and what SNAP puts behind it (RFC 1042). */
struct snap_header {
	__u8 destination;
	__u8 source;
	__u8 control;
	__u8 organisation[3];
	__be16 type;
} __attribute__((packed));

/* Rule 3: tell whether a frame with an 802.3 length carries what other rules read. */
static __always_inline int is_disguised(struct __sk_buff *skb)
{
	struct snap_header snap;

	if (bpf_skb_load_bytes(skb, L3_OFFSET, &snap, sizeof(snap)) ||
	    (snap.destination & 0xfe) != 0xaa || (snap.source & 0xfe) != 0xaa ||
	    (snap.organisation[0] | snap.organisation[1]) ||
	    (snap.organisation[2] && snap.organisation[2] != 0xf8))
		return 0;
	return snap.type == bpf_htons(ETHERTYPE_IPV4) || snap.type == bpf_htons(ETHERTYPE_IPV6) ||
	       snap.type == bpf_htons(ETHERTYPE_ARP) || is_tag(snap.type);
}

/* Fill `packet`, which must be zero, except for key.port. Returns -1 for a malformed frame. */
static __always_inline int parse_packet(struct __sk_buff *skb, struct packet *packet)
{
	struct midonet_class_key *key = &packet->key;
	struct ethernet_header *ethernet;
	void *data, *end;

	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	ethernet = data;
	if (data + ETHERNET_SIZE + IPV6_SIZE > end || is_tag(ethernet->type) ||
	    (skb->vlan_present && !(skb->vlan_tci & VLAN_ID_MASK))) {
		__u32 wanted = ETHERNET_SIZE + IPV6_SIZE + 4;

		if (settle_vlan_tags(skb))
			return -1;
		bpf_skb_pull_data(skb, skb->len < wanted ? skb->len : wanted);
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
		ethernet = data;
	}
	if (skb->vlan_present) {
		packet->vlan_tci = skb->vlan_tci;
		packet->vlan_proto = skb->vlan_proto;
		key->vlan_tci = bpf_htons((skb->vlan_tci & 0xefff) | MIDONET_VLAN_PRESENT);
	}
	if ((void *)(ethernet + 1) > end)
		return -1;
	__builtin_memcpy(key->eth_dst, ethernet->destination, 6);
	__builtin_memcpy(key->eth_src, ethernet->source, 6);
	if (bpf_ntohs(ethernet->type) < ETHERTYPE_MIN)
		return is_disguised(skb) ? -1 : 0;
	key->eth_type = ethernet->type;
	switch (ethernet->type) {
	case bpf_htons(ETHERTYPE_IPV4):
		if ((void *)(ethernet + 1) + sizeof(struct ipv4_header) > end)
			return -1;
		return parse_ipv4(skb, packet, (void *)(ethernet + 1));
	case bpf_htons(ETHERTYPE_IPV6):
		if ((void *)(ethernet + 1) + sizeof(struct ipv6_header) > end)
			return -1;
		return parse_ipv6(skb, packet, (void *)(ethernet + 1));
	case bpf_htons(ETHERTYPE_ARP):
		if ((void *)(ethernet + 1) + sizeof(struct arp_message) > end)
			return -1;
		parse_arp(packet, (void *)(ethernet + 1));
	}
	return 0;
}

#endif /* MIDONET_PARSE_H */
