"""The kernel datapath: eBPF programs at TCX or clsact hooks, fed and read by the agent."""
