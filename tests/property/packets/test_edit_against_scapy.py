"""Edits with incremental checksums equal scapy's computing everything anew."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet

from midonet.agent.flows.apply import apply_rewrite
from midonet.agent.flows.program import Rewrite
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.packets.overlay import decapsulate, encapsulate_gre, encapsulate_vxlan

from .scapy_frames import (
    bytes8,
    ip_frames,
    ipv4_addresses,
    ipv4_text,
    ipv6_addresses,
    ipv6_text,
    mac_text,
    macs,
    ports,
)


@st.composite
def rewrites(draw: st.DrawFn, *, is_ipv6: bool, ttl: int) -> Rewrite:
    addresses = ipv6_addresses if is_ipv6 else ipv4_addresses

    def maybe(values: st.SearchStrategy[int]) -> int | None:
        return draw(st.none() | values)

    return Rewrite(
        eth_dst=maybe(macs),
        eth_src=maybe(macs),
        pop_vlan=draw(st.booleans()),
        push_vlan=maybe(st.integers(0, 0xFFFF).map(lambda tci: tci & 0xEFFF)),
        ip_src=maybe(addresses),
        ip_dst=maybe(addresses),
        ip_tos=maybe(bytes8),
        l4_src=maybe(ports),
        l4_dst=maybe(ports),
        ttl_decrement=draw(st.integers(0, max(0, min(ttl - 1, 12)))),
    )


def rewritten(packet: Packet, rewrite: Rewrite) -> bytes:
    """Return what scapy makes of the template: fields set, all checksums computed anew."""
    packet = packet.copy()
    link = packet[Ether]
    if rewrite.pop_vlan and (Dot1Q in packet or Dot1AD in packet):
        tag = packet[Dot1Q] if Dot1Q in packet else packet[Dot1AD]
        link = Ether(src=link.src, dst=link.dst) / tag.payload
    if rewrite.push_vlan is not None:
        tci = rewrite.push_vlan
        inner = link.payload
        tag = Dot1Q(prio=tci >> 13, vlan=tci & 0xFFF, type=Ether(bytes(link)).type)
        link = Ether(src=link.src, dst=link.dst, type=0x8100) / tag / inner
    if rewrite.eth_dst is not None:
        link.dst = mac_text(rewrite.eth_dst)
    if rewrite.eth_src is not None:
        link.src = mac_text(rewrite.eth_src)
    set_network(link, rewrite)
    for layer in (TCP, UDP):
        if layer in link:
            if rewrite.l4_src is not None:
                link[layer].sport = rewrite.l4_src
            if rewrite.l4_dst is not None:
                link[layer].dport = rewrite.l4_dst
    return bytes(link)


def set_network(link: Packet, rewrite: Rewrite) -> None:
    is_ipv4 = IP in link
    network = link[IP] if is_ipv4 else link[IPv6]
    text = ipv4_text if is_ipv4 else ipv6_text
    if rewrite.ip_src is not None:
        network.src = text(rewrite.ip_src)
    if rewrite.ip_dst is not None:
        network.dst = text(rewrite.ip_dst)
    if rewrite.ip_tos is not None:
        setattr(network, "tos" if is_ipv4 else "tc", rewrite.ip_tos)
    field = "ttl" if is_ipv4 else "hlim"
    setattr(network, field, getattr(network, field) - rewrite.ttl_decrement)


@given(data=st.data(), packet=ip_frames)
def test_rewritten_frames_equal_frames_built_with_the_new_fields(
    data: st.DataObject, packet: Packet
) -> None:
    ttl = packet[IP].ttl if IP in packet else packet[IPv6].hlim
    rewrite = data.draw(rewrites(is_ipv6=IPv6 in packet, ttl=ttl))
    assert apply_rewrite(bytes(packet), rewrite) == rewritten(packet, rewrite)


@given(
    inner=st.binary(min_size=14, max_size=200),
    key=st.integers(0, 2**24 - 1),
    is_ipv6=st.booleans(),
    source_port=ports,
)
def test_overlay_packets_are_what_scapy_reads_and_come_out_again(
    inner: bytes, key: int, is_ipv6: bool, source_port: int
) -> None:
    version = IpVersion.V6 if is_ipv6 else IpVersion.V4
    local, remote = IpAddress(version, 5), IpAddress(version, 6)
    vxlan = encapsulate_vxlan(
        inner, key=key, local=local, remote=remote, source_port=source_port, udp_port=4789
    )
    gre = encapsulate_gre(inner, key=key, local=local, remote=remote)
    for packet in (vxlan, gre):
        assert decapsulate(packet, 4789) == (local, remote, key, inner)
    layer = (IPv6 if is_ipv6 else IP)(vxlan)
    assert (layer[UDP].sport, layer[UDP].dport, layer[UDP].len) == (
        source_port,
        4789,
        16 + len(inner),
    )
    if not is_ipv6:
        rebuilt = layer.copy()
        del rebuilt.chksum
        assert IP(bytes(rebuilt)).chksum == layer.chksum
