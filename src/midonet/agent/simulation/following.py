"""Which rules of NAT are met by what belongs to a packet that they have translated.

Later fragments do not show ports, and an ICMP error has its own protocol. A rule that translates
ports does to them what it has done to the packets that they belong to, and nothing else
(`midonet.agent.simulation.nat`), whatever it says of protocol and ports.
"""

from __future__ import annotations

import msgspec

from midonet.agent.topology.view import RuleView
from midonet.model.chains import NAT, Condition, FragmentPolicy


def translates_ports(rule: RuleView) -> bool:
    """Tell whether a rule translates connections: it is one of NAT, and not 1:1."""
    return rule.action in NAT and (rule.pool is None or rule.pool.static_address is None)


def of_follower(condition: Condition) -> Condition:
    """Return what of a condition is true of the packet and of what belongs to it."""
    return msgspec.structs.replace(
        condition, ip_proto=None, l4_src=None, l4_dst=None, fragment_policy=FragmentPolicy.ANY
    )
