"""No tenant reaches the hosts' underlay addresses: the check that every datapath makes of a packet
on its way out, whatever program sent it there.

A packet that leaves by an uplink may go to none of those addresses. Inside virtual networks the
same addresses may be in use by tenants, so there only overlay packets are refused: a port of a
bridge may lead to the physical network too. Later fragments of UDP count as overlay packets,
because they do not say what they are.
"""

from __future__ import annotations

from collections.abc import Container

from midonet.agent.flows.program import Output
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.packets.flowkey import FlowKey, FragmentKind
from midonet.packets.protocols import EtherType, IpProtocol

_VERSIONS = {int(EtherType.IPV4): IpVersion.V4, int(EtherType.IPV6): IpVersion.V6}


def reaches_underlay(
    key: FlowKey, output: Output, addresses: Container[IpAddress], vxlan_port: int
) -> bool:
    """Tell whether a packet must not leave by `output`. key: of the packet as it entered."""
    version = _VERSIONS.get(key.eth_type)
    if version is None or not (output.is_uplink or _is_overlay(key, output, vxlan_port)):
        return False
    changed = output.rewrite.ip_dst
    return IpAddress(version, key.ip_dst if changed is None else changed) in addresses


def _is_overlay(key: FlowKey, output: Output, vxlan_port: int) -> bool:
    if key.ip_proto == IpProtocol.UDP:
        changed = output.rewrite.l4_dst
        port = key.l4_dst if changed is None else changed
        return key.ip_frag == FragmentKind.LATER or port == vxlan_port
    return key.ip_proto == IpProtocol.GRE
