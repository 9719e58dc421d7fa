/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Ways out. The last output of a packet takes the packet itself; those before take copies.
 */
#ifndef MIDONET_OUTPUT_H
#define MIDONET_OUTPUT_H

#include "budget.h"
#include "overlay.h"
#include "records.h"
#include "rewrite.h"

/* As in linux/socket.h, which is not for programs. */
#define FAMILY_INET 2
#define FAMILY_INET6 10

/*
 * No tenant reaches the hosts' underlay addresses; the rule and its reasons are those of
 * src/midonet/agent/flows/underlay_guard.py. Here is the cheap half, which nearly all packets end
 * with: whether the address matters at all.
 */
static __always_inline int may_reach_underlay(const struct packet *packet,
					      const struct midonet_output *output)
{
	if (output->flags & MIDONET_OUTPUT_UPLINK)
		return 1;
	return packet->key.ip_proto == PROTOCOL_UDP || packet->key.ip_proto == PROTOCOL_GRE;
}

__noinline int reaches_underlay(struct packet *packet, struct midonet_output *output)
{
	struct midonet_peer_key address = { .role = MIDONET_PEER_ADDRESS };
	struct midonet_config *settings = get_config();

	if (!packet || !output || !settings || !is_ip(packet))
		return 0;
	if (!(output->flags & MIDONET_OUTPUT_UPLINK) && packet->key.ip_proto == PROTOCOL_UDP &&
	    packet->key.ip_frag != MIDONET_FRAGMENT_LATER) {
		__be16 port = output->rewrite.fields & MIDONET_REWRITE_L4_DST
				      ? output->rewrite.l4_dst
				      : packet->key.l4_dst;

		if (port != settings->vxlan_port)
			return 0;
	}
	address.family = is_ipv6(packet) ? MIDONET_FAMILY_IPV6 : MIDONET_FAMILY_IPV4;
	if (output->rewrite.fields & MIDONET_REWRITE_IP_DST)
		__builtin_memcpy(address.remote, output->rewrite.ip_dst, 16);
	else
		__builtin_memcpy(address.remote, packet->key.ip_dst, 16);
	return bpf_map_lookup_elem(&peers, &address) != NULL;
}

/* Where a packet is on its way out. */
struct way_out {
	__u32 slot;    /* ingress port, for drop counters */
	__u32 id;      /* of the output in the outputs map, 0 when inline */
	__u32 is_last;
	__u32 is_segment; /* of a super-packet that was cut up on the way */
};

static __always_inline int is_same_mac(const __u8 *left, const __u8 *right)
{
	const __u16 *a = (const void *)left, *b = (const void *)right;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]));
}

/* Keep whose frames come from a port. */
static __always_inline void note_sender(const struct packet *packet)
{
	__u32 slot = packet->key.port;
	struct midonet_port *port = bpf_map_lookup_elem(&ports, &slot);

	if (port && !is_same_mac(port->mac, packet->key.eth_src))
		__builtin_memcpy(port->mac, packet->key.eth_src, 6);
}

static __always_inline int may_skip_queue(struct __sk_buff *skb, const struct midonet_port *port)
{
	struct ethernet_header *ethernet = (void *)(long)skb->data;

	return (void *)(ethernet + 1) <= (void *)(long)skb->data_end &&
	       is_same_mac(ethernet->destination, port->mac) &&
	       !(ethernet->destination[0] & 1) && ethernet->type == skb->protocol;
}

/* Tell whether everything that an output says is known here. */
static __always_inline int is_output_known(const struct midonet_output *output)
{
	return output->kind >= MIDONET_OUTPUT_LOCAL && output->kind <= MIDONET_OUTPUT_GRE &&
	       !(output->flags & ~MIDONET_OUTPUT_UPLINK) &&
	       !(output->rewrite.fields & ~MIDONET_REWRITE_KNOWN);
}

/*
 * Deliver to a port. Into a container whose veth end is elsewhere the packet skips a queue. That
 * path does not look at the Ethernet header again: what takes it has the protocol the kernel
 * believes it to be, and is taken for the container's own. So it is only for the address that the
 * container sends from; of a flood, or of what was for somebody behind it before, it would forward
 * to others what was not sent to it.
 */
static __always_inline int output_local(struct __sk_buff *skb, __u32 target, __u32 incarnation,
					const struct way_out *way)
{
	struct midonet_port *port = bpf_map_lookup_elem(&ports, &target);
	__u32 ifindex;

	if (!port)
		return drop(way->slot, MIDONET_DROP_PORT_NOT_ATTACHED);
	/* The interface before the incarnation: a slot that passes to another port gets the new
	 * incarnation first, so an interface that was read is that of the incarnation, or older. */
	ifindex = *(volatile __u32 *)&port->ifindex;
	order_loads();
	if (port->incarnation != incarnation || !(port->flags & MIDONET_PORT_ATTACHED))
		return drop(way->slot, (port->flags & MIDONET_PORT_GONE) &&
						       port->incarnation == incarnation
					       ? MIDONET_DROP_INTERFACE_GONE
					       : MIDONET_DROP_PORT_NOT_ATTACHED);
	if (!way->is_last) {
		if (bpf_clone_redirect(skb, ifindex, 0))
			return drop(way->slot, MIDONET_DROP_INTERFACE_GONE);
		return TC_ACT_OK;
	}
	if ((port->flags & MIDONET_PORT_REDIRECT_PEER) && may_skip_queue(skb, port)) {
		if (skb->pkt_type != TYPE_HOST)
			bpf_skb_change_type(skb, TYPE_HOST);
		return bpf_redirect_peer(ifindex, 0);
	}
	return bpf_redirect(ifindex, 0);
}

/* Leave by the underlay. The kernel keeps the neighbour's address; which neighbour it is was looked
 * up by the agent, where one table entry decides it: a lookup here costs more than the parser. */
static __always_inline int redirect_to_neighbour(const struct midonet_tunnel *tunnel)
{
	struct bpf_redir_neigh next = {};

	if (tunnel->next_hop_family == MIDONET_FAMILY_IPV4) {
		next.nh_family = FAMILY_INET;
		__builtin_memcpy(&next.ipv4_nh, tunnel->next_hop, 4);
	} else if (tunnel->next_hop_family == MIDONET_FAMILY_IPV6) {
		next.nh_family = FAMILY_INET6;
		__builtin_memcpy(next.ipv6_nh, tunnel->next_hop, 16);
	} else {
		return bpf_redirect_neigh(tunnel->ifindex, NULL, 0, 0);
	}
	return bpf_redirect_neigh(tunnel->ifindex, &next, sizeof(next), 0);
}

/* Send a super-packet over the injection interface, at which segmentation is off: the kernel cuts it
 * up there, and the segments come back at the far end with the same mark. */
static __always_inline int segment_for_tunnel(struct __sk_buff *skb,
					      const struct midonet_output *output)
{
	struct midonet_config *settings = get_config();
	__be16 tag = bpf_htons(output->kind == MIDONET_OUTPUT_GRE ? ETHERTYPE_SERVICE_VLAN
								   : ETHERTYPE_VLAN);

	if (!settings || bpf_skb_vlan_push(skb, tag, output->target >> 8 & 0xffff))
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_ENCAP_FAILED);
	skb->mark = MIDONET_MARK_OUTPUT | MIDONET_MARK_REWRITTEN | MIDONET_MARK_SEGMENTS |
		    (output->tunnel & MIDONET_MARK_TUNNEL_MASK) << MIDONET_MARK_TUNNEL_SHIFT |
		    (output->target & 0xff);
	return bpf_redirect(settings->inject_ifindex, 0);
}

/* Read what segment_for_tunnel() noted. Returns 0, or -1 when it is not there. */
static __always_inline int read_segment(struct __sk_buff *skb, __u32 mark,
					struct midonet_output *output)
{
	__u32 wanted = mark >> MIDONET_MARK_TUNNEL_SHIFT & MIDONET_MARK_TUNNEL_MASK;
	__u32 index = wanted & (MIDONET_TUNNELS_MAX - 1);
	struct midonet_tunnel *record = bpf_map_lookup_elem(&tunnels, &index);

	if (!record || !skb->vlan_present)
		return -1;
	output->kind = skb->vlan_proto == bpf_htons(ETHERTYPE_SERVICE_VLAN) ? MIDONET_OUTPUT_GRE
									     : MIDONET_OUTPUT_VXLAN;
	output->target = (skb->vlan_tci & 0xffff) << 8 | (mark & 0xff);
	output->tunnel = *(volatile __u32 *)&record->identifier;
	if ((output->tunnel & MIDONET_MARK_TUNNEL_MASK) != wanted)
		return -1;
	return bpf_skb_vlan_pop(skb);
}

/*
 * Send through a tunnel. A copy cannot be resolved to a neighbour from here, so it makes a turn
 * through the injection interface, where it is a packet of its own; its mark says what is left to
 * do. The mark survives because both ends of that interface are in one namespace.
 */
static __always_inline int output_tunnel(struct __sk_buff *skb, const struct midonet_output *output,
					 const struct way_out *way)
{
	struct midonet_config *settings = get_config();
	struct state *state = get_state();
	struct midonet_tunnel *tunnel;
	int refused;

	if (!settings || !state)
		return TC_ACT_SHOT;
	tunnel = &state->tunnel;
	if (!take_tunnel(state, output->tunnel) || !tunnel->family || !tunnel->ifindex)
		return drop(way->slot, MIDONET_DROP_NO_TUNNEL);
	if (!way->is_last) {
		skb->mark = MIDONET_MARK_OUTPUT | MIDONET_MARK_REWRITTEN | way->id;
		refused = bpf_clone_redirect(skb, settings->inject_ifindex, 0);
		skb->mark = 0;
		return refused ? drop(way->slot, MIDONET_DROP_ENCAP_FAILED) : TC_ACT_OK;
	}
	refused = encapsulate(skb, tunnel, output->kind, output->target);
	if (refused == ENCAPSULATE_SEGMENTS && !way->is_segment)
		return segment_for_tunnel(skb, output);
	if (refused)
		return drop(way->slot, MIDONET_DROP_ENCAP_FAILED);
	return redirect_to_neighbour(tunnel);
}

__noinline int send_output(struct __sk_buff *skb, struct midonet_output *output,
			   struct way_out *way)
{
	if (!output || !way)
		return TC_ACT_SHOT;
	if (output->kind == MIDONET_OUTPUT_LOCAL)
		return output_local(skb, output->target, output->incarnation, way);
	return output_tunnel(skb, output, way);
}

/* A walk over the outputs first .. first + count - 1. */
struct walk {
	struct __sk_buff *skb;
	struct state *state;
	__u32 rewrites; /* else the packet was not parsed, and no output has a rewrite */
	__u32 slot;
	__u32 first;
	__u32 count;
	int verdict;
};

/* One step, called by bpf_loop(), so that the verifier sees it once and not MIDONET_OUTPUTS_MAX
 * times. Returns 1 to stop. */
static int walk_one(__u32 index, struct walk *walk)
{
	struct way_out way = {
		.slot = walk->slot,
		.id = walk->first + index,
		.is_last = index + 1 == walk->count,
	};
	struct state *state = walk->state;

	if (!take_output(state, way.id)) { /* taken away while the packet was on its way */
		walk->verdict = drop(way.slot, MIDONET_DROP_OUTPUT_GONE);
		return 0;
	}
	if (!is_output_known(&state->output)) {
		walk->verdict = drop(way.slot, MIDONET_DROP_NOT_UNDERSTOOD);
		return 0;
	}
	if (walk->rewrites && may_reach_underlay(&state->packet, &state->output) &&
	    reaches_underlay(&state->packet, &state->output)) {
		walk->verdict = drop(way.slot, MIDONET_DROP_UNDERLAY_SPOOF);
		return 0;
	}
	if (walk->rewrites &&
	    rewrite_packet(walk->skb, &state->packet, &state->output.rewrite)) {
		walk->verdict = drop(way.slot, MIDONET_DROP_REWRITE_FAILED);
		return 1;
	}
	walk->verdict = send_output(walk->skb, &state->output, &way);
	return 0;
}

static __always_inline int send_outputs(struct __sk_buff *skb, struct state *state, __u32 rewrites,
					__u32 slot, __u32 first, __u32 count)
{
	struct walk walk = {
		.skb = skb,
		.state = state,
		.rewrites = rewrites,
		.slot = slot,
		.first = first,
		.count = count,
		.verdict = TC_ACT_SHOT,
	};

	if (!take_copy_tokens(slot, count))
		return drop(slot, MIDONET_DROP_COPY_RATE);
	bpf_loop(count < MIDONET_OUTPUTS_MAX ? count : MIDONET_OUTPUTS_MAX, walk_one, &walk, 0);
	return walk.verdict;
}

#endif /* MIDONET_OUTPUT_H */
