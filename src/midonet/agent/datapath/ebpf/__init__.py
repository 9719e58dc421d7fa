"""The kernel datapath: eBPF programs at TCX or clsact hooks, fed and read by the agent."""

from midonet.agent.datapath.ebpf.hooks import AttachMode, FilterAttacher
from midonet.agent.datapath.ebpf.kernel_datapath import EbpfDatapath

__all__ = ["AttachMode", "EbpfDatapath", "FilterAttacher"]
