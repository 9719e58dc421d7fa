"""Flow programs in the words that people read."""

from __future__ import annotations

from midonet.agent.flows.mask import FlowMask
from midonet.agent.flows.program import LocalOutput, Output, Rewrite
from midonet.packets.addresses import IpVersion, format_ip, format_mac
from midonet.packets.flowkey import FlowKey, FragmentKind
from midonet.packets.protocols import EtherType, IpProtocol

_ARP_NAMES = {
    "ip_proto": "arp_operation",
    "ip_src": "arp_sender_address",
    "ip_dst": "arp_target_address",
}
_ICMP_NAMES = {"l4_src": "icmp_type", "l4_dst": "icmp_code"}
"""What the fields of a flow key hold for these (`midonet.packets.flowkey`)."""

_ICMP_PACKETS = {(EtherType.IPV4, IpProtocol.ICMP), (EtherType.IPV6, IpProtocol.ICMPV6)}

_FRAGMENT_KINDS = {kind.value: kind.name.lower() for kind in FragmentKind}
_MACS = ("eth_dst", "eth_src")
_ADDRESSES = ("ip_src", "ip_dst")


def describe_match(key: FlowKey, mask: FlowMask) -> dict[str, str]:
    """Return the fields that matter, `value` or `value/mask`, by name."""
    is_ipv6 = key.eth_type == EtherType.IPV6
    names = field_names(key.eth_type, key.ip_proto)
    fields: dict[str, str] = {}
    for name in FlowKey._fields:
        bits: int = getattr(mask, name)
        if not bits:
            continue
        value: int = getattr(key, name)
        shown = names.get(name, name)
        if name in _MACS:
            fields[shown] = format_mac(value)
        elif name in _ADDRESSES:
            fields[shown] = _prefix(value, bits, is_ipv6=is_ipv6)
        elif name == "ip_frag":
            fields[shown] = _FRAGMENT_KINDS.get(value, str(value))
        else:
            fields[shown] = hex(value) if name in {"eth_type", "flow_hash"} else str(value)
    return fields


def field_names(eth_type: int, ip_proto: int) -> dict[str, str]:
    """Return the names of flow key fields that mean something else in this kind of packet."""
    if eth_type == EtherType.ARP:
        return _ARP_NAMES
    if (eth_type, ip_proto) in _ICMP_PACKETS:
        return _ICMP_NAMES
    return {}


def describe_output(output: Output) -> str:
    """Return where an output goes and what it rewrites."""
    if isinstance(output, LocalOutput):
        target = f"port {output.port_id}"
    else:
        target = f"{output.kind} {output.remote} key {output.tunnel_key:#x}"
    rewrite = _rewrites(output.rewrite)
    return f"{target} ({rewrite})" if rewrite else target


def _prefix(value: int, bits: int, *, is_ipv6: bool) -> str:
    width = 128 if is_ipv6 else 32
    length = (bits & ((1 << width) - 1)).bit_count()
    version = IpVersion.V6 if is_ipv6 else IpVersion.V4
    return f"{format_ip(version, value & ((1 << width) - 1))}/{length}"


def _rewrites(rewrite: Rewrite) -> str:
    words: list[str] = []
    if rewrite.eth_src is not None:
        words.append(f"src {format_mac(rewrite.eth_src)}")
    if rewrite.eth_dst is not None:
        words.append(f"dst {format_mac(rewrite.eth_dst)}")
    if rewrite.pop_vlan:
        words.append("pop vlan")
    if rewrite.push_vlan is not None:
        words.append(f"push vlan {rewrite.push_vlan & 0xFFF}")
    if rewrite.ttl_decrement:
        words.append(f"ttl -{rewrite.ttl_decrement}")
    return " ".join(words)
