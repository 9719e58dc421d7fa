"""Frames that the simulation tests send."""

from __future__ import annotations

from midonet.packets.addresses import parse_ip, parse_mac
from midonet.packets.build import Envelope, echo_request_frame, tcp_frame, udp_frame
from midonet.packets.neighbour import arp_request, neighbour_solicitation
from midonet.packets.tcp import TcpFlag, TcpHeader

M1 = "02:aa:00:00:00:01"
M2 = "02:aa:00:00:00:02"
M3 = "02:aa:00:00:00:03"
BROADCAST = "ff:ff:ff:ff:ff:ff"


def envelope(
    source: str = "10.0.1.5",
    destination: str = "10.0.2.5",
    *,
    eth_src: str = M1,
    eth_dst: str = M2,
    vlan: int | None = None,
    ttl: int = 64,
    df: bool = False,
    tos: int = 0,
) -> Envelope:
    return Envelope(
        parse_mac(eth_src),
        parse_mac(eth_dst),
        parse_ip(source),
        parse_ip(destination),
        vlan_tci=vlan,
        ttl=ttl,
        dont_fragment=df,
        tos=tos,
    )


def udp(
    *addresses: str, sport: int = 4000, dport: int = 5000, size: int = 8, **link: object
) -> bytes:
    return udp_frame(envelope(*addresses, **link), sport, dport, bytes(size))  # type: ignore[arg-type]


def tcp(
    *addresses: str,
    sport: int = 4000,
    dport: int = 80,
    flags: TcpFlag = TcpFlag.SYN,
    **link: object,
) -> bytes:
    header = TcpHeader(sport, dport, 7, 9, flags)
    return tcp_frame(envelope(*addresses, **link), header)  # type: ignore[arg-type]


def echo(*addresses: str, identifier: int = 1, size: int = 8, **link: object) -> bytes:
    return echo_request_frame(envelope(*addresses, **link), identifier, 1, bytes(size))  # type: ignore[arg-type]


def arp(sender: str, target: str, *, mac: str = M1) -> bytes:
    return arp_request(parse_mac(mac), parse_ip(sender).value, parse_ip(target).value)


def solicitation(sender: str, target: str, *, mac: str = M1) -> bytes:
    return neighbour_solicitation(parse_mac(mac), parse_ip(sender).value, parse_ip(target).value)
