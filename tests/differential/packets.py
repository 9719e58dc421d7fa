"""Random packets out of a small pool of addresses, so that they often meet the same facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from midonet.agent.flows.mask import IPV4_STEPS, IPV6_STEPS
from midonet.packets.addresses import MAC_BROADCAST, IpAddress, IpVersion, parse_ip, parse_mac
from midonet.packets.arp import ArpMessage
from midonet.packets.build import Envelope, ethernet_frame, icmpv6_frame, ip_frame
from midonet.packets.checksum import internet_checksum, transport_checksum
from midonet.packets.ethernet import EthernetHeader, VlanTag
from midonet.packets.frame import parse_frame
from midonet.packets.ipv4 import Ipv4Header
from midonet.packets.ipv6 import FragmentHeader, Ipv6Header
from midonet.packets.nd import NdOptionKind, NeighbourSolicitation, link_address_option
from midonet.packets.neighbour import neighbour_advertisement
from midonet.packets.sctp import SctpHeader, crc32c
from midonet.packets.tcp import TcpFlag, TcpHeader
from midonet.packets.udp import UdpHeader

HOST_MACS = tuple(parse_mac(f"02:aa:00:00:00:0{index}") for index in range(1, 7))
ROUTER_MACS = tuple(parse_mac(f"02:bb:00:00:00:0{index}") for index in range(1, 7))
GROUP_MACS = (MAC_BROADCAST, parse_mac("01:00:5e:00:00:fb"), parse_mac("33:33:00:00:00:01"))
NETWORKS = 4
HOSTS = 7
PORTS = (0, 22, 67, 68, 80, 255, 256, 443, 1023, 1024, 4000, 53000)
VLANS = (*[None] * 12, 0, 10, 20, 10 | 5 << 13)
TOS = (0, 0, 0, 0x20, 0xB8, 0xBB)
TTLS = (0, 1, 2, 3, 4, 64, 64, 64, 64, 255)
SIZES = (0, 1, 8, 8, 8, 8, 100, 1240, 1380, 1400, 1430)
ODD_ADDRESSES = {
    IpVersion.V4: ("0.0.0.0", "127.0.0.1", "224.0.0.251", "255.255.255.255", "10.0.1.255",
                   "172.16.5.5", "192.168.9.9", "8.8.8.8", "240.0.0.1"),
    IpVersion.V6: ("::", "::1", "ff02::1", "ff0e::5", "fe80::5", "fe80::bb:ff:fe00:1",
                   "2001:db8:5::5", "2001:db8:9::9", "fec0::1"),
}  # fmt: skip

TCP, UDP, SCTP, ICMP, ICMPV6, OTHER = 6, 17, 132, 1, 58, 47
_FRAGMENT = 44


def host_address(version: IpVersion, network: int, host: int) -> IpAddress:
    """Return the address of a host (1 is the router's) on one of the networks."""
    text = f"10.0.{network}.{host}" if version is IpVersion.V4 else f"fd00:{network}::{host}"
    return parse_ip(text)


@dataclass(frozen=True)
class Draft:
    """What a frame is made from. Any one field can be changed alone.

    kind: ip, arp, solicitation, advertisement, or other. l4: ports, or ICMP type and code.
    """

    kind: str
    eth_src: int
    eth_dst: int
    vlan: int | None
    source: IpAddress
    destination: IpAddress
    protocol: int
    l4: tuple[int, int]
    tos: int
    ttl: int
    size: int
    fragment: int
    df: bool
    tcp_flags: int
    operation: int
    eth_type: int

    def frame(self) -> bytes:
        """Serialise, with right checksums."""
        if self.kind == "ip":
            return self._ip()
        if self.kind == "arp":
            message = ArpMessage(
                self.operation,
                self.eth_src,
                self.source.value & 0xFFFF_FFFF,
                0,
                self.destination.value & 0xFFFF_FFFF,
            )
            return self._link(0x0806, message.serialise())
        if self.kind in ("solicitation", "advertisement"):
            return self._discovery()
        return self._link(self.eth_type, bytes(46))

    def _link(self, eth_type: int, payload: bytes) -> bytes:
        return ethernet_frame(self.eth_dst, self.eth_src, eth_type, payload, vlan_tci=self.vlan)

    def _envelope(self) -> Envelope:
        return Envelope(
            self.eth_src, self.eth_dst, self.source, self.destination, self.vlan, self.ttl, self.tos
        )

    def _discovery(self) -> bytes:
        target = self.destination.value
        if self.kind == "advertisement":
            return neighbour_advertisement(
                self.eth_src, target, self.eth_dst, self.source.value, vlan_tci=self.vlan
            )
        options = (link_address_option(NdOptionKind.SOURCE_LINK_ADDRESS, self.eth_src),)
        group = IpAddress(IpVersion.V6, 0xFF02 << 112 | 0x1_FF00_0000 | target & 0xFF_FFFF)
        envelope = replace(self._envelope(), ip_dst=group, ttl=255)
        return icmpv6_frame(envelope, NeighbourSolicitation(target, options).serialise())

    def _ip(self) -> bytes:
        payload = self._payload()
        if not self.fragment and not self.df:
            return ip_frame(self._envelope(), self.protocol, payload)
        tags = () if self.vlan is None else (VlanTag(self.vlan),)
        if self.source.version is IpVersion.V4:
            header = Ipv4Header(
                self.source.value, self.destination.value, self.protocol, 20 + len(payload),
                tos=self.tos, dont_fragment=self.df, more_fragments=self.fragment == 1,
                fragment_offset=64 if self.fragment == 2 else 0, ttl=self.ttl,
            ).serialise()  # fmt: skip
            return EthernetHeader(self.eth_dst, self.eth_src, 0x0800, tags).serialise() + (
                header + payload
            )
        extension = FragmentHeader(
            self.protocol, 64 if self.fragment == 2 else 0, self.fragment == 1, 7
        ).serialise()
        header = Ipv6Header(
            self.source.value, self.destination.value, _FRAGMENT, len(extension) + len(payload),
            self.ttl, self.tos,
        ).serialise()  # fmt: skip
        return EthernetHeader(self.eth_dst, self.eth_src, 0x86DD, tags).serialise() + (
            header + extension + payload
        )

    def _payload(self) -> bytes:
        data = bytes(self.size)
        if self.fragment == 2:
            return bytes(8) + data
        addresses = (self.source.value, self.destination.value)
        first, second = self.l4
        if self.protocol == TCP:
            segment = TcpHeader(first, second, 7, 9, TcpFlag(self.tcp_flags)).serialise() + data
            return _summed(segment, 16, transport_checksum(segment, *addresses, TCP))
        if self.protocol == UDP:
            segment = UdpHeader(first, second, 8 + len(data)).serialise() + data
            return _summed(segment, 6, transport_checksum(segment, *addresses, UDP))
        if self.protocol == SCTP:
            packet = SctpHeader(first, second).serialise() + data
            return packet[:8] + crc32c(packet).to_bytes(4, "little") + packet[12:]
        message = bytes((first & 0xFF, second & 0xFF, 0, 0, 0, 1, 0, 1)) + data
        if self.protocol == ICMPV6 and self.source.version is IpVersion.V6:
            return _summed(message, 2, transport_checksum(message, *addresses, ICMPV6))
        if self.protocol == ICMP:
            return _summed(message, 2, internet_checksum(message))
        return message


def reply_to(frame: bytes) -> Draft | None:
    """Return what whoever got a TCP or UDP packet, or an echo request, sends back; else None."""
    packet = parse_frame(frame)
    key = packet.key
    version = packet.ip_version
    if version is None or key.ip_frag:
        return None
    ports = (key.l4_dst, key.l4_src)
    if key.ip_proto in (ICMP, ICMPV6):
        answers = {8: 0, 128: 129}
        if key.l4_src not in answers:
            return None
        ports = (answers[key.l4_src], 0)
    elif key.ip_proto not in (TCP, UDP):
        return None
    return Draft(
        kind="ip", eth_src=key.eth_dst, eth_dst=key.eth_src,
        vlan=key.vlan_tci & 0xEFFF if key.vlan_tci else None,
        source=IpAddress(version, key.ip_dst), destination=IpAddress(version, key.ip_src),
        protocol=key.ip_proto, l4=ports, tos=0, ttl=64, size=8, fragment=0, df=False,
        tcp_flags=0x12, operation=1, eth_type=0x88CC,
    )  # fmt: skip


def _summed(segment: bytes, offset: int, checksum: int) -> bytes:
    return segment[:offset] + checksum.to_bytes(2, "big") + segment[offset + 2 :]


class PacketSource:
    """Draws packets."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def draw(self, gateways: Sequence[int] = ()) -> Draft:
        """Return a packet. Most go to one of the MACs in `gateways`, if there are any."""
        random = self._random
        version = random.choice((IpVersion.V4, IpVersion.V6))
        kind = random.choices(
            ("ip", "arp", "solicitation", "advertisement", "other"), (16, 1, 1, 0.3, 0.5)
        )[0]
        if kind == "arp":
            version = IpVersion.V4
        elif kind in ("solicitation", "advertisement"):
            version = IpVersion.V6
        is_group = random.random() < (0.9 if kind in ("arp", "solicitation") else 0.06)
        protocol = random.choice((TCP, TCP, UDP, UDP, ICMP, ICMPV6, SCTP, OTHER))
        if protocol in (ICMP, ICMPV6) and random.random() < 0.8:
            protocol = ICMP if version is IpVersion.V4 else ICMPV6
        return Draft(
            kind=kind,
            eth_src=self._source_mac(),
            eth_dst=random.choice(GROUP_MACS) if is_group else self._mac(gateways),
            vlan=random.choice(VLANS),
            source=self._address(version),
            destination=self._address(version),
            protocol=protocol,
            l4=self._l4(protocol),
            tos=random.choice(TOS),
            ttl=random.choice(TTLS),
            size=random.choice(SIZES),
            fragment=random.choices((0, 1, 2), (10, 1, 1))[0],
            df=random.random() < 0.2,
            tcp_flags=random.choice((0x02, 0x10, 0x12, 0x04, 0x11)),
            operation=random.choice((1, 1, 1, 2, 2, 3)),
            eth_type=random.choice((0x88CC, 0x0026, 0x8100, 0x9000)),
        )

    def mutate(self, draft: Draft) -> Draft:
        """Return the same packet with one or two fields drawn anew."""
        names = self._random.choices(
            ("eth_src", "eth_dst", "vlan", "source", "source", "destination", "destination",
             "protocol", "l4", "tos", "ttl", "size", "fragment", "df", "tcp_flags", "operation",
             "kind"),
            k=self._random.choice((1, 1, 2)),
        )  # fmt: skip
        if self._random.random() < 0.25:
            name = self._random.choice(("source", "destination"))
            return replace(draft, **{name: self._near(getattr(draft, name))})  # type: ignore[arg-type]
        other = self.draw()
        if other.source.version is not draft.source.version:
            version = draft.source.version
            other = replace(
                other, source=self._address(version), destination=self._address(version)
            )
        if other.kind not in ("ip", "other"):
            other = replace(other, kind=draft.kind)
        return replace(draft, **{name: getattr(other, name) for name in names})

    def _source_mac(self) -> int:
        return GROUP_MACS[1] if self._random.random() < 0.01 else self._mac()

    def _mac(self, gateways: Sequence[int] = ()) -> int:
        if gateways and self._random.random() < 0.7:
            return self._random.choice(gateways)
        return self._random.choice(self._random.choice((HOST_MACS, ROUTER_MACS)))

    def _address(self, version: IpVersion) -> IpAddress:
        random = self._random
        if random.random() < 0.12:
            return parse_ip(random.choice(ODD_ADDRESSES[version]))
        address = host_address(version, random.randrange(NETWORKS), random.randrange(1, HOSTS))
        return self._near(address) if random.random() < 0.1 else address

    def _near(self, address: IpAddress) -> IpAddress:
        """Return an address that differs in one bit, often the first behind a mask's step."""
        random = self._random
        bits = address.version.bits
        steps = IPV4_STEPS if address.version is IpVersion.V4 else IPV6_STEPS
        place = random.choice((*steps[:-1], random.randrange(bits)))
        return IpAddress(address.version, address.value ^ 1 << (bits - 1 - place))

    def _l4(self, protocol: int) -> tuple[int, int]:
        random = self._random
        if protocol == ICMP:
            return random.choice((0, 3, 8, 8, 11, 13)), random.choice((0, 0, 4))
        if protocol == ICMPV6:
            return random.choice((1, 2, 128, 128, 129, 133, 135)), random.choice((0, 0, 4))
        return random.choice(PORTS), random.choice(PORTS)
