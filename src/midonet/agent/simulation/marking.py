"""DSCP marking (RFC 2474) of what enters a bridge by its ports, IPv4 and IPv6 alike."""

from __future__ import annotations

from midonet.agent.flows.tags import device_tag
from midonet.agent.simulation.header import ETH_TYPE, ETH_TYPE_IPV4, ETH_TYPE_IPV6, IP_TOS
from midonet.agent.simulation.result import Await, LoadDevices
from midonet.agent.simulation.trace import MarkedDscp
from midonet.agent.simulation.walk import Walk
from midonet.agent.topology.view import PortView
from midonet.model.ids import BridgeId, QosPolicyId

_ECN_BITS = 0b11
_DSCP_SHIFT = 2


def mark_dscp(walk: Walk, port: PortView, bridge_id: BridgeId) -> Await | None:
    """Give the packet the DSCP of the port's policy; ECN (RFC 3168) stays as it is.

    A port without a policy has that of its bridge. Return what has to be loaded first. A policy
    that does not exist any more marks nothing.
    """
    policy_id = port.qos_policy_id or _policy_of_bridge(walk, bridge_id)
    if policy_id is None:
        return None
    view = walk.inputs.view
    walk.findings.tags.append(device_tag(policy_id))
    policy = view.qos_policies.get(policy_id)
    if policy is None:
        return None if policy_id in view.absent else Await(LoadDevices((policy_id,)))
    header = walk.header
    if policy.dscp is None or header.read(ETH_TYPE) not in (ETH_TYPE_IPV4, ETH_TYPE_IPV6):
        return None
    if walk.findings.steps is not None:
        walk.step(MarkedDscp(port.id, policy.id, policy.dscp))
    header.write(IP_TOS, policy.dscp << _DSCP_SHIFT | header.read_bits(IP_TOS, _ECN_BITS))
    return None


def _policy_of_bridge(walk: Walk, bridge_id: BridgeId) -> QosPolicyId | None:
    """Return the policy of a bridge; None while it is not there, the device says that itself."""
    walk.findings.tags.append(device_tag(bridge_id))
    bridge = walk.inputs.view.bridges.get(bridge_id)
    return None if bridge is None else bridge.qos_policy_id
