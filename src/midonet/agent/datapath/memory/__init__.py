"""A datapath in Python: the model of the contract, for tests, trials and unprivileged use."""

from midonet.agent.datapath.memory.datapath import MemoryDatapath
from midonet.agent.datapath.memory.underlay import InProcessUnderlay, UdpUnderlay, Underlay

__all__ = ["InProcessUnderlay", "MemoryDatapath", "UdpUnderlay", "Underlay"]
