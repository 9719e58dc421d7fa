// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * A program that no verifier lets through, for the test of what is said then.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

char license_text[] SEC("license") = "GPL"; /* which the kernel asks for; see SPDX above */

SEC("tc")
int refused(struct __sk_buff *skb)
{
	return *(int *)(long)skb->len;
}
