from __future__ import annotations

import struct

import pytest

from midonet.errors import DecodeError
from midonet.packets.pcap import read_pcap

FRAMES = [bytes(range(60)), b"\xff" * 14]


def capture(order: str, magic: int, *, link: int = 1, cut: int = 0) -> bytes:
    data = struct.pack(f"{order}IHHIIII", magic, 2, 4, 0, 0, 65535, link)
    for frame in FRAMES:
        data += struct.pack(f"{order}IIII", 1, 2, len(frame), len(frame) + cut) + frame
    return data


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_frames_come_in_order(order: str, magic: int) -> None:
    assert read_pcap(capture(order, magic)) == FRAMES
    assert read_pcap(capture(order, magic), limit=1) == FRAMES[:1]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a pcap file"),
        (b"\x0a\x0d\x0d\x0a" + bytes(40), "pcapng"),
        (capture("<", 0xA1B2C3D4, link=101), "not Ethernet"),
        (capture("<", 0xA1B2C3D4, cut=1), "only in part"),
        (capture("<", 0xA1B2C3D4)[:-1], "cut off"),
        (capture("<", 0xA1B2C3D4)[:30], "cut off"),
        (capture("<", 0xA1B2C3D4)[:10], "cut off"),
    ],
)
def test_what_is_no_whole_capture_of_ethernet_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        read_pcap(data)


def test_a_length_beyond_the_file_is_refused() -> None:
    data = capture("<", 0xA1B2C3D4)[:24] + struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 0xFFFFFFFF)
    with pytest.raises(DecodeError, match="cut off"):
        read_pcap(data)
