"""Golden vectors of every registered header codec: bytes on one line, their meaning below."""

from __future__ import annotations

import pytest

from midonet.errors import DecodeError
from midonet.packets.arp import ArpMessage
from midonet.packets.dhcpv4 import DhcpOption, Dhcpv4Message
from midonet.packets.dhcpv6 import Dhcpv6Message, Dhcpv6Option, IaAddress, IdentityAssociation
from midonet.packets.ethernet import EthernetHeader, VlanTag
from midonet.packets.gre import GreHeader
from midonet.packets.icmpv4 import Icmpv4Header
from midonet.packets.icmpv6 import Icmpv6Header
from midonet.packets.ipv4 import Ipv4Header
from midonet.packets.ipv6 import ExtensionHeader, FragmentHeader, Ipv6Header
from midonet.packets.nd import (
    NdOption,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    RouterAdvertisement,
    RouterSolicitation,
)
from midonet.packets.registry import HEADER_CODECS, HeaderCodec
from midonet.packets.sctp import SctpHeader, crc32c, crc32c_change
from midonet.packets.tcp import TcpFlag, TcpHeader
from midonet.packets.udp import UdpHeader
from midonet.packets.vxlan import VxlanHeader

_ADDRESS = 0xFE80 << 112 | 1
_CLIENT = "00" * 16 + "020000000001" + "00" * 10
"""Addresses of a DHCP client that has none, and its hardware address."""

GOLDEN: list[tuple[str, HeaderCodec]] = [
    ("ffffffffffff 020000000001 0806", EthernetHeader(0xFFFFFFFFFFFF, 0x020000000001, 0x0806)),
    (
        "020000000002 020000000001 88a8 2064 8100 0007 0800",
        EthernetHeader(
            0x020000000002,
            0x020000000001,
            0x0800,
            (VlanTag(0x2064, 0x88A8), VlanTag(7)),
        ),
    ),
    ("8100 e00a", VlanTag(0xE00A)),
    (
        "0001 0800 06 04 0001 020000000001 0a000001 000000000000 0a000002",
        ArpMessage(1, 0x020000000001, 0x0A000001, 0, 0x0A000002),
    ),
    # The header of the worked example of RFC 1071 implementations: checksum b861.
    (
        "45 00 0073 0000 4000 40 11 b861 c0a80001 c0a800c7",
        Ipv4Header(0xC0A80001, 0xC0A800C7, 17, 0x73, dont_fragment=True),
    ),
    (
        "46 b8 0024 1234 2003 01 02 07ce 0a000001 e0000016 94040000",
        Ipv4Header(
            0x0A000001,
            0xE0000016,
            2,
            36,
            tos=0xB8,
            identification=0x1234,
            more_fragments=True,
            fragment_offset=24,
            ttl=1,
            options=bytes.fromhex("94040000"),
        ),
    ),
    (
        "6b8 12345 0014 06 40 fe800000000000000000000000000001 fe800000000000000000000000000002",
        Ipv6Header(_ADDRESS, _ADDRESS + 1, 6, 20, 64, 0xB8, 0x12345),
    ),
    ("11 00 05a9 deadbeef", FragmentHeader(17, 0x5A8, True, 0xDEADBEEF)),
    (
        "06 01 050200000100 0000000000000000",
        ExtensionHeader(6, bytes.fromhex("050200000100") + bytes(8)),
    ),
    ("08 00 f7ff 0001 0002", Icmpv4Header(8, 0, 0x00010002, 0xF7FF)),
    ("03 04 0000 0000 05dc", Icmpv4Header(3, 4, 1500)),
    ("02 00 1234 00000500", Icmpv6Header(2, 0, 1280, 0x1234)),
    ("01 01 020000000001", NdOption(1, bytes.fromhex("020000000001"))),
    (
        "87 00 abcd 00000000 fe800000000000000000000000000001 01 01 020000000001",
        NeighbourSolicitation(_ADDRESS, (NdOption(1, bytes.fromhex("020000000001")),), 0xABCD),
    ),
    (
        "88 00 0000 e0000000 fe800000000000000000000000000001 02 01 020000000001",
        NeighbourAdvertisement(
            _ADDRESS, True, True, True, (NdOption(2, bytes.fromhex("020000000001")),)
        ),
    ),
    ("85 00 0000 00000000", RouterSolicitation()),
    (
        "86 00 0000 40 c0 0708 00000001 00000002 05 01 0000 00000578",
        RouterAdvertisement(64, 0xC0, 1800, 1, 2, (NdOption(5, bytes.fromhex("000000000578")),)),
    ),
    (
        "c000 0050 00000001 00000002 60 12 ffff 0000 0000 020405b4",
        TcpHeader(
            49152,
            80,
            1,
            2,
            TcpFlag.SYN | TcpFlag.ACK,
            options=bytes.fromhex("020405b4"),
        ),
    ),
    ("0035 c001 000c beef", UdpHeader(53, 49153, 12, 0xBEEF)),
    ("0b59 0b5a 00000007 01020304", SctpHeader(2905, 2906, 7, 0x01020304)),
    ("08000000 abcdef00", VxlanHeader(0xABCDEF)),
    ("2000 6558 00abcdef", GreHeader(key=0xABCDEF)),
    ("b000 0800 12340000 00000001 00000002", GreHeader(0x0800, 1, 2, 0x1234)),
    (
        f"01 01 06 00 00c0ffee 0003 8000 {_CLIENT} {'00' * 192} 63825363 35 01 01 37 02 01 1a ff",
        Dhcpv4Message(
            1,
            0xC0FFEE,
            bytes.fromhex("020000000001") + bytes(10),
            seconds=3,
            flags=0x8000,
            options=(DhcpOption(53, b"\x01"), DhcpOption(55, b"\x01\x1a")),
        ),
    ),
    ("0008 0002 0064", Dhcpv6Option(8, b"\0\x64")),
    (
        "01 abcdef 0001 000a 0003 0001 020000000001 000e 0000",
        Dhcpv6Message(
            1,
            0xABCDEF,
            (
                Dhcpv6Option(1, bytes.fromhex("00030001020000000001")),
                Dhcpv6Option(14),
            ),
        ),
    ),
    (
        "00000007 00000e10 00001518 000d 0002 0002",
        IdentityAssociation(7, 3600, 5400, (Dhcpv6Option(13, b"\0\x02"),)),
    ),
    (
        "fe800000000000000000000000000001 00000e10 00001c20",
        IaAddress(_ADDRESS, 3600, 7200),
    ),
]

MINIMUM_CODEC_COUNT = 24
"""May only rise: guards against an empty registry."""


@pytest.mark.parametrize(("text", "header"), GOLDEN, ids=lambda value: type(value).__name__)
def test_golden_bytes_parse_to_their_meaning_and_back(text: str, header: HeaderCodec) -> None:
    data = bytes.fromhex(text.replace(" ", ""))
    assert type(header).parse(data) == header
    assert header.serialise() == data


@pytest.mark.parametrize(("text", "header"), GOLDEN, ids=lambda value: type(value).__name__)
def test_every_truncation_of_a_golden_header_is_a_decode_error_or_a_shorter_header(
    text: str, header: HeaderCodec
) -> None:
    data = bytes.fromhex(text.replace(" ", ""))
    for size in range(len(data)):
        try:
            shorter = type(header).parse(data[:size])
        except DecodeError:
            continue
        assert shorter.serialise() == data[:size]


def test_every_codec_has_a_golden_vector() -> None:
    assert {type(header) for _, header in GOLDEN} == set(HEADER_CODECS)
    assert len(HEADER_CODECS) == len(set(HEADER_CODECS)) >= MINIMUM_CODEC_COUNT


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        (Ipv4Header, "65" + "00" * 19),  # version 6
        (Ipv4Header, "44" + "00" * 19),  # IHL 4
        (Ipv6Header, "45" + "00" * 39),
        (VlanTag, "0800 0001"),
        (TcpHeader, "00" * 12 + "40" + "00" * 7),
        (VxlanHeader, "00000000 00000100"),  # no I bit
        (GreHeader, "4000 6558"),  # routing present
        (GreHeader, "2001 6558 00000001"),  # version 1
        (NdOption, "0100" + "00" * 6),  # length 0
        (NeighbourSolicitation, "8701" + "00" * 22),  # code 1
        (NeighbourSolicitation, "8800" + "00" * 22),  # an advertisement
    ],
)
def test_contradictory_headers_are_decode_errors(codec: type[HeaderCodec], text: str) -> None:
    with pytest.raises(DecodeError):
        codec.parse(bytes.fromhex(text.replace(" ", "")))


def test_a_third_vlan_tag_stays_unread() -> None:
    data = bytes.fromhex("020000000002020000000001" + "81000001" * 3 + "0800")
    header = EthernetHeader.parse(data)
    assert (len(header.tags), header.eth_type, header.size) == (2, 0x8100, 22)


def test_tag_fields_are_split_out_of_the_tci() -> None:
    assert (VlanTag(0xE00A).priority, VlanTag(0xE00A).vlan_id) == (7, 10)


def test_icmp_headers_name_the_parts_of_the_second_word() -> None:
    echo = Icmpv4Header(8, 0, 0x00010002)
    assert (echo.identifier, echo.sequence, echo.is_error) == (1, 2, False)
    assert Icmpv4Header(3, 4, 1400).next_hop_mtu_bytes == 1400
    assert Icmpv4Header(11).is_error
    assert Icmpv6Header(2, 0, 1280).mtu_bytes == 1280
    assert Icmpv6Header(2).is_error
    assert not Icmpv6Header(129, 0, 0x00010002).is_error
    assert (Icmpv6Header(129, 0, 0x00010002).identifier, Icmpv6Header(129, 0, 5).sequence) == (1, 5)


def test_nd_messages_name_their_link_address() -> None:
    mac = NdOption(1, bytes.fromhex("020000000001"))
    assert NeighbourSolicitation(_ADDRESS, (mac,)).link_address == 0x020000000001
    assert RouterSolicitation((NdOption(1, bytes(14)), mac)).link_address == 0x020000000001
    assert RouterAdvertisement(options=(mac,)).link_address == 0x020000000001
    assert NeighbourAdvertisement(_ADDRESS, options=(mac,)).link_address is None


def test_crc32c_of_the_check_string() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_crc32c_change_equals_computing_anew() -> None:
    old, new = b"head-old-tail and more", b"head-new-tail and more"
    difference = bytes(a ^ b for a, b in zip(old[5:8], new[5:8], strict=True))
    assert crc32c(old) ^ crc32c_change(difference, len(old) - 8) == crc32c(new)
