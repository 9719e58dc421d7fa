"""Conditions of rules, compiled once into tests that record what they looked at.

The order of the tests and their meaning are those of `midonet.model.chains.Condition`. A test
returns True or False, or None when it names something that cannot be resolved; the rule must
then fail closed. The fragment policy comes first and outside the inversion.

Packets without the field do not match: an address test needs IPv4, IPv6 or ARP; protocol and
TOS tests need IP (an ARP operation is no protocol); port tests need TCP, UDP, SCTP or ICMP and
not a later fragment. Which tests are satisfied follows from bits recorded on the way.
"""

from __future__ import annotations

from collections.abc import Callable

from midonet.agent.flows.program import SlowPathReason
from midonet.agent.flows.tags import RouteRegion, device_tag, group_member_tag
from midonet.agent.simulation.header import (
    ETH_DST,
    ETH_SRC,
    ETH_TYPE,
    ETH_TYPE_IPV4,
    ETH_TYPE_IPV6,
    IP_DST,
    IP_FRAG,
    IP_PROTO,
    IP_PROTO_ICMP,
    IP_PROTO_ICMPV6,
    IP_SRC,
    IP_TOS,
    L4_DST,
    L4_SRC,
    PORT_PROTOCOLS,
    VLAN_TCI,
)
from midonet.agent.simulation.walk import Walk
from midonet.agent.topology.view import PortView
from midonet.model.chains import Condition, FragmentPolicy, PortRange
from midonet.model.ids import IpAddressGroupId, ObjectId, PortGroupId, PortId
from midonet.packets.addresses import parse_mac, parse_prefix, prefix_mask
from midonet.packets.flowkey import VLAN_PRESENT, FragmentKind
from midonet.packets.icmp_quote import Quote, find_quote, is_icmp_error

_VID_BITS = 0xFFF

Test = Callable[[Walk], bool | None]

_ICMP_PROTOCOLS = {ETH_TYPE_IPV4: IP_PROTO_ICMP, ETH_TYPE_IPV6: IP_PROTO_ICMPV6}
_FRAGMENTS = {
    FragmentPolicy.NONHEADER: frozenset((FragmentKind.LATER,)),
    FragmentPolicy.HEADER: frozenset((FragmentKind.NONE, FragmentKind.FIRST)),
    FragmentPolicy.UNFRAGMENTED: frozenset((FragmentKind.NONE,)),
}


def compile_condition(condition: Condition) -> Test:
    """Return the compiled form of a condition whose addresses are valid text."""
    tests = [
        *_flow_tests(condition),
        *_vlan_tests(condition),
        *_port_group_tests(condition),
        *_port_tests(condition),
        *_link_tests(condition),
        *_network_tests(condition),
        *_transport_tests(condition),
        *_address_group_tests(condition),
    ]
    if condition.traversed_device_id is not None:
        tests.append(_traversed(condition.traversed_device_id, condition.traversed_device_inverted))
    tests += _quote_tests(condition)
    if condition.match_ip_dst_rewritten:
        tests.append(lambda walk: walk.branch.dst_rewritten)
    return _conjunction(_FRAGMENTS.get(condition.fragment_policy), tuple(tests), condition.inverted)


def _conjunction(
    fragments: frozenset[FragmentKind] | None, tests: tuple[Test, ...], inverted: bool
) -> Test:
    """Return all tests in one. fragments: kinds that may match at all; None is any."""
    if fragments is None and len(tests) == 1 and not inverted:
        return tests[0]

    def matches(walk: Walk) -> bool | None:
        if fragments is not None and walk.header.read(IP_FRAG) not in fragments:
            return False
        for test in tests:
            result = test(walk)
            if not result:
                return None if result is None else inverted
        return not inverted

    return matches


def _flow_tests(condition: Condition) -> list[Test]:
    tests: list[Test] = []
    if condition.match_forward_flow:
        tests.append(lambda walk: not walk.sight().is_return)
    if condition.match_return_flow:
        tests.append(lambda walk: walk.sight().is_return)
    return tests


def _vlan_tests(condition: Condition) -> list[Test]:
    tests: list[Test] = []
    if condition.no_vlan:
        tests.append(lambda walk: not walk.header.read_bits(VLAN_TCI, VLAN_PRESENT))
    if condition.vlan:
        expected = VLAN_PRESENT | condition.vlan
        bits = 0xFFFF if condition.vlan > _VID_BITS else VLAN_PRESENT | _VID_BITS
        tests.append(lambda walk: walk.header.read_bits(VLAN_TCI, bits) == expected)
    return tests


def _port_group_tests(condition: Condition) -> list[Test]:
    tests: list[Test] = []
    if condition.port_group_id is not None:
        tests.append(_port_group(_exterior, condition.port_group_id, condition.port_group_inverted))
    if condition.in_port_group_id is not None:
        group_id, inverted = condition.in_port_group_id, condition.in_port_group_inverted
        tests.append(_port_group(_ingress, group_id, inverted))
    if condition.out_port_group_id is not None:
        group_id, inverted = condition.out_port_group_id, condition.out_port_group_inverted
        tests.append(_port_group(_egress, group_id, inverted))
    return tests


def _exterior(walk: Walk) -> PortView | None:
    return walk.branch.exterior_port


def _ingress(walk: Walk) -> PortView | None:
    return walk.branch.ingress_port


def _egress(walk: Walk) -> PortView | None:
    return walk.branch.egress_port


def _port_group(
    port_of: Callable[[Walk], PortView | None], group_id: PortGroupId, inverted: bool
) -> Test:
    existence = device_tag(group_id)

    def test(walk: Walk) -> bool | None:
        tags = walk.findings.tags
        tags.append(existence)
        if group_id not in walk.inputs.view.port_groups:
            return None
        port = port_of(walk)
        if port is None:
            return inverted
        tags.append(group_member_tag(group_id, port.id))
        return (group_id in port.port_group_ids) != inverted

    return test


def _address_group_tests(condition: Condition) -> list[Test]:
    tests: list[Test] = []
    source_id, destination_id = condition.ip_address_group_src_id, condition.ip_address_group_dst_id
    if source_id is not None:
        tests.append(_address_group(IP_SRC, source_id, condition.ip_address_group_src_inverted))
    if destination_id is not None:
        tests.append(
            _address_group(IP_DST, destination_id, condition.ip_address_group_dst_inverted)
        )
    return tests


def _address_group(field: int, group_id: IpAddressGroupId, inverted: bool) -> Test:
    existence = device_tag(group_id)

    def test(walk: Walk) -> bool | None:
        findings, header = walk.findings, walk.header
        findings.tags.append(existence)
        group = walk.inputs.view.address_groups.get(group_id)
        if group is None:
            return None
        version = header.ip_version()
        if version is None:
            return inverted
        value, width = header.values[field], version.bits
        is_member, proof = group.lookup(version, value)
        header.record_prefix(field, proof, width)
        network = value >> width - proof << width - proof
        findings.regions.append(RouteRegion(group_id, version, network, proof))
        return is_member != inverted

    return test


def _port_tests(condition: Condition) -> list[Test]:
    tests: list[Test] = []
    if condition.in_port_ids:
        tests.append(_ingress_port(frozenset(condition.in_port_ids), condition.in_ports_inverted))
    if condition.out_port_ids:
        tests.append(_egress_port(frozenset(condition.out_port_ids), condition.out_ports_inverted))
    return tests


def _ingress_port(ports: frozenset[PortId], inverted: bool) -> Test:
    def test(walk: Walk) -> bool:
        port = walk.branch.ingress_port
        return (port is not None and port.id in ports) != inverted

    return test


def _egress_port(ports: frozenset[PortId], inverted: bool) -> Test:
    def test(walk: Walk) -> bool:
        port = walk.branch.egress_port
        return (port is not None and port.id in ports) != inverted

    return test


def _link_tests(condition: Condition) -> list[Test]:
    tests: list[Test] = []
    if condition.eth_type is not None:
        tests.append(_equals(ETH_TYPE, condition.eth_type, condition.eth_type_inverted))
    if condition.eth_src is not None:
        tests.append(
            _mac(
                ETH_SRC,
                parse_mac(condition.eth_src),
                condition.eth_src_mask,
                condition.eth_src_inverted,
            )
        )
    if condition.eth_dst is not None:
        tests.append(
            _mac(
                ETH_DST,
                parse_mac(condition.eth_dst),
                condition.eth_dst_mask,
                condition.eth_dst_inverted,
            )
        )
    return tests


def _equals(field: int, expected: int, inverted: bool) -> Test:
    def test(walk: Walk) -> bool:
        header = walk.header
        header.mask[field] |= header.live[field]
        return (header.values[field] == expected) != inverted

    return test


def _mac(field: int, expected: int, mask: int, inverted: bool) -> Test:
    wanted = expected & mask

    def test(walk: Walk) -> bool:
        return (walk.header.read_bits(field, mask) == wanted) != inverted

    return test


def _network_tests(condition: Condition) -> list[Test]:
    tests: list[Test] = []
    if condition.ip_tos is not None:
        tests.append(_ip_equals(IP_TOS, condition.ip_tos, condition.ip_tos_inverted))
    if condition.ip_proto is not None:
        tests.append(_ip_equals(IP_PROTO, condition.ip_proto, condition.ip_proto_inverted))
    if condition.ip_src is not None:
        tests.append(_prefix(IP_SRC, condition.ip_src, condition.ip_src_inverted))
    if condition.ip_dst is not None:
        tests.append(_prefix(IP_DST, condition.ip_dst, condition.ip_dst_inverted))
    return tests


def _ip_equals(field: int, expected: int, inverted: bool) -> Test:
    def test(walk: Walk) -> bool:
        header = walk.header
        mask, live, values = header.mask, header.live, header.values
        mask[ETH_TYPE] |= live[ETH_TYPE]
        if values[ETH_TYPE] not in PORT_PROTOCOLS:
            return inverted
        mask[field] |= live[field]
        return (values[field] == expected) != inverted

    return test


def _prefix(field: int, text: str, inverted: bool) -> Test:
    prefix = parse_prefix(text if "/" in text else f"{text}/{128 if ':' in text else 32}")
    version, value, length = prefix.version, prefix.value, prefix.length
    bits = version.bits

    def test(walk: Walk) -> bool:
        header = walk.header
        if header.ip_version() is not version:
            return inverted
        return header.within(field, value, length, bits) != inverted

    return test


def _transport_tests(condition: Condition) -> list[Test]:
    tests: list[Test] = []
    if condition.l4_src is not None:
        tests.append(_range(L4_SRC, condition.l4_src, condition.l4_src_inverted))
    if condition.l4_dst is not None:
        tests.append(_range(L4_DST, condition.l4_dst, condition.l4_dst_inverted))
    return tests


def _range(field: int, ports: PortRange, inverted: bool) -> Test:
    first, last = ports.start, ports.end
    # The two blocks of 256 ports that the range covers only in part (or begins and ends in).
    edges = frozenset(
        block
        for block in (first >> 8, last >> 8)
        if first > block << 8 or last < (block << 8 | 0xFF)
    )

    def test(walk: Walk) -> bool:
        header = walk.header
        mask, live, values = header.mask, header.live, header.values
        mask[ETH_TYPE] |= live[ETH_TYPE]
        protocols = PORT_PROTOCOLS.get(values[ETH_TYPE])
        if protocols is None:
            return inverted
        mask[IP_PROTO] |= live[IP_PROTO]
        mask[IP_FRAG] |= live[IP_FRAG]
        if values[IP_PROTO] not in protocols or values[IP_FRAG] == FragmentKind.LATER:
            return inverted
        value = values[field]
        mask[field] |= live[field] & (0xFFFF if value >> 8 in edges else 0xFF00)
        return (first <= value <= last) != inverted

    return test


def _traversed(device_id: ObjectId, inverted: bool) -> Test:
    def test(walk: Walk) -> bool:
        return (device_id in walk.branch.traversed) != inverted

    return test


def _quote_tests(condition: Condition) -> list[Test]:
    tests: list[Test] = []
    if condition.icmp_data_src is not None:
        tests.append(
            _quoted(_quoted_source, condition.icmp_data_src, condition.icmp_data_src_inverted)
        )
    if condition.icmp_data_dst is not None:
        tests.append(
            _quoted(_quoted_destination, condition.icmp_data_dst, condition.icmp_data_dst_inverted)
        )
    return tests


def _quoted_source(walk: Walk, quote: Quote) -> int:
    deep = walk.header.deep
    return quote.source if deep is None or deep.quoted_src is None else deep.quoted_src


def _quoted_destination(walk: Walk, quote: Quote) -> int:
    deep = walk.header.deep
    return quote.destination if deep is None or deep.quoted_dst is None else deep.quoted_dst


def _quoted(address_of: Callable[[Walk, Quote], int], text: str, inverted: bool) -> Test:
    """Return a test of an address in the packet that an ICMP error quotes. The quote is no part of
    the key: what becomes of an error that was looked into holds for that error only."""
    prefix = parse_prefix(text)
    network, mask = prefix.network, prefix_mask(prefix.version, prefix.length)

    def test(walk: Walk) -> bool:
        header, findings = walk.header, walk.findings
        protocol = _ICMP_PROTOCOLS.get(header.read(ETH_TYPE))
        if protocol is None or header.read(IP_PROTO) != protocol:
            return inverted
        header.record(IP_FRAG, 0xFF)
        header.record(L4_SRC, 0xFFFF)
        if not is_icmp_error(walk.inputs.packet):
            return inverted
        findings.slow_path = findings.slow_path or SlowPathReason.ICMP_QUOTE
        quote = find_quote(walk.inputs.packet)
        if quote is None or quote.version is not prefix.version:
            return inverted
        return (address_of(walk, quote) & mask == network) != inverted

    return test
