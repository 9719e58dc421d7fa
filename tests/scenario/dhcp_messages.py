"""DHCP and DHCPv6 messages of the scenarios, written byte by byte from the RFCs.

Nothing of the product's codecs is used for the messages themselves; the frames around them are
built as all others of the scenarios are.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

from midonet.packets.addresses import parse_ip, parse_mac
from midonet.packets.build import Envelope, udp_frame

SERVER = "02:a8:9c:de:39:27"
SERVER6 = "fe80::a8:9cff:fede:3927"
SERVER_DUID = bytes.fromhex("00030001 02a89cde3927")
AGENTS, AGENTS_MAC = "ff02::1:2", "33:33:00:01:00:02"
EVERYWHERE = "255.255.255.255"
EVERYONE = "ff:ff:ff:ff:ff:ff"
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
SOLICIT, ADVERTISE, ASK, CONFIRM, RENEW, REBIND, REPLY, GIVE_BACK, REFUSE = range(1, 10)
INFORMATION = 11
DAY = (86400).to_bytes(4, "big")
HALF, FOUR_FIFTHS = 43200, 69120


def ip(*addresses: str) -> bytes:
    """Return addresses, of either version, one behind the other."""
    return b"".join(ipaddress.ip_address(one).packed for one in addresses)


def message(
    operation: int, kind: int | None, mac: str, *options: tuple[int, bytes], **fields: Any
) -> bytes:
    """Return a DHCP message. fields: xid, flags, ciaddr, yiaddr, siaddr, giaddr, hlen."""
    addresses = ip(*(fields.get(f"{one}iaddr", "0.0.0.0") for one in "cysg"))
    head = struct.pack(
        "!BBBBIHH", operation, 1, fields.get("hlen", 6), 0, fields.get("xid", 0x1234), 0,
        fields.get("flags", 0),
    )  # fmt: skip
    fixed = head + addresses + bytes.fromhex(mac.replace(":", "")) + bytes(10 + 64 + 128)
    listed = options if kind is None else ((53, bytes((kind,))), *options)
    body = b"".join(bytes((code, len(value))) + value for code, value in listed)
    return (fixed + bytes((99, 130, 83, 99)) + body + b"\xff").ljust(300, b"\0")


def _frame(
    route: tuple[str, str],
    macs: tuple[str, str],
    ports: tuple[int, int],
    payload: bytes,
    **link: Any,
) -> bytes:
    envelope = Envelope(
        parse_mac(macs[0]), parse_mac(macs[1]), parse_ip(route[0]), parse_ip(route[1]), **link
    )
    return udp_frame(envelope, *ports, payload)


def from_client(
    kind: int | None,
    mac: str,
    *options: tuple[int, bytes],
    route: tuple[str, str] = ("0.0.0.0", EVERYWHERE),
    to_mac: str = EVERYONE,
    ports: tuple[int, int] = (68, 67),
    vlan: int | None = None,
    **fields: Any,
) -> bytes:
    """Return the frame with which a client speaks."""
    payload = message(fields.pop("operation", 1), kind, mac, *options, **fields)
    return _frame(route, (mac, to_mac), ports, payload, vlan_tci=vlan)


def to_client(
    kind: int,
    mac: str,
    route: tuple[str, str],
    *options: tuple[int, bytes],
    to_mac: str | None = None,
    port: int = 68,
    **fields: Any,
) -> bytes:
    """Return the frame with which the bridge answers."""
    payload = message(2, kind, mac, *options, **fields)
    return _frame(route, (SERVER, to_mac or mac), (67, port), payload)


def reframed(frame: bytes) -> bytes:
    """Return a datagram that was cut or lengthened with lengths that say so."""
    data, size = bytearray(frame), len(frame) - 14
    if data[12:14] == b"\x08\x00":
        data[16:18], at = size.to_bytes(2, "big"), 34
    else:
        data[18:20], at = (size - 40).to_bytes(2, "big"), 54
    data[at + 4 : at + 6] = (len(frame) - at).to_bytes(2, "big")
    return bytes(data)


# DHCPv6.


def option6(code: int, value: bytes = b"") -> bytes:
    """Return an option."""
    return struct.pack("!HH", code, len(value)) + value


def duid(mac: str) -> bytes:
    """Return the DUID-LL of a MAC."""
    return bytes.fromhex("00030001" + mac.replace(":", ""))


def address6(address: str, lifetime_s: int = 0) -> bytes:
    """Return an address option."""
    return option6(5, ip(address) + struct.pack("!II", lifetime_s, lifetime_s))


def association(*options: bytes, t1: int = 0, t2: int = 0, iaid: int = 7) -> bytes:
    """Return an IA_NA option."""
    return option6(3, struct.pack("!III", iaid, t1, t2) + b"".join(options))


def given(address: str, *others: bytes, iaid: int = 7) -> bytes:
    """Return the association of a client that is given an address for a day."""
    return association(address6(address, 86400), *others, t1=HALF, t2=FOUR_FIFTHS, iaid=iaid)


def status(code: int) -> bytes:
    """Return a status option."""
    return option6(13, code.to_bytes(2, "big"))


def from_client6(
    kind: int,
    mac: str,
    source: str,
    *options: bytes,
    client: bytes | None = None,
    to_ip: str = AGENTS,
    to_mac: str = AGENTS_MAC,
) -> bytes:
    """Return the frame with which a client speaks. client: its DUID; that of its MAC by default."""
    identity = duid(mac) if client is None else client
    named = option6(1, identity) if identity else b""
    payload = bytes((kind, 0xAB, 0xCD, 0xEF)) + named + b"".join(options)
    return _frame((source, to_ip), (mac, to_mac), (546, 547), payload)


def to_client6(
    kind: int, mac: str, target: str, *options: bytes, client: bytes | None = None
) -> bytes:
    """Return the frame with which the bridge answers."""
    identity = duid(mac) if client is None else client
    named = option6(1, identity) if identity else b""
    payload = bytes((kind, 0xAB, 0xCD, 0xEF)) + named + option6(2, SERVER_DUID)
    return _frame((SERVER6, target), (SERVER, mac), (547, 546), payload + b"".join(options))
