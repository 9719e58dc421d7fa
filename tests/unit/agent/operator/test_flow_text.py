from __future__ import annotations

import pytest

from midonet.agent.flows.mask import FlowMask
from midonet.agent.operator.flow_text import describe_match
from midonet.packets.flowkey import FlowKey, FragmentKind

EVERY_BIT = FlowMask(*[(1 << 128) - 1] * len(FlowMask._fields))


def shown(**fields: int) -> dict[str, str]:
    return describe_match(FlowKey(eth_dst=1, eth_src=2, **fields), EVERY_BIT)


def test_arp_is_shown_by_its_own_names() -> None:
    match = shown(eth_type=0x0806, ip_proto=1, ip_src=0x0A000001, ip_dst=0x0A000002)
    assert match["arp_operation"] == "1"
    assert match["arp_sender_address"] == "10.0.0.1/32"
    assert match["arp_target_address"] == "10.0.0.2/32"
    assert not {"ip_proto", "ip_src", "ip_dst"} & match.keys()


@pytest.mark.parametrize(("eth_type", "ip_proto"), [(0x0800, 1), (0x86DD, 58)])
def test_icmp_is_shown_by_its_own_names(eth_type: int, ip_proto: int) -> None:
    match = shown(eth_type=eth_type, ip_proto=ip_proto, l4_src=3, l4_dst=4)
    assert match["icmp_type"] == "3"
    assert match["icmp_code"] == "4"
    assert not {"l4_src", "l4_dst"} & match.keys()


@pytest.mark.parametrize(("eth_type", "ip_proto"), [(0x0800, 6), (0x0800, 58), (0x86DD, 1)])
def test_everything_else_keeps_the_names_of_ports(eth_type: int, ip_proto: int) -> None:
    match = shown(eth_type=eth_type, ip_proto=ip_proto, ip_frag=FragmentKind.FIRST, l4_src=80)
    assert match["l4_src"] == "80"
    assert match["ip_frag"] == "first"
