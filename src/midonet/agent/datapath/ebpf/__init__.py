"""The kernel datapath: eBPF programs at TCX or clsact hooks, fed and read by the agent."""

from midonet.agent.datapath.ebpf.datapath import EbpfDatapath
from midonet.agent.datapath.ebpf.hooks import AttachMode, FilterAttacher

__all__ = ["AttachMode", "EbpfDatapath", "FilterAttacher"]
