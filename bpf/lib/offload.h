/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the sender left for a device to do: a checksum to write, segments to cut. A packet socket or
 * a virtual machine states freely where, and the kernel does so after the packet was judged. It
 * must touch nothing that the parser read, except for the checksum of the header it found.
 *
 * The numbers lie in the kernel's own packet structure, which programs may read since Linux 6.2;
 * without MIDONET_READS_OFFLOAD this is built for older ones and nothing is looked at.
 */
#ifndef MIDONET_OFFLOAD_H
#define MIDONET_OFFLOAD_H

#include "packet.h"
#include "parse.h"

#ifdef MIDONET_READS_OFFLOAD
#include <bpf/bpf_core_read.h>

/* As in linux/skbuff.h. */
#define CHECKSUM_PARTIAL 3
#define GSO_TCPV4 (1 << 0)
#define GSO_TCPV6 (1 << 4)
#define GSO_SCTP (1 << 14)
#define GSO_UDP (1 << 16 | 1 << 17)       /* into fragments, into datagrams */
#define GSO_TUNNELS (0x3f << 6 | 1 << 15) /* GRE, IP in IP, UDP tunnels; ESP */

#define PROTOCOL_IPIP 4
#define PROTOCOL_SIT 41
#define PROTOCOL_ESP 50

/* The fields that are read, wherever the running kernel has them. */
struct sk_buff___midonet {
	unsigned char *head;
	unsigned char *data;
	unsigned int end;
	__u8 ip_summed : 2;
	__u16 csum_start;
	__u16 csum_offset;
} __attribute__((preserve_access_index));

struct skb_shared_info___midonet {
	unsigned int gso_type;
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *context) __ksym;

/* Bytes from the front of the frame that the parser has looked at. */
static __always_inline __u32 bytes_read(const struct packet *packet)
{
	if (packet->key.eth_type == bpf_htons(ETHERTYPE_ARP))
		return L3_OFFSET + sizeof(struct arp_message);
	if (!is_ip(packet))
		return L3_OFFSET + sizeof(struct snap_header);
	return packet->l4_offset + transport_size(packet->key.ip_proto, is_ipv6(packet));
}

/* Offset of the checksum in an L4 header that the parser reads, 0 for others. */
static __always_inline __u32 checksum_place(__u8 protocol)
{
	switch (protocol) {
	case PROTOCOL_TCP:
		return 16;
	case PROTOCOL_UDP:
		return 6;
	case PROTOCOL_SCTP:
		return 8;
	case PROTOCOL_ICMP:
	case PROTOCOL_ICMPV6:
		return 2;
	}
	return 0;
}

/* start: of what is summed, from the front of the frame. Further inside is the payload's business:
 * a machine that tunnels leaves the checksum of an inner header to do. */
static __always_inline int may_write_checksum(const struct packet *packet, __u32 start, __u32 offset)
{
	if (packet->key.ip_frag != MIDONET_FRAGMENT_NONE)
		return 0;
	if (is_ip(packet) && start == packet->l4_offset)
		return !transport_size(packet->key.ip_proto, is_ipv6(packet)) ||
		       offset == checksum_place(packet->key.ip_proto);
	return start >= bytes_read(packet);
}

static __always_inline int may_cut(const struct packet *packet, __u32 type)
{
	__u8 protocol = packet->key.ip_proto;

	if (!is_ip(packet))
		return 1; /* inside what is not read */
	if (packet->key.ip_frag != MIDONET_FRAGMENT_NONE)
		return 0;
	/* What came out of a tunnel of ours, and is routed on, has the mark of it still. */
	if ((type & GSO_TUNNELS) && protocol != PROTOCOL_TCP)
		return protocol == PROTOCOL_UDP || protocol == PROTOCOL_GRE ||
		       protocol == PROTOCOL_IPIP || protocol == PROTOCOL_SIT ||
		       protocol == PROTOCOL_ESP;
	if (protocol == PROTOCOL_TCP)
		return !!(type & (is_ipv6(packet) ? GSO_TCPV6 : GSO_TCPV4));
	if (protocol == PROTOCOL_UDP)
		return !!(type & GSO_UDP);
	return protocol == PROTOCOL_SCTP && (type & GSO_SCTP);
}

/* Tell whether what is left to do agrees with the parsed headers. */
static __always_inline int offload_agrees(struct __sk_buff *skb, const struct packet *packet)
{
	struct sk_buff___midonet *kernel = bpf_cast_to_kern_ctx(skb);
	unsigned char *head = kernel->head;

	if (BPF_CORE_READ_BITFIELD(kernel, ip_summed) == CHECKSUM_PARTIAL) {
		__u32 front = kernel->data - head;

		/* A start in front of the frame wraps around, and what it says is no header's. */
		if (kernel->csum_start < front ||
		    !may_write_checksum(packet, kernel->csum_start - front, kernel->csum_offset))
			return 0;
	}
	if (skb->gso_size) {
		__u32 type = 0;

		if (bpf_probe_read_kernel(&type, sizeof(type),
					  head + kernel->end +
						  bpf_core_field_offset(
							  struct skb_shared_info___midonet,
							  gso_type)) ||
		    !may_cut(packet, type))
			return 0;
	}
	return 1;
}
#else
static __always_inline int offload_agrees(struct __sk_buff *skb, const struct packet *packet)
{
	(void)skb;
	(void)packet;
	return 1;
}
#endif

#endif /* MIDONET_OFFLOAD_H */
