"""DHCP and DHCPv6 messages beyond their golden bytes: overload, pieces, lying lengths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midonet.errors import DecodeError
from midonet.packets.dhcpv4 import DhcpOption, Dhcpv4Message, serialise_option
from midonet.packets.dhcpv6 import Dhcpv6Message, Dhcpv6Option, IaAddress, IdentityAssociation

PLAIN = Dhcpv4Message(1, 7).serialise()
FIXED = PLAIN[:-1]
SNAME, FILE = 44, 108


def overloaded(value: int, *, sname: bytes = b"", file: bytes = b"") -> bytes:
    """Return a message whose legacy fields hold options."""
    data = bytearray(FIXED + bytes((52, 1, value, 53, 1, 1, 255)))
    data[SNAME : SNAME + len(sname)] = sname
    data[FILE : FILE + len(file)] = file
    return bytes(data)


def test_overloaded_fields_hold_options_file_before_sname() -> None:
    data = overloaded(3, sname=b"\x0c\x01c\xff", file=b"\x0c\x02ab\xff")
    found = Dhcpv4Message.parse(data)
    assert found.options == (DhcpOption(53, b"\1"), DhcpOption(12, b"abc"))
    assert (found.server_name, found.boot_file) == (bytes(64), bytes(128))


def test_fields_that_are_not_overloaded_are_kept() -> None:
    data = overloaded(1, sname=b"\x0c\x01c\xff", file=b"\x0c\x02ab\xff")
    found = Dhcpv4Message.parse(data)
    assert found.option(12) == b"ab"
    assert found.server_name == b"\x0c\x01c\xff".ljust(64, b"\0")


def test_overload_says_nothing_in_an_overloaded_field() -> None:
    found = Dhcpv4Message.parse(overloaded(1, sname=b"\x0c\x01c\xff", file=b"\x34\x01\x03\xff"))
    assert found.option(12) is None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        FIXED[:239],
        FIXED,  # no end
        PLAIN[:236] + bytes(4) + b"\xff",  # BOOTP
        FIXED + b"\x0c",
        FIXED + b"\x0c\x05abc\xff",
        FIXED + b"\x34\x01\x00\xff",
        FIXED + b"\x34\x01\x04\xff",
        FIXED + b"\x34\x02\x01\x01\xff",
        FIXED + b"\x34\x01\x01\x34\x01\x01\xff",
        overloaded(1, file=b"\x0c\xffx"),
        overloaded(2, sname=b"\x0c\x3fx"),
        overloaded(2),  # no end in the field
        PLAIN[:2] + b"\x11" + PLAIN[3:],  # an address of 17 bytes
    ],
)
def test_messages_that_contradict_themselves_are_decode_errors(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Dhcpv4Message.parse(data)


def test_long_options_go_in_pieces_and_come_together() -> None:
    option = DhcpOption(121, bytes(range(256)) * 3)
    data = serialise_option(option)
    assert (data[0], data[1], data[257], data[258]) == (121, 255, 121, 255)
    message = Dhcpv4Message(2, 7, options=(DhcpOption(53, b"\2"), option, DhcpOption(6, b"")))
    assert Dhcpv4Message.parse(message.serialise()) == message


def test_pieces_need_not_be_neighbours() -> None:
    found = Dhcpv4Message.parse(FIXED + b"\x0c\x01a\x00\x35\x01\x01\x0c\x01b\xff\x0c\x01c")
    assert found.options == (DhcpOption(12, b"ab"), DhcpOption(53, b"\1"))


@given(body=st.binary(max_size=200), sname=st.binary(max_size=64), overload=st.integers(0, 3))
def test_any_options_are_a_stable_message_or_a_decode_error(
    body: bytes, sname: bytes, overload: int
) -> None:
    data = bytearray(FIXED + bytes((52, 1, overload)) * bool(overload) + body + b"\xff")
    data[SNAME : SNAME + len(sname)] = sname
    try:
        found = Dhcpv4Message.parse(bytes(data))
    except DecodeError:
        return
    assert Dhcpv4Message.parse(found.serialise()) == found
    for option in found.options:
        try:
            found.number(option.code, 4)
        except DecodeError:
            assert len(option.value) != 4


@pytest.mark.parametrize(
    "text",
    ["", "010203", "01 000001 0001", "01 000001 0001 0002 00", "0c 000001", "0d 000001"],
)
def test_dhcpv6_messages_that_lie_are_decode_errors(text: str) -> None:
    with pytest.raises(DecodeError):
        Dhcpv6Message.parse(bytes.fromhex(text.replace(" ", "")))


def test_an_association_names_its_addresses() -> None:
    options = tuple(Dhcpv6Option(5, IaAddress(address).serialise()) for address in (1, 2))
    association = IdentityAssociation(9, options=(*options, Dhcpv6Option(13, b"\0\0")))
    assert IdentityAssociation.parse(association.serialise()).addresses == (1, 2)
    broken = IdentityAssociation(9, options=(Dhcpv6Option(5, bytes(23)),))
    with pytest.raises(DecodeError):
        _ = broken.addresses
