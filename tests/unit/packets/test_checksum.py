from __future__ import annotations

import pytest

from midonet.packets.checksum import (
    internet_checksum,
    transport_checksum,
    updated_checksum,
    updated_udp_checksum,
)


def test_example_of_rfc_1071_section_3() -> None:
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert internet_checksum(data) == ~0xDDF2 & 0xFFFF


def test_example_of_rfc_1624_section_4() -> None:
    # The case that RFC 1141 got wrong: the result is 0x0000, not 0xFFFF.
    assert updated_checksum(0xDD2F, 0x5555, 0x3285) == 0x0000


@pytest.mark.parametrize(
    ("data", "checksum"),
    [(b"", 0xFFFF), (b"\0\0", 0xFFFF), (b"\xff\xff", 0), (b"\x12", 0xEDFF), (b"\xff\xff" * 9, 0)],
)
def test_edges_of_the_sum(data: bytes, checksum: int) -> None:
    assert internet_checksum(data) == checksum


def test_data_with_its_checksum_sums_to_zero() -> None:
    header = bytes.fromhex("450000730000400040110000c0a80001c0a800c7")
    checksum = internet_checksum(header)
    assert checksum == 0xB861
    assert internet_checksum(header[:10] + checksum.to_bytes(2, "big") + header[12:]) == 0


def test_a_udp_checksum_of_zero_is_sent_as_all_ones() -> None:
    segment = bytearray(bytes.fromhex("0001000200080000"))
    other = transport_checksum(segment, 0, 0, 6)
    assert other != 0
    # Choose the source address so that the sum is 0xFFFF.
    source = 0xFFFF - (1 + 2 + 8 + 17 + 8)
    assert transport_checksum(segment, source, 0, 17) == 0xFFFF
    assert transport_checksum(segment, source + 11, 0, 6) == 0


def test_updates_keep_the_zero_rules_of_udp() -> None:
    assert updated_udp_checksum(0, 1, 2) == 0
    assert updated_udp_checksum(0xDD2F, 0x5555, 0x3285) == 0xFFFF


def test_update_of_a_wide_field_equals_updates_of_its_words() -> None:
    old, new = 0x0A000001_FFFF0000, 0xC0A80001_00000001
    checksum = 0x1C46
    by_words = checksum
    for shift in (48, 32, 16, 0):
        by_words = updated_checksum(by_words, old >> shift & 0xFFFF, new >> shift & 0xFFFF)
    assert updated_checksum(checksum, old, new, 64) == by_words
