"""One line about a frame, for people."""

from __future__ import annotations

from midonet.errors import DecodeError
from midonet.packets.addresses import IpVersion, format_ip, format_mac
from midonet.packets.flowkey import VLAN_PRESENT
from midonet.packets.frame import ParsedFrame, parse_frame
from midonet.packets.protocols import IpProtocol

_ARP_WORDS = {1: "request", 2: "reply"}


def describe_frame(frame: bytes) -> str:
    """Return addresses, protocol and ports of a frame in one line."""
    try:
        packet = parse_frame(frame)
    except DecodeError as error:
        return f"malformed ({error}), {len(frame)} bytes"
    key = packet.key
    words = [f"{format_mac(key.eth_src)} > {format_mac(key.eth_dst)}"]
    if key.vlan_tci & VLAN_PRESENT:
        words.append(f"vlan {key.vlan_tci & 0xFFF}")
    words.append(_network(packet))
    words.append(f"{len(frame)} bytes")
    return ", ".join(words)


def _network(packet: ParsedFrame) -> str:
    key = packet.key
    if packet.arp is not None:
        arp = packet.arp
        word = _ARP_WORDS.get(arp.operation, str(arp.operation))
        sender = f"{format_ip(IpVersion.V4, arp.sender_ip)} at {format_mac(arp.sender_mac)}"
        return f"ARP {word} for {format_ip(IpVersion.V4, arp.target_ip)} from {sender}"
    version = packet.ip_version
    if version is None:
        return f"type 0x{key.eth_type:04x}"
    source, target = format_ip(version, key.ip_src), format_ip(version, key.ip_dst)
    match key.ip_proto:
        case IpProtocol.TCP | IpProtocol.UDP | IpProtocol.SCTP:
            name = IpProtocol(key.ip_proto).name
            what = f"{name} {source} port {key.l4_src} > {target} port {key.l4_dst}"
        case IpProtocol.ICMP | IpProtocol.ICMPV6:
            what = f"ICMP {source} > {target} type {key.l4_src} code {key.l4_dst}"
        case protocol:
            what = f"IP protocol {protocol} {source} > {target}"
    fragment = ("", " first fragment", " later fragment")[key.ip_frag]
    return f"{what}{fragment}, ttl {packet.ttl}"
