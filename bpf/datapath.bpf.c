// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The datapath: one object, an entry program for each kind of hook. Ingress is into the virtual
 * network. All of them are at the ingress of an interface (TCX, or clsact on older kernels).
 *
 *   midonet_port      host side of a port's interface: what a workload sends
 *   midonet_underlay  underlay interface: what other hosts send, and the host's own traffic
 *   midonet_segment   near end of the same: overlay packets that were cut into segments
 *   midonet_closed    the host's own tunnel device: nothing may pass
 *   midonet_inject    far end of the injection interface: what the agent sends, and flood copies
 *
 * What enters at a port never reaches the host's own stack.
 */
#include "lib/classify.h"
#include "lib/offload.h"
#include "lib/output.h"
#include "lib/parse.h"
#include "lib/underlay.h"
#include "lib/upcall.h"

char license_text[] SEC("license") = "GPL"; /* which the kernel asks for; see SPDX above */

/* Tell whether all that is to be done is known here. What is not would be left out silently. */
static __always_inline int is_understood(const struct midonet_action *action)
{
	return !(action->flags & ~MIDONET_PROGRAM_KNOWN) && !action->guards.flags &&
	       (action->output_count != 1 || is_output_known(&action->output));
}

/* Let an earlier program decide, where there is one; then this does not return. */
static __always_inline void ask_earlier(struct __sk_buff *skb, struct packet *packet)
{
	struct midonet_config *settings = get_config();

	if (settings && (settings->flags & MIDONET_CONFIG_COPY_EARLIER))
		upcall(skb, packet, MIDONET_UPCALL_EARLIER, 0);
	bpf_tail_call(skb, &earlier, EARLIER_PORT);
}

/* How often a packet was here before. */
enum pass {
	PASS_FIRST,
	PASS_SEGMENT,    /* cut out of a super-packet, which did not find its program */
	PASS_REINJECTED, /* the agent saw it */
};

/* Have the kernel cut up a super-packet of which the copy for the agent would be the beginning only, and
 * take in its segments one by one: nobody might send it again. */
static __always_inline int segment_for_class(struct __sk_buff *skb, __u32 slot)
{
	struct midonet_port *port = bpf_map_lookup_elem(&ports, &slot);
	struct midonet_config *settings = get_config();

	if (!port || !settings)
		return drop(slot, MIDONET_DROP_INTERNAL);
	skb->mark = slot | MIDONET_MARK_FIRST_TIME |
		    (port->incarnation & MIDONET_MARK_INCARNATION_MASK)
			    << MIDONET_MARK_INCARNATION_SHIFT;
	return bpf_redirect(settings->inject_ifindex, 0);
}

/* Decide on a parsed packet and carry it out. One that came up before does not come up again. */
static __always_inline int forward(struct __sk_buff *skb, struct state *state, enum pass pass)
{
	struct packet *packet = &state->packet;
	struct midonet_action *action = &state->action;
	struct way_out way = { .slot = packet->key.port, .id = 0, .is_last = 1 };
	int is_found = classify(state);

	if (is_found && !is_understood(action))
		return drop(way.slot, MIDONET_DROP_NOT_UNDERSTOOD);
	if (pass == PASS_REINJECTED && (!is_found || !meets_guards(skb, packet, &action->guards) ||
			      (action->flags & MIDONET_PROGRAM_UPCALL)))
		return drop(way.slot, MIDONET_DROP_NOT_REINJECTED);
	if (!is_found) {
		ask_earlier(skb, packet);
		if (pass == PASS_FIRST && skb->gso_size && skb->len > MIDONET_UPCALL_BYTES)
			return segment_for_class(skb, way.slot);
		return upcall(skb, packet, MIDONET_UPCALL_MISS, 0);
	}
	if (!meets_guards(skb, packet, &action->guards)) {
		/* The end of a connection rides on its last data: of the segments only one goes up. */
		if (pass == PASS_FIRST && skb->gso_size && skb->len > MIDONET_UPCALL_BYTES &&
		    (packet->tcp_flags & action->guards.tcp_flags_clear))
			return segment_for_class(skb, way.slot);
		return upcall(skb, packet, MIDONET_UPCALL_GUARD, action->program_id);
	}
	count_program(skb, action->program_id);
	if (action->drop_reason)
		return drop(way.slot, action->drop_reason);
	if (action->flags & MIDONET_PROGRAM_UPCALL)
		return upcall(skb, packet, MIDONET_UPCALL_PROGRAM, action->program_id);
	if (action->output_count != 1 || action->output.kind != MIDONET_OUTPUT_LOCAL)
		use_flow_hash(skb, packet);
	if (action->output_count != 1)
		return send_outputs(skb, state, 1, way.slot, action->first_output,
				    action->output_count);
	if (may_reach_underlay(packet, &action->output) &&
	    reaches_underlay(packet, &action->output))
		return drop(way.slot, MIDONET_DROP_UNDERLAY_SPOOF);
	if (action->output.rewrite.fields && rewrite_packet(skb, packet, &action->output.rewrite))
		return drop(way.slot, MIDONET_DROP_REWRITE_FAILED);
	return send_output(skb, &action->output, &way);
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
	/* The element may be another interface's by now: the port says again whether it is there. */
	slot = *(volatile __u32 *)&interface->slot;
	port = bpf_map_lookup_elem(&ports, &slot);
	if (!slot || !port || port->ifindex != ifindex || !(port->flags & MIDONET_PORT_ATTACHED))
		return 0;
	if (hint)
		*hint = slot;
	return slot;
}

SEC("tc")
int midonet_port(struct __sk_buff *skb)
{
	__u32 slot = find_slot(skb->ifindex);
	struct state *state = new_state(slot);

	if (!slot || !state) {
		bpf_tail_call(skb, &earlier, EARLIER_PORT);
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_UNKNOWN_INGRESS_PORT);
	}
	if (parse_packet(skb, &state->packet))
		return drop(slot, MIDONET_DROP_MALFORMED);
	if (!offload_agrees(skb, &state->packet))
		return drop(slot, MIDONET_DROP_OFFLOAD_MISMATCH);
	note_sender(&state->packet);
	return forward(skb, state, PASS_FIRST);
}

SEC("tc")
int midonet_underlay(struct __sk_buff *skb)
{
	return receive_overlay(skb, 0);
}

/* Segments of overlay packets that arrived as super-packets. */
SEC("tc")
int midonet_segment(struct __sk_buff *skb)
{
	int verdict;

	if (bpf_skb_change_type(skb, TYPE_HOST)) /* the interface's address is not the packet's */
		return TC_ACT_SHOT;
	verdict = receive_overlay(skb, 1);
	/* It was ours when it was sent here; the interface's own chatter never was. */
	return verdict == TC_ACT_UNSPEC ? TC_ACT_SHOT : verdict;
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
static __always_inline int emit(struct __sk_buff *skb, struct state *state, __u32 mark)
{
	struct way_out way = { .id = mark & MIDONET_MARK_OUTPUT_MASK, .is_last = 1 };
	struct midonet_output *output = &state->output;

	if (!take_output(state, way.id))
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_OUTPUT_GONE);
	if (!is_output_known(output))
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_NOT_UNDERSTOOD);
	if (!(mark & MIDONET_MARK_REWRITTEN)) {
		int is_malformed = parse_packet(skb, &state->packet);

		if (!is_malformed && may_reach_underlay(&state->packet, output) &&
		    reaches_underlay(&state->packet, output))
			return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_UNDERLAY_SPOOF);
		if (output->rewrite.fields &&
		    (is_malformed || rewrite_packet(skb, &state->packet, &output->rewrite)))
			return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_REWRITE_FAILED);
		if (!is_malformed)
			use_flow_hash(skb, &state->packet);
	}
	return send_output(skb, output, &way);
}

/* A segment of a packet that was on its way into a tunnel. */
static __always_inline int send_segment(struct __sk_buff *skb, struct state *state, __u32 mark)
{
	struct way_out way = { .is_last = 1, .is_segment = 1 };

	if (read_segment(skb, mark, &state->output))
		return drop(MIDONET_OVERLAY_SLOT, MIDONET_DROP_OUTPUT_GONE);
	return send_output(skb, &state->output, &way);
}

SEC("tc")
int midonet_inject(struct __sk_buff *skb)
{
	struct midonet_port *port;
	__u32 mark = skb->mark, slot = mark & 0xffff;
	struct state *state = new_state(slot);

	skb->mark = 0;
	if (!state)
		return TC_ACT_SHOT;
	if ((mark & MIDONET_MARK_OUTPUT) && (mark & MIDONET_MARK_SEGMENTS))
		return send_segment(skb, state, mark);
	if (mark & MIDONET_MARK_OUTPUT)
		return emit(skb, state, mark);
	port = bpf_map_lookup_elem(&ports, &slot);
	if (!slot || !port)
		return TC_ACT_SHOT; /* the interface's own chatter */
	if ((port->incarnation & MIDONET_MARK_INCARNATION_MASK) !=
	    (mark >> MIDONET_MARK_INCARNATION_SHIFT & MIDONET_MARK_INCARNATION_MASK))
		return drop(slot, MIDONET_DROP_PORT_NOT_ATTACHED);
	if (parse_packet(skb, &state->packet))
		return drop(slot, MIDONET_DROP_MALFORMED);
	return forward(skb, state,
		       mark & MIDONET_MARK_FIRST_TIME ? PASS_SEGMENT : PASS_REINJECTED);
}
