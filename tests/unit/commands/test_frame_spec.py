from __future__ import annotations

import argparse
import struct
from pathlib import Path

import pytest

from midonet.commands.frame_spec import add_frame_options, frame_from, frames_from_text
from midonet.commands.frame_text import describe_frame
from midonet.errors import UserError

ENDS = "smac=02:00:00:00:00:01,dmac=02:00:00:00:00:02,src=10.0.0.1,dst=10.0.0.2"


def build(*arguments: str) -> bytes:
    parser = argparse.ArgumentParser()
    add_frame_options(parser)
    return frame_from(parser.parse_args(arguments))


@pytest.mark.parametrize(
    ("arguments", "description"),
    [
        (
            ["--arp", "smac=02:00:00:00:00:01,src=10.0.0.1,dst=10.0.0.2"],
            "02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff, "
            "ARP request for 10.0.0.2 from 10.0.0.1 at 02:00:00:00:00:01, 42 bytes",
        ),
        (
            ["--udp", f"{ENDS},sport=1000,dport=2000,data=hi,vlan=7"],
            "02:00:00:00:00:01 > 02:00:00:00:00:02, vlan 7, "
            "UDP 10.0.0.1 port 1000 > 10.0.0.2 port 2000, ttl 64, 48 bytes",
        ),
        (
            ["--tcp", f"{ENDS},sport=1,dport=2,flags=SA,ttl=3"],
            "02:00:00:00:00:01 > 02:00:00:00:00:02, "
            "TCP 10.0.0.1 port 1 > 10.0.0.2 port 2, ttl 3, 54 bytes",
        ),
        (
            ["--ping", f"{ENDS},id=9"],
            "02:00:00:00:00:01 > 02:00:00:00:00:02, "
            "ICMP 10.0.0.1 > 10.0.0.2 type 8 code 0, ttl 64, 42 bytes",
        ),
        (["--frame", "02:00:00:00:00:02" + "020000000001" + "88cc"], None),
    ],
)
def test_frame_is_what_was_asked_for(arguments: list[str], description: str | None) -> None:
    expected = description or "02:00:00:00:00:01 > 02:00:00:00:00:02, type 0x88cc, 14 bytes"
    assert describe_frame(build(*arguments)) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frame", "xyz"], "not hexadecimal"),
        (["--udp", f"{ENDS},sport=1"], "dport= is missing"),
        (["--udp", f"{ENDS},sport=1,dport=70000"], "dport must be a number"),
        (["--udp", f"{ENDS},sport=1,dport=2,colour=red"], "unknown key colour"),
        (["--ping", "smac"], "not KEY=VALUE"),
        (["--arp", "smac=02:00:00:00:00:01,src=10.0.0.1,dst=::1"], "different IP versions"),
        (["--arp", "smac=nonsense,src=10.0.0.1,dst=10.0.0.2"], "not a MAC address"),
        (["--tcp", f"{ENDS},sport=1,dport=2,flags=X"], "flags are letters"),
    ],
)
def test_bad_description_is_explained(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(*arguments)


def test_malformed_frame_is_described_too() -> None:
    assert describe_frame(b"\x00" * 5).startswith("malformed")


@pytest.mark.parametrize("size", [14, 128, 300, 1514, 9000])
def test_a_frame_in_hexadecimal_may_be_longer_than_a_file_name(size: int) -> None:
    frame = bytes(range(256)) * 40
    assert frames_from_text(frame[:size].hex()) == [frame[:size]]


def test_one_argument_describes_packets(tmp_path: Path) -> None:
    whole = build("--udp", f"{ENDS},sport=1000,dport=2000")
    assert frames_from_text(f"udp,{ENDS},sport=1000,dport=2000") == [whole]
    assert frames_from_text(whole.hex()) == [whole]
    file = tmp_path / "two.pcap"
    other = build("--ping", ENDS)
    records = [struct.pack("<IIII", 0, 0, len(one), len(one)) + one for one in (whole, other)]
    header = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    file.write_bytes(header + b"".join(records))
    assert frames_from_text(str(file)) == [whole, other]
    assert frames_from_text(f"{file}:2") == [other]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("udp", "begins with its kind"),
        (f"sctp,{ENDS}", "begins with its kind"),
        ("udp,smac=02:00:00:00:00:01", "is missing"),
        ("ping,src=10.0.0.1", "is missing"),
        ("020000000g", "not hexadecimal"),
        ("/nowhere/file.pcap", "there is no file"),
    ],
)
def test_what_describes_no_packet_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        frames_from_text(text)
