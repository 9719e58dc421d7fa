"""Conditions that mean nothing: parts without what they belong to, and parts that exclude each
other. A rule that ignored them would match what its author did not mean.
"""

from __future__ import annotations

from collections.abc import Iterator

from midonet.errors import Violation
from midonet.model.schema_rules import ConditionResource
from midonet.model.validation import broken
from midonet.packets.addresses import IpVersion, parse_ip
from midonet.packets.protocols import EtherType, IpProtocol

_INVERSIONS = (
    ("in_ports_inverted", "in_port_ids", "invInPorts", "inPorts"),
    ("out_ports_inverted", "out_port_ids", "invOutPorts", "outPorts"),
    ("port_group_inverted", "port_group_id", "invPortGroup", "portGroup"),
    ("in_port_group_inverted", "in_port_group_id", "invInPortGroup", "inPortGroup"),
    ("out_port_group_inverted", "out_port_group_id", "invOutPortGroup", "outPortGroup"),
    (
        "ip_address_group_src_inverted",
        "ip_address_group_src_id",
        "invIpAddrGroupSrc",
        "ipAddrGroupSrc",
    ),
    (
        "ip_address_group_dst_inverted",
        "ip_address_group_dst_id",
        "invIpAddrGroupDst",
        "ipAddrGroupDst",
    ),
    (
        "icmp_data_src_inverted",
        "icmp_data_src_address",
        "invIcmpDataSrcIp",
        "icmpDataSrcIpAddress",
    ),
    (
        "icmp_data_dst_inverted",
        "icmp_data_dst_address",
        "invIcmpDataDstIp",
        "icmpDataDstIpAddress",
    ),
    ("traversed_device_inverted", "traversed_device_id", "invTraversedDevice", "traversedDevice"),
    ("eth_type_inverted", "eth_type", "invDlType", "dlType"),
    ("eth_src_inverted", "eth_src", "invDlSrc", "dlSrc"),
    ("eth_dst_inverted", "eth_dst", "invDlDst", "dlDst"),
    ("ip_tos_inverted", "ip_tos", "invNwTos", "nwTos"),
    ("ip_proto_inverted", "ip_proto", "invNwProto", "nwProto"),
    ("ip_src_inverted", "ip_src_address", "invNwSrc", "nwSrcAddress"),
    ("ip_dst_inverted", "ip_dst_address", "invNwDst", "nwDstAddress"),
    ("l4_src_inverted", "l4_src", "invTpSrc", "tpSrc"),
    ("l4_dst_inverted", "l4_dst", "invTpDst", "tpDst"),
)
"""(flag, what it inverts) as attributes and as properties."""

_QUALIFIERS = (
    ("eth_src_mask", "eth_src", "dlSrcMask", "dlSrc"),
    ("eth_dst_mask", "eth_dst", "dlDstMask", "dlDst"),
    ("ip_src_length", "ip_src_address", "nwSrcLength", "nwSrcAddress"),
    ("ip_dst_length", "ip_dst_address", "nwDstLength", "nwDstAddress"),
    (
        "icmp_data_src_length",
        "icmp_data_src_address",
        "icmpDataSrcIpLength",
        "icmpDataSrcIpAddress",
    ),
    (
        "icmp_data_dst_length",
        "icmp_data_dst_address",
        "icmpDataDstIpLength",
        "icmpDataDstIpAddress",
    ),
)
"""(mask or length, the address it belongs to) as attributes and as properties."""

_ICMP = (IpProtocol.ICMP, IpProtocol.ICMPV6)
_WITH_PORTS = (IpProtocol.TCP, IpProtocol.UDP, IpProtocol.SCTP, *_ICMP)
_IP = (EtherType.IPV4, EtherType.IPV6)
_OF_VERSION = {
    IpVersion.V4: (EtherType.IPV4, EtherType.ARP),
    IpVersion.V6: (EtherType.IPV6,),
}
"""EtherTypes of the frames that carry addresses of a version."""
_ICMP_MAX = 255


def contradictions(resource: ConditionResource) -> Iterator[Violation]:
    """Yield what is wrong with a condition whose values are each well formed."""
    for attribute, owner, name, owner_name in _QUALIFIERS:
        value = getattr(resource, attribute)
        if value is not None and getattr(resource, owner) is None:
            yield broken(name, f"needs {owner_name}", value)
    for attribute, owner, name, owner_name in _INVERSIONS:
        if getattr(resource, attribute) and getattr(resource, owner) in (None, ()):
            yield broken(name, f"needs {owner_name}", True)
    if resource.no_vlan and resource.vlan:
        yield broken("vlan", "must be 0 when noVlan is true", resource.vlan)
    yield from _of_frames(resource)
    yield from _of_protocols(resource)


def _of_frames(resource: ConditionResource) -> Iterator[Violation]:
    """Yield what frames of the one EtherType that may match do not have."""
    if resource.eth_type is None or resource.eth_type_inverted:
        return
    kind = f"dlType {resource.eth_type:#06x}"
    if resource.eth_type not in _IP:
        for name, value, is_inverted in (
            ("nwTos", resource.ip_tos, resource.ip_tos_inverted),
            ("nwProto", resource.ip_proto, resource.ip_proto_inverted),
            ("tpSrc", resource.l4_src, resource.l4_src_inverted),
            ("tpDst", resource.l4_dst, resource.l4_dst_inverted),
        ):
            if value is not None and not is_inverted:
                yield broken(name, f"matches IP packets only, which {kind} is not", value)
    for name, address, is_inverted in (
        ("nwSrcAddress", resource.ip_src_address, resource.ip_src_inverted),
        ("nwDstAddress", resource.ip_dst_address, resource.ip_dst_inverted),
    ):
        if address is None or is_inverted:
            continue
        if resource.eth_type not in _OF_VERSION[parse_ip(address).version]:
            yield broken(name, f"never occurs in frames of {kind}", address)


def _of_protocols(resource: ConditionResource) -> Iterator[Violation]:
    """Yield what packets of the one protocol that may match do not have."""
    proto = resource.ip_proto
    if proto is None or resource.ip_proto_inverted:
        return
    for name, ports, is_inverted in (
        ("tpSrc", resource.l4_src, resource.l4_src_inverted),
        ("tpDst", resource.l4_dst, resource.l4_dst_inverted),
    ):
        if ports is None or is_inverted:
            continue
        if proto not in _WITH_PORTS:
            numbers = ", ".join(str(int(one)) for one in sorted(_WITH_PORTS))
            yield broken(name, f"needs one of nwProto {numbers}, which {proto} is not", ports)
        elif proto in _ICMP and ports.start > _ICMP_MAX:
            yield broken(name, f"is at most {_ICMP_MAX} for ICMP", ports)
