"""Flow programs in the words that people read."""

from __future__ import annotations

from midonet.agent.flows.mask import FlowMask
from midonet.agent.flows.program import LocalOutput, Output, Rewrite
from midonet.packets.addresses import IpVersion, format_ip, format_mac
from midonet.packets.flowkey import FlowKey
from midonet.packets.protocols import EtherType

_MACS = ("eth_dst", "eth_src")
_ADDRESSES = ("ip_src", "ip_dst")


def describe_match(key: FlowKey, mask: FlowMask) -> dict[str, str]:
    """Return the fields that matter, `value` or `value/mask`, by name."""
    is_ipv6 = key.eth_type == EtherType.IPV6
    fields: dict[str, str] = {}
    for name in FlowKey._fields:
        bits: int = getattr(mask, name)
        if not bits:
            continue
        value: int = getattr(key, name)
        if name in _MACS:
            fields[name] = format_mac(value)
        elif name in _ADDRESSES:
            fields[name] = _prefix(value, bits, is_ipv6=is_ipv6)
        else:
            fields[name] = hex(value) if name in {"eth_type", "flow_hash"} else str(value)
    return fields


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
