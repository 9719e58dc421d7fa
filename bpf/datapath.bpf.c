// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The datapath: one object, an entry program for each kind of hook. Ingress is into the virtual
 * network. All of them are at the ingress of an interface (TCX, or clsact on older kernels).
 *
 *   midonet_port      host side of a port's interface: what a workload sends
 *   midonet_underlay  underlay interface: what other hosts send, and the host's own traffic
 *   midonet_inject    far end of the injection interface: what the agent sends, and flood copies
 *
 * What enters at a port never reaches the host's own stack.
 */
#include "lib/classify.h"
#include "lib/output.h"
#include "lib/parse.h"
#include "lib/upcall.h"

char license_text[] SEC("license") = "GPL"; /* which the kernel asks for; see SPDX above */

/* Decide on a parsed packet and carry it out. One that came up before does not come up again. */
static __always_inline int forward(struct __sk_buff *skb, struct packet *packet, int is_reinjected)
{
	struct way_out way = { .slot = packet->key.port, .id = 0, .is_last = 1 };
	struct midonet_program *program = classify(packet);

	if (is_reinjected &&
	    (!program || !meets_guards(skb, packet, &program->guards) ||
	     (program->flags & MIDONET_PROGRAM_UPCALL)))
		return drop(way.slot, MIDONET_DROP_NOT_REINJECTED);
	if (!program)
		return upcall(skb, packet, MIDONET_UPCALL_MISS, 0);
	if (!meets_guards(skb, packet, &program->guards))
		return upcall(skb, packet, MIDONET_UPCALL_GUARD, program->program_id);
	count_program(skb, program->program_id);
	if (program->drop_reason)
		return drop(way.slot, program->drop_reason);
	if (program->flags & MIDONET_PROGRAM_UPCALL)
		return upcall(skb, packet, MIDONET_UPCALL_PROGRAM, program->program_id);
	if (program->output_count != 1 || program->output.kind != MIDONET_OUTPUT_LOCAL)
		use_flow_hash(skb, packet);
	if (program->output_count != 1)
		return send_outputs(skb, packet, way.slot, program->first_output,
				    program->output_count);
	if (program->output.rewrite.fields &&
	    rewrite_packet(skb, packet, &program->output.rewrite))
		return drop(way.slot, MIDONET_DROP_REWRITE_FAILED);
	return send_output(skb, &program->output, &way);
}

/* Slot of the port at an interface, 0 when there is none. */
static __always_inline __u32 find_slot(__u32 ifindex)
{
	struct midonet_interface *interface;
	__u32 index = ifindex & (INTERFACE_HINTS - 1);
	__u32 *hint = bpf_map_lookup_elem(&interface_hints, &index);
	__u32 slot = hint ? *hint : 0;
	struct midonet_port *port = bpf_map_lookup_elem(&ports, &slot);

	if (slot && port && port->ifindex == ifindex && (port->flags & MIDONET_PORT_ATTACHED))
		return slot;
	interface = bpf_map_lookup_elem(&interfaces, &ifindex);
	if (!interface)
		return 0;
	if (hint)
		*hint = interface->slot;
	return interface->slot;
}

SEC("tc")
int midonet_port(struct __sk_buff *skb)
{
	struct packet packet = {};

	packet.key.port = find_slot(skb->ifindex);
	if (!packet.key.port)
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_UNKNOWN_INGRESS_PORT);
	if (parse_packet(skb, &packet))
		return drop(packet.key.port, MIDONET_DROP_MALFORMED);
	return forward(skb, &packet, 0);
}

static __always_inline int deliver(struct __sk_buff *skb, const struct midonet_delivery *delivery)
{
	struct way_out way = { .slot = MIDONET_OVERLAY_SLOT, .id = 0, .is_last = 1 };
	struct midonet_output output = { .kind = MIDONET_OUTPUT_LOCAL };

	if (delivery->output_count)
		return send_outputs(skb, NULL, way.slot, delivery->first_output,
				    delivery->output_count);
	output.target = delivery->port;
	output.incarnation = delivery->incarnation;
	return output_local(skb, &output, &way);
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

SEC("tc")
int midonet_underlay(struct __sk_buff *skb)
{
	struct overlay overlay = {};
	struct midonet_delivery *delivery;
	struct delivery_hint *hint;
	struct midonet_peer *peer;
	int verdict = read_outer(skb, &overlay);
	__u32 index, zero = 0;
	__u64 *generation, now;

	if (verdict == OVERLAY_NO)
		return TC_ACT_UNSPEC;
	index = hint_index(&overlay);
	generation = bpf_map_lookup_elem(&delivery_generation, &zero);
	hint = bpf_map_lookup_elem(&delivery_hints, &index);
	if (!generation || !hint)
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_INTERNAL);
	/* Read before the tables: what changes meanwhile makes the hint that is written below void. */
	now = *(volatile __u64 *)generation;
	if (verdict == OVERLAY_YES && is_hint_for(hint, &overlay, now)) {
		if (decapsulate(skb, &overlay))
			return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_ENCAP_FAILED);
		return deliver(skb, &hint->delivery);
	}
	peer = bpf_map_lookup_elem(&peers, &overlay.peer);
	if (!peer) {
		__builtin_memset(overlay.peer.remote, 0, sizeof(overlay.peer.remote));
		if (verdict == OVERLAY_OTHER_GRE || !bpf_map_lookup_elem(&peers, &overlay.peer))
			return TC_ACT_UNSPEC; /* not for an address of ours */
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_UNKNOWN_PEER);
	}
	if (verdict != OVERLAY_YES)
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_OVERLAY_MALFORMED);
	delivery = bpf_map_lookup_elem(&deliveries, &overlay.key);
	if (!delivery)
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_UNKNOWN_TUNNEL_KEY);
	hint->peer = overlay.peer;
	hint->delivery = *delivery;
	hint->key = overlay.key;
	hint->generation = now;
	if (decapsulate(skb, &overlay))
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_ENCAP_FAILED);
	return deliver(skb, delivery);
}

/* One output that was chosen before: by the agent, or by a flood. Nothing is counted as traffic. */
static __always_inline int emit(struct __sk_buff *skb, __u32 mark)
{
	struct packet packet = {};
	struct way_out way = { .id = mark & MIDONET_MARK_OUTPUT_MASK, .is_last = 1 };
	struct midonet_output *output = bpf_map_lookup_elem(&outputs, &way.id);

	if (!output)
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_OUTPUT_GONE);
	if (!(mark & MIDONET_MARK_REWRITTEN)) {
		int is_malformed = parse_packet(skb, &packet);

		if (output->rewrite.fields &&
		    (is_malformed || rewrite_packet(skb, &packet, &output->rewrite)))
			return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_REWRITE_FAILED);
		if (!is_malformed)
			use_flow_hash(skb, &packet);
	}
	return send_output(skb, output, &way);
}

SEC("tc")
int midonet_inject(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct midonet_port *port;
	__u32 mark = skb->mark, slot = mark & 0xffff;

	skb->mark = 0;
	if (mark & MIDONET_MARK_OUTPUT)
		return emit(skb, mark);
	port = bpf_map_lookup_elem(&ports, &slot);
	if (!slot || !port)
		return TC_ACT_SHOT; /* the interface's own chatter */
	if ((port->incarnation & MIDONET_MARK_INCARNATION_MASK) !=
	    (mark >> MIDONET_MARK_INCARNATION_SHIFT & MIDONET_MARK_INCARNATION_MASK))
		return drop(slot, MIDONET_DROP_PORT_NOT_ATTACHED);
	packet.key.port = slot;
	if (parse_packet(skb, &packet))
		return drop(slot, MIDONET_DROP_MALFORMED);
	return forward(skb, &packet, 1);
}
