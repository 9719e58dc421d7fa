"""A datapath in Python: the model of the contract, for tests, trials and unprivileged use."""

from midonet.agent.datapath.memory.carriers import InProcessUnderlay, UdpUnderlay, Underlay
from midonet.agent.datapath.memory.memory_datapath import MemoryDatapath

__all__ = ["InProcessUnderlay", "MemoryDatapath", "UdpUnderlay", "Underlay"]
