/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The packet in hand, numbers of protocols, and the one way to drop.
 */
#ifndef MIDONET_PACKET_H
#define MIDONET_PACKET_H

#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"

#ifndef NULL
#define NULL ((void *)0)
#endif

#define ETHERTYPE_MIN 0x0600
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_TEB 0x6558
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_SERVICE_VLAN 0x88a8
#define ETHERTYPE_IPV6 0x86dd

#define PROTOCOL_HOP_BY_HOP 0
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_ROUTING 43
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_GRE 47
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_DESTINATION_OPTIONS 60
#define PROTOCOL_SCTP 132

/* Packet types, as in linux/if_packet.h. */
#define TYPE_HOST 0
#define TYPE_MULTICAST 2
#define TYPE_OTHERHOST 3

#define ETHERNET_SIZE 14
#define IPV4_SIZE 20
#define IPV6_SIZE 40
#define L3_OFFSET ETHERNET_SIZE /* the outermost tag is metadata once parsing is done */

/* A parsed packet. The key is that of the packet as it entered, whatever is rewritten later. */
struct packet {
	struct midonet_class_key key;
	__u32 l4_offset;    /* behind the IP headers; 0 in a later fragment and when not IP */
	__u32 ip_length;    /* bytes; of the whole super-packet */
	__u32 rewritten;    /* enum midonet_rewrite_field: fields that differ from the key now */
	__u16 vlan_tci;     /* host order, as received, with DEI */
	__be16 vlan_proto;
	__u8 ttl;
	__u8 tcp_flags;     /* 0 when not TCP */
	__u8 reserved[6];
} __attribute__((aligned(8)));

static __always_inline int is_ipv6(const struct packet *packet)
{
	return packet->key.eth_type == bpf_htons(ETHERTYPE_IPV6);
}

static __always_inline int is_ip(const struct packet *packet)
{
	return is_ipv6(packet) || packet->key.eth_type == bpf_htons(ETHERTYPE_IPV4);
}

static __always_inline struct midonet_config *get_config(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&config, &zero);
}

/* Count a drop at the ingress port (0: the overlay). The counter is shared by all CPUs. */
static __always_inline int drop(__u32 slot, __u32 reason)
{
	__u32 index = slot * MIDONET_DROP_REASONS + (reason & (MIDONET_DROP_REASONS - 1));
	__u64 *count = bpf_map_lookup_elem(&drops, &index);

	if (count)
		__sync_fetch_and_add(count, 1);
	return TC_ACT_SHOT;
}

#endif /* MIDONET_PACKET_H */
