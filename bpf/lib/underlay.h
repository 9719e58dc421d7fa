/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What arrives on the underlay: outer headers read and removed, and the inner frame delivered.
 *
 * The hook takes overlay packets in the one form in which hosts send them. What an IP stack would
 * make such a packet of in the end (options, extension headers, fragments, priority tags) is
 * dropped by name when it is for an address of ours, and never left to the host. What cannot be
 * told from here (later fragments, other addresses, interfaces without this hook) ends at the
 * host's own tunnel device, which takes nothing (midonet_closed).
 */
#ifndef MIDONET_UNDERLAY_H
#define MIDONET_UNDERLAY_H

#include "output.h"
#include "overlay.h"
#include "packet.h"
#include "parse.h"
#include "upcall.h"

/* Newer than some UAPI headers; used only when the two IP versions differ (Linux 6.3). */
#define ADJUST_DECAP_L3_IPV4 (1ULL << 7)
#define ADJUST_DECAP_L3_IPV6 (1ULL << 8)

#define OUTER_EXTENSION_HEADERS_MAX 8

enum overlay_verdict {
	OVERLAY_NO = 0,        /* not ours: the host's */
	OVERLAY_YES = 1,
	OVERLAY_MALFORMED = 2, /* ours by port, but not what we speak */
	OVERLAY_OTHER_GRE = 3, /* malformed when a peer sends it, else some tunnel of the host */
};

/* Bytes from the front of the frame: in the packet itself where they are linear, which is the common
 * case, else copied to `room`. NULL when the frame is shorter. */
static __always_inline const void *peek(struct __sk_buff *skb, __u32 size, void *room)
{
	void *data = (void *)(long)skb->data;

	if (data + size <= (void *)(long)skb->data_end)
		return data;
	return bpf_skb_load_bytes(skb, 0, room, size) ? NULL : room;
}

/* Read the headers behind an outer IP header. `headers`: at least 8 bytes; `length`: what the IP
 * header says comes behind it, 0 for a super-packet, whose headers speak of one segment or none. */
static __always_inline int read_tunnel_headers(struct __sk_buff *skb, struct overlay *overlay,
					       __u8 protocol, const union tunnel_headers *headers,
					       __u32 length)
{
	struct midonet_config *settings = get_config();
	__be32 vxlan[2];

	if (protocol == PROTOCOL_GRE) {
		if (headers->gre.protocol != bpf_htons(ETHERTYPE_TEB))
			return OVERLAY_NO;
		if (headers->gre.flags != bpf_htons(GRE_KEY_PRESENT))
			return OVERLAY_OTHER_GRE;
		overlay->key = bpf_ntohl(headers->gre.key);
		overlay->outer += GRE_HEADER_SIZE;
	} else {
		if (!settings || headers->vxlan.udp.destination != settings->vxlan_port)
			return OVERLAY_NO;
		if (length && bpf_ntohs(headers->vxlan.udp.length) != length)
			return OVERLAY_MALFORMED;
		if (bpf_skb_load_bytes(skb, ETHERNET_SIZE + overlay->outer + 8, vxlan, 8) ||
		    !(vxlan[0] & bpf_htonl(VXLAN_VNI_VALID)))
			return OVERLAY_MALFORMED;
		overlay->key = bpf_ntohl(vxlan[1]) >> 8;
		overlay->outer += VXLAN_HEADERS_SIZE;
	}
	return OVERLAY_YES;
}

/* The inner frame ends where the outer headers say, as a stack would see it: what an Ethernet adds
 * behind a short packet goes. `length`: of the IP packet, 0 for a super-packet. */
static __always_inline int fit_length(struct __sk_buff *skb, const struct overlay *overlay,
				      __u32 length)
{
	if (length && ETHERNET_SIZE + length != skb->len &&
	    (ETHERNET_SIZE + length > skb->len ||
	     bpf_skb_change_tail(skb, ETHERNET_SIZE + length, 0)))
		return OVERLAY_MALFORMED;
	if (skb->len < ETHERNET_SIZE + overlay->outer + ETHERNET_SIZE)
		return OVERLAY_MALFORMED;
	return OVERLAY_YES;
}

/* What a packet that no host of ours sends is at `offset`, behind its IP headers. */
static __always_inline int read_irregular(struct __sk_buff *skb, __u8 protocol, __u32 offset)
{
	struct midonet_config *settings = get_config();
	union tunnel_headers headers;

	if ((protocol != PROTOCOL_UDP && protocol != PROTOCOL_GRE) ||
	    bpf_skb_load_bytes(skb, offset, &headers, 8))
		return OVERLAY_NO;
	if (protocol == PROTOCOL_UDP)
		return settings && headers.vxlan.udp.destination == settings->vxlan_port
			       ? OVERLAY_MALFORMED
			       : OVERLAY_NO;
	if (headers.gre.protocol != bpf_htons(ETHERTYPE_TEB))
		return OVERLAY_NO;
	return headers.gre.flags == bpf_htons(GRE_KEY_PRESENT) ? OVERLAY_MALFORMED
							       : OVERLAY_OTHER_GRE;
}

/* IPv4 with options, or the first of several fragments. Later ones have no ports; without the first
 * they never become a packet. */
__noinline int read_irregular_ipv4(struct __sk_buff *skb)
{
	struct ipv4_header ip;

	if (bpf_skb_load_bytes(skb, ETHERNET_SIZE, &ip, sizeof(ip)) || ip.version_ihl >> 4 != 4 ||
	    (ip.version_ihl & 15) < 5 || (ip.fragment & bpf_htons(0x1fff)))
		return OVERLAY_NO;
	return read_irregular(skb, ip.protocol, ETHERNET_SIZE + (ip.version_ihl & 15) * 4);
}

/* IPv6 with extension headers. */
__noinline int read_irregular_ipv6(struct __sk_buff *skb)
{
	__u32 offset = ETHERNET_SIZE + IPV6_SIZE;
	__u8 next, head[4];

	if (bpf_skb_load_bytes(skb, ETHERNET_SIZE + 6, &next, sizeof(next)))
		return OVERLAY_NO;
	/* Unrolled: kernels before 6.3 refuse a loop whose head is also reached by falling through. */
#pragma unroll
	for (int i = 0; i < OUTER_EXTENSION_HEADERS_MAX; i++) {
		__u32 size = 8;

		if (next != PROTOCOL_FRAGMENT && next != PROTOCOL_HOP_BY_HOP &&
		    next != PROTOCOL_ROUTING && next != PROTOCOL_DESTINATION_OPTIONS)
			break;
		if (bpf_skb_load_bytes(skb, offset, head, sizeof(head)))
			return OVERLAY_NO;
		if (next != PROTOCOL_FRAGMENT)
			size = (head[1] + 1) * 8;
		else if (head[2] || (head[3] & 0xf8))
			return OVERLAY_NO;
		next = head[0];
		offset += size;
	}
	return read_irregular(skb, next, offset);
}

/* Linux takes any number of tags with VLAN 0 off: they carry a priority and no network. Other tags
 * are for an interface of their own. */
static __always_inline int pop_priority_tags(struct __sk_buff *skb)
{
#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (!skb->vlan_present)
			return 0;
		if ((skb->vlan_tci & 0xfff) || bpf_skb_vlan_pop(skb))
			return -1;
	}
	return skb->vlan_present ? -1 : 0;
}

static __always_inline int read_outer(struct __sk_buff *skb, struct overlay *overlay, void *room)
{
	struct midonet_peer_key *peer = &overlay->peer;
	const void *frame;
	__u32 length;
	int verdict;

	/* Addressed to another machine on the wire: the host discards it, and so do we. */
	if (skb->pkt_type == TYPE_OTHERHOST || pop_priority_tags(skb))
		return OVERLAY_NO;
	if (skb->protocol == bpf_htons(ETHERTYPE_IPV4)) {
		const struct ipv4_header *ip;

		frame = peek(skb, OUTER_IPV4_SIZE, room);
		if (!frame)
			return OVERLAY_NO;
		ip = frame + ETHERNET_SIZE;
		if (ip->protocol != PROTOCOL_UDP && ip->protocol != PROTOCOL_GRE)
			return OVERLAY_NO;
		__builtin_memcpy(peer->local, &ip->destination, 4);
		__builtin_memcpy(peer->remote, &ip->source, 4);
		peer->family = MIDONET_FAMILY_IPV4;
		if (ip->version_ihl != 0x45 || (ip->fragment & bpf_htons(0x3fff)))
			return read_irregular_ipv4(skb);
		overlay->outer = IPV4_SIZE;
		length = skb->gso_size ? 0 : bpf_ntohs(ip->total_length);
		verdict = read_tunnel_headers(skb, overlay, ip->protocol, (const void *)(ip + 1),
					      length ? length - IPV4_SIZE : 0);
	} else if (skb->protocol == bpf_htons(ETHERTYPE_IPV6)) {
		const struct ipv6_header *ip;

		frame = peek(skb, OUTER_IPV6_SIZE, room);
		if (!frame)
			return OVERLAY_NO;
		ip = frame + ETHERNET_SIZE;
		__builtin_memcpy(peer->local, ip->destination, 16);
		__builtin_memcpy(peer->remote, ip->source, 16);
		peer->family = MIDONET_FAMILY_IPV6;
		if (ip->next_header != PROTOCOL_UDP && ip->next_header != PROTOCOL_GRE)
			return read_irregular_ipv6(skb);
		overlay->outer = IPV6_SIZE;
		length = skb->gso_size ? 0 : IPV6_SIZE + bpf_ntohs(ip->payload_length);
		verdict = read_tunnel_headers(skb, overlay, ip->next_header, (const void *)(ip + 1),
					      length ? length - IPV6_SIZE : 0);
	} else {
		return OVERLAY_NO;
	}
	return verdict == OVERLAY_YES ? fit_length(skb, overlay, length) : verdict;
}

/*
 * Tell whether an overlay super-packet must be cut up before it is opened. The kernel goes on
 * believing in the tunnel afterwards. Of TCP it makes correct segments all the same; UDP it would cut
 * as the tunnel that is gone, so that the receiver loses it, and other offloads it refuses to keep.
 */
__noinline int needs_segments(struct __sk_buff *skb, __u32 frame)
{
	__u32 offset = frame + 12;
	__u8 protocol = 0;
	__be16 type;

#pragma unroll
	for (int i = 0; i < 3; i++) {
		if (bpf_skb_load_bytes(skb, offset, &type, sizeof(type)))
			return 1;
		offset += sizeof(type);
		if (!is_tag(type))
			break;
		offset += 2;
	}
	if (type == bpf_htons(ETHERTYPE_IPV4))
		offset += 9;
	else if (type == bpf_htons(ETHERTYPE_IPV6))
		offset += 6;
	else
		return 1;
	return bpf_skb_load_bytes(skb, offset, &protocol, 1) || protocol != PROTOCOL_TCP;
}

/* What kernels before 6.3 need where the two IP versions differ: as for a packet of the outer
 * version, and the protocol set right afterwards. */
static __always_inline int shrink_other_version(struct __sk_buff *skb, __u32 cut, __be16 type)
{
	if (skb->len < ETHERNET_SIZE + cut + IPV6_SIZE &&
	    bpf_skb_change_tail(skb, ETHERNET_SIZE + cut + IPV6_SIZE, 0))
		return -1;
	if (bpf_skb_adjust_room(skb, -(__s32)cut, BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_FIXED_GSO))
		return -1;
	return force_protocol(skb, type);
}

/* Remove the outer headers. Returns 0, or -1 when the kernel refused. */
static __always_inline int decapsulate(struct __sk_buff *skb, const struct overlay *overlay)
{
	struct ethernet_header inner;
	__u32 cut = overlay->outer + ETHERNET_SIZE;
	__u64 flags = BPF_F_ADJ_ROOM_FIXED_GSO;
	__u32 type = TYPE_HOST;
	long refused;

	if (bpf_skb_load_bytes(skb, ETHERNET_SIZE + overlay->outer, &inner, sizeof(inner)))
		return -1;
	if (overlay->peer.family == MIDONET_FAMILY_IPV6) {
		if (inner.type != bpf_htons(ETHERTYPE_IPV6))
			flags |= ADJUST_DECAP_L3_IPV4;
	} else if (inner.type == bpf_htons(ETHERTYPE_IPV6)) {
		flags |= ADJUST_DECAP_L3_IPV6;
	}
	/* The kernel refuses to leave less than an IP header behind. Such a frame is shorter than
	 * Ethernet allows, so padding it is no change that a switch would not make. */
	if (skb->len < ETHERNET_SIZE + cut + IPV6_SIZE) {
		__u32 least = inner.type == bpf_htons(ETHERTYPE_IPV6) ? IPV6_SIZE : IPV4_SIZE;

		if (skb->len < ETHERNET_SIZE + cut + least &&
		    bpf_skb_change_tail(skb, ETHERNET_SIZE + cut + least, 0))
			return -1;
	}
	refused = bpf_skb_adjust_room(skb, -(__s32)cut, BPF_ADJ_ROOM_MAC, flags);
	if (refused && flags != BPF_F_ADJ_ROOM_FIXED_GSO)
		refused = shrink_other_version(skb, cut,
					       inner.type == bpf_htons(ETHERTYPE_IPV6)
						       ? inner.type
						       : bpf_htons(ETHERTYPE_IPV4));
	/* Where a tag is among the bytes, segments are made by what the kernel believes. It may lift
	 * the tag out of them meanwhile, and then the type in its place is right already. */
	if (!refused && skb->gso_size && is_tag(inner.type))
		refused = force_protocol(skb, inner.type);
	if (refused)
		return -1;
	if (skb->vlan_present)
		refused = bpf_skb_store_bytes(skb, 0, &inner, 12, BPF_F_INVALIDATE_HASH);
	else
		refused = bpf_skb_store_bytes(skb, 0, &inner, sizeof(inner),
					      BPF_F_INVALIDATE_HASH);
	if (refused)
		return -1;
	/* The type was that of the outer destination. */
	if (inner.destination[0] & 1)
		type = TYPE_MULTICAST;
	if (skb->pkt_type != type)
		bpf_skb_change_type(skb, type);
	return 0;
}

static __always_inline int deliver(struct __sk_buff *skb, const struct midonet_delivery *delivery)
{
	struct way_out way = { .slot = MIDONET_OVERLAY_SLOT, .id = 0, .is_last = 1 };

	if (delivery->output_count) {
		struct state *state = get_state();

		return !state ? TC_ACT_SHOT
			      : send_outputs(skb, state, 0, way.slot, delivery->first_output,
					     delivery->output_count);
	}
	return output_local(skb, delivery->port, delivery->incarnation, &way);
}

static __always_inline __u32 hint_index(const struct overlay *overlay)
{
	const __u32 *remote = (const void *)overlay->peer.remote;
	__u32 value = (overlay->key ^ remote[0] ^ remote[3]) * 0x9e3779b9u;

	return value >> 22 & (DELIVERY_HINTS - 1);
}

static __always_inline int is_hint_for(const struct delivery_hint *hint,
				       const struct overlay *overlay, __u64 generation)
{
	const __u64 *wanted = (const void *)&overlay->peer, *found = (const void *)&hint->peer;
	__u64 difference = hint->key ^ overlay->key;

#pragma unroll
	for (unsigned int i = 0; i < sizeof(overlay->peer) / sizeof(__u64); i++)
		difference |= wanted[i] ^ found[i];
	return !(difference | (hint->generation ^ generation));
}

/* Have the kernel cut up a super-packet, by the outer headers, and hand the segments over again. */
static __always_inline int segment_from_tunnel(void)
{
	struct midonet_config *settings = get_config();

	return settings ? bpf_redirect(settings->segment_ifindex, 0) : TC_ACT_SHOT;
}

static __always_inline int take_in(struct __sk_buff *skb, const struct overlay *overlay,
				   const struct midonet_delivery *delivery, int is_segment)
{
	if (skb->gso_size && needs_segments(skb, ETHERNET_SIZE + overlay->outer))
		return is_segment ? drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_ENCAP_FAILED)
				  : segment_from_tunnel();
	if (decapsulate(skb, overlay))
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_ENCAP_FAILED);
	return deliver(skb, delivery);
}

/* Take a packet that entered on the underlay. is_segment: it was cut out of one. */
static __always_inline int receive_overlay(struct __sk_buff *skb, int is_segment)
{
	struct state *state = get_state();
	struct overlay *overlay;
	struct delivery_hint *hint;
	struct midonet_peer *peer;
	__u32 index, zero = 0;
	__u64 *generation, now;
	int verdict;

	if (!state)
		return TC_ACT_SHOT;
	overlay = &state->overlay;
	__builtin_memset(overlay, 0, sizeof(*overlay));
	verdict = read_outer(skb, overlay, state->room);
	if (verdict == OVERLAY_NO) {
		bpf_tail_call(skb, &earlier, EARLIER_UNDERLAY);
		return TC_ACT_UNSPEC;
	}
	index = hint_index(overlay);
	generation = bpf_map_lookup_elem(&delivery_generation, &zero);
	hint = bpf_map_lookup_elem(&delivery_hints, &index);
	if (!generation || !hint)
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_INTERNAL);
	/* Read before the tables: what changes meanwhile makes the hint that is written below void. */
	now = *(volatile __u64 *)generation;
	if (verdict == OVERLAY_YES && is_hint_for(hint, overlay, now))
		return take_in(skb, overlay, &hint->delivery, is_segment);
	peer = bpf_map_lookup_elem(&peers, &overlay->peer);
	if (!peer) {
		bpf_tail_call(skb, &earlier, EARLIER_UNDERLAY);
		__builtin_memset(overlay->peer.remote, 0, sizeof(overlay->peer.remote));
		overlay->peer.role = MIDONET_PEER_OWN;
		if (verdict == OVERLAY_OTHER_GRE || !bpf_map_lookup_elem(&peers, &overlay->peer))
			return TC_ACT_UNSPEC; /* not for an address of ours */
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_UNKNOWN_PEER);
	}
	if (verdict != OVERLAY_YES)
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_OVERLAY_MALFORMED);
	if (overlay->key == MIDONET_STATE_KEY)
		return upcall_state(skb, ETHERNET_SIZE + overlay->outer);
	if (!take_delivery(&state->delivery, overlay->key)) {
		bpf_tail_call(skb, &earlier, EARLIER_UNDERLAY);
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_UNKNOWN_TUNNEL_KEY);
	}
	hint->peer = overlay->peer;
	hint->delivery = state->delivery;
	hint->key = overlay->key;
	hint->generation = now;
	return take_in(skb, overlay, &state->delivery, is_segment);
}

#endif /* MIDONET_UNDERLAY_H */
