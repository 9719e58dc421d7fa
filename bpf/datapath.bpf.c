// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The datapath: one object, an entry program for each kind of hook. Ingress is into the virtual
 * network. All of them are at the ingress of an interface (TCX, or clsact on older kernels).
 *
 *   midonet_port      host side of a port's interface: what a workload sends
 *   midonet_underlay  underlay interface: what other hosts send, and the host's own traffic
 *   midonet_closed    the host's own tunnel device: nothing may pass
 *   midonet_inject    far end of the injection interface: what the agent sends, and flood copies
 *
 * What enters at a port never reaches the host's own stack.
 */
#include "lib/classify.h"
#include "lib/output.h"
#include "lib/parse.h"
#include "lib/underlay.h"
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

SEC("tc")
int midonet_underlay(struct __sk_buff *skb)
{
	return receive_overlay(skb);
}

/* The host's own tunnel device: the kernel opens overlay packets there that the hook on the
 * underlay did not take. None of them is for the host. */
SEC("tc")
int midonet_closed(struct __sk_buff *skb)
{
	(void)skb;
	return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_OVERLAY_STRAY);
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
