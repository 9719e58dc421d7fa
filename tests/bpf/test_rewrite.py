"""The kernel's rewrites give the bytes that `apply_rewrite` gives."""

from __future__ import annotations

import errno
import struct
from dataclasses import fields, replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from midonet.agent.datapath.ebpf import abi, codec
from midonet.agent.datapath.ebpf.loader import LoadedObject
from midonet.agent.datapath.ebpf.syscalls import run_program
from midonet.agent.flows.apply import apply_rewrite
from midonet.agent.flows.program import Guards, Rewrite
from midonet.errors import InternalError
from midonet.packets.frame import parse_frame
from tests.property.packets.scapy_frames import ipv4_frames, ipv6_frames
from tests.property.packets.test_edit_against_scapy import rewrites

ZERO = bytes(4)
REWRITE_OFFSET = 88
KIND_OFFSET = 144 + abi.TUNNEL.size
PROBE_SIZE = 160 + abi.TUNNEL.size
VLAN_OFFSET = 84


def run_rewrite(
    probe: LoadedObject,
    frame: bytes,
    rewrite: Rewrite,
    entry: str = "probe_rewrite",
    *,
    flags: int = 0,
) -> bytes | None:
    """Return the frame that leaves, outermost tag in place; None when the kernel refused.

    flags: see `run_program`.
    """
    is_ipv6 = parse_frame(frame).ip_version == 6
    room = bytearray(PROBE_SIZE)
    room[REWRITE_OFFSET : REWRITE_OFFSET + 56] = codec.pack_rewrite(rewrite, is_ipv6=is_ipv6)
    probe.maps["probe"].update(ZERO, bytes(room))
    ran = run_program(probe.programs[entry], frame, flags=flags)
    if ran.verdict != 0:
        return None
    after = probe.maps["probe"].get(ZERO)
    assert after is not None
    (tag,) = struct.unpack_from("=I", after, VLAN_OFFSET)
    if not tag:
        return ran.frame
    # The outermost tag is metadata, with a protocol that the test run does not show.
    return ran.frame[:12] + struct.pack("!HH", 0x8100, tag & 0xFFFF) + ran.frame[12:]


def normalised(frame: bytes) -> bytes:
    """Return the frame with an outermost service tag shown as a plain one."""
    return frame[:12] + b"\x81\x00" + frame[14:] if frame[12:14] == b"\x88\xa8" else frame


@settings(max_examples=150)
@given(data=st.data())
def test_rewritten_bytes_equal_those_of_python(probe: LoadedObject, data: st.DataObject) -> None:
    is_ipv6 = data.draw(st.booleans())
    frame = bytes(data.draw(ipv6_frames() if is_ipv6 else ipv4_frames()))
    rewrite = data.draw(rewrites(is_ipv6=is_ipv6, ttl=parse_frame(frame).ttl))
    assert run_rewrite(probe, frame, rewrite) == normalised(apply_rewrite(frame, rewrite))


@settings(max_examples=60)
@given(data=st.data())
def test_the_next_copy_of_a_flood_starts_from_the_packet_as_it_came(
    probe: LoadedObject, data: st.DataObject
) -> None:
    is_ipv6 = data.draw(st.booleans())
    frame = bytes(data.draw(ipv6_frames() if is_ipv6 else ipv4_frames()))
    rewrite = data.draw(rewrites(is_ipv6=is_ipv6, ttl=parse_frame(frame).ttl))
    assert run_rewrite(probe, frame, rewrite, "probe_restore") == normalised(frame)


EVERYTHING = Rewrite(
    eth_dst=0x02_00_00_00_00_99,
    eth_src=0x02_00_00_00_00_98,
    ip_src=0x0A000063,
    ip_dst=0x0A000064,
    ip_tos=0x2E,
    l4_src=1111,
    l4_dst=2222,
    ttl_decrement=1,
)


@pytest.mark.parametrize(
    "packet",
    [
        Ether() / IP(dst="10.0.0.1", proto=132) / SCTP(sport=5, dport=6) / Raw(b"payload" * 30),
        Ether() / IP(dst="10.0.0.1", frag=9) / Raw(b"x" * 30),
        Ether() / IP(dst="10.0.0.1", flags="MF") / UDP(sport=1, dport=2) / Raw(b"x" * 30),
        Ether() / IP(dst="10.0.0.1") / UDP(sport=1, dport=2, chksum=0) / Raw(b"x" * 30),
        Ether() / IP(dst="10.0.0.1") / TCP(sport=1, dport=2, chksum=0x1234) / Raw(b"x" * 31),
        Ether() / Dot1Q(vlan=7) / IP(dst="10.0.0.1") / TCP() / Raw(b"x" * 31),
        Ether() / ARP(psrc="10.0.0.1"),
        Ether(type=0x9999) / Raw(b"x" * 40),
    ],
    ids=["sctp", "later", "first", "udp-zero", "wrong-checksum", "tagged", "arp", "other"],
)
def test_particular_frames_equal_those_of_python(probe: LoadedObject, packet: Packet) -> None:
    frame = bytes(packet)
    assert run_rewrite(probe, frame, EVERYTHING) == apply_rewrite(frame, EVERYTHING)


CHECKSUM_COMPLETE = 4
"""The packet comes with a device's sum of all its bytes, and the kernel verifies it afterwards. Not
of tagged frames: a test run does not say where their link-layer header ends, and taking a tag out
of the bytes then spoils the sum."""


@pytest.fixture(scope="module")
def summed(probe: LoadedObject) -> LoadedObject:
    """The probe, on a kernel that can make such packets (Linux 6.16)."""
    try:
        run_rewrite(probe, bytes(LINK / IP() / TCP()), Rewrite(), flags=CHECKSUM_COMPLETE)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        pytest.skip("this kernel has no test runs with CHECKSUM_COMPLETE (Linux 6.16)")
    return probe


LINK = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
SUMMED = [
    *(
        LINK / network / transport / Raw(b"x" * size)
        for network in (
            IP(src="10.0.0.2", dst="10.0.0.1"),
            IPv6(src="fd00::2", dst="fd00::1"),
            IPv6(src="fd00::2", dst="fd00::1") / IPv6ExtHdrDestOpt(),
        )
        for transport in (
            TCP(sport=5, dport=6),
            UDP(sport=5, dport=6),
            UDP(sport=5, dport=6, chksum=0),
            SCTP(sport=5, dport=6),
        )
        for size in (30, 31)
    ),
    LINK / IPv6(src="fd00::2", dst="fd00::1") / ICMPv6EchoRequest(data=b"x" * 9),
    LINK / IPv6(src="fd00::2", dst="fd00::1", nh=47) / Raw(b"x" * 30),
    LINK
    / IPv6(src="fd00::2", dst="fd00::1")
    / IPv6ExtHdrFragment(offset=9, nh=17)
    / Raw(b"x" * 31),
    LINK
    / IPv6(src="fd00::2", dst="fd00::1")
    / IPv6ExtHdrFragment(m=1)
    / UDP(sport=5)
    / Raw(b"x" * 32),
    LINK / IP(src="10.0.0.2", dst="10.0.0.1", frag=9) / Raw(b"x" * 30),
    LINK / IP(src="10.0.0.2", dst="10.0.0.1", proto=47) / Raw(b"x" * 31),
    LINK / ARP(psrc="10.0.0.1", hwsrc="02:00:00:00:00:01"),
]


@pytest.mark.parametrize("entry", ["probe_rewrite", "probe_restore"])
@pytest.mark.parametrize(
    "field", [*(each.name for each in fields(EVERYTHING)), None], ids=lambda field: field or "all"
)
def test_a_devices_sum_of_the_packet_stays_right(
    summed: LoadedObject, entry: str, field: str | None
) -> None:
    """Receivers believe such a sum; the kernel that finds it wrong logs a hardware fault."""
    for packet in SUMMED:
        frame = bytes(packet)
        changes = EVERYTHING
        if parse_frame(frame).ip_version == 6:
            changes = replace(EVERYTHING, ip_src=5 << 120 | 3, ip_dst=6 << 112 | 9)
        if field is not None:
            changes = Rewrite(**{field: getattr(changes, field)})
        try:
            run_rewrite(summed, frame, changes, entry, flags=CHECKSUM_COMPLETE)
        except OSError as error:
            pytest.fail(f"{error}: {packet.command()}")


@settings(max_examples=100)
@given(data=st.data())
def test_a_devices_sum_of_any_packet_stays_right(summed: LoadedObject, data: st.DataObject) -> None:
    is_ipv6 = data.draw(st.booleans())
    frame = bytes(data.draw(ipv6_frames() if is_ipv6 else ipv4_frames()))
    assume(not parse_frame(frame).key.vlan_tci)
    rewrite = data.draw(rewrites(is_ipv6=is_ipv6, ttl=parse_frame(frame).ttl))
    assert run_rewrite(summed, frame, rewrite, flags=CHECKSUM_COMPLETE) is not None


@pytest.mark.parametrize(
    ("tags", "rewrite"),
    [
        ((), Rewrite(push_vlan=0x2005)),
        ((7,), Rewrite(pop_vlan=True)),
        ((7,), Rewrite(pop_vlan=True, push_vlan=9)),
        ((7, 8), Rewrite(pop_vlan=True)),
        ((7,), Rewrite(push_vlan=9, ip_dst=5, ttl_decrement=1)),
        ((), Rewrite(pop_vlan=True)),
    ],
    ids=["push", "pop", "swap", "pop-outer", "push-second", "pop-nothing"],
)
def test_tags_are_pushed_and_popped(
    probe: LoadedObject, tags: tuple[int, ...], rewrite: Rewrite
) -> None:
    packet = Ether()
    for tag in tags:
        packet /= Dot1Q(vlan=tag)
    frame = bytes(packet / IP(dst="10.0.0.1") / TCP() / Raw(b"x" * 9))
    assert run_rewrite(probe, frame, rewrite) == apply_rewrite(frame, rewrite)
    assert run_rewrite(probe, frame, rewrite, "probe_restore") == frame


def test_ttl_that_would_not_stay_above_zero_is_refused(probe: LoadedObject) -> None:
    frame = bytes(Ether() / IP(dst="10.0.0.1", ttl=1) / TCP())
    with pytest.raises(InternalError):
        apply_rewrite(frame, Rewrite(ttl_decrement=1))
    assert run_rewrite(probe, frame, Rewrite(ttl_decrement=1)) is None


@pytest.mark.parametrize(
    ("packet", "guards", "passes"),
    [
        (IP(ttl=2) / UDP(), Guards(ttl_above=1), True),
        (IP(ttl=1) / UDP(), Guards(ttl_above=1), False),
        (IPv6(hlim=1) / UDP(), Guards(ttl_above=1), False),
        (IP() / UDP() / Raw(b"x" * 72), Guards(max_length=100), True),
        (IP() / UDP() / Raw(b"x" * 73), Guards(max_length=100), False),
        (IPv6() / UDP() / Raw(b"x" * 52), Guards(max_length=100), True),
        (IPv6() / UDP() / Raw(b"x" * 53), Guards(max_length=100), False),
        (IP() / TCP(flags="S"), Guards(tcp_flags_clear=7), False),
        (IP(options=[IPOption_NOP()]) / TCP(flags="R"), Guards(tcp_flags_clear=7), False),
        (IPv6() / TCP(flags="FA"), Guards(tcp_flags_clear=7), False),
        (IPv6() / IPv6ExtHdrDestOpt() / TCP(flags="SA"), Guards(tcp_flags_clear=7), False),
        (IP() / TCP(flags="PAUEC"), Guards(tcp_flags_clear=7), True),
        (IP() / TCP(flags="S"), Guards(tcp_flags_clear=5), True),
        (IP() / UDP() / Raw(b"\xff" * 40), Guards(tcp_flags_clear=7), True),
        (IP() / ICMP() / Raw(b"\xff" * 40), Guards(tcp_flags_clear=7), True),
    ],
)
def test_guards_look_at_ttl_length_and_flags(
    probe: LoadedObject, packet: Packet, guards: Guards, passes: bool
) -> None:
    room = bytearray(PROBE_SIZE)
    packed = codec.pack_guards(guards)
    room[KIND_OFFSET : KIND_OFFSET + len(packed)] = packed
    probe.maps["probe"].update(ZERO, bytes(room))
    ran = run_program(probe.programs["probe_guards"], bytes(Ether() / packet))
    assert ran.verdict == int(passes)


def test_guards_count_one_segment_of_a_super_packet(probe: LoadedObject) -> None:
    frame = bytes(Ether() / IP() / TCP(options=[("NOP", None)] * 4) / Raw(b"x" * 3000))
    context = bytearray(192)
    struct.pack_into("=I", context, 164, 3)
    struct.pack_into("=I", context, 176, 1000)
    for limit, passes in ((1044, 1), (1043, 0)):
        room = bytearray(PROBE_SIZE)
        struct.pack_into("=II", room, KIND_OFFSET, limit, 0)
        probe.maps["probe"].update(ZERO, bytes(room))
        ran = run_program(probe.programs["probe_guards"], frame, context=bytes(context))
        assert ran.verdict == passes
