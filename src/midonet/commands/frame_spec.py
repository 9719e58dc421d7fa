"""Frames from short descriptions on the command line.

A description is a comma-separated list of KEY=VALUE:

    smac, dmac    MAC addresses (dmac of --arp: broadcast)
    src, dst      IP addresses of one version (--arp: sender and the address asked for)
    sport, dport  ports of --udp and --tcp
    ttl, tos, vlan, data          optional; data is text
    id, seq       of --ping; flags of --tcp: letters of SAFRPU, default S
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from midonet.errors import DecodeError, UserError
from midonet.packets.addresses import IpAddress, IpVersion, parse_ip, parse_mac
from midonet.packets.build import Envelope, echo_request_frame, tcp_frame, udp_frame
from midonet.packets.neighbour import neighbour_request
from midonet.packets.pcap import read_pcap
from midonet.packets.tcp import TcpFlag, TcpHeader

_ENVELOPE = frozenset({"smac", "dmac", "src", "dst", "ttl", "tos", "vlan", "data"})
_FLAGS = {
    "S": TcpFlag.SYN,
    "A": TcpFlag.ACK,
    "F": TcpFlag.FIN,
    "R": TcpFlag.RST,
    "P": TcpFlag.PSH,
    "U": TcpFlag.URG,
}

Fields = dict[str, str]


def add_frame_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of which one says what frame to send."""
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--frame", metavar="HEX", help="a whole frame, from the destination MAC on")
    group.add_argument("--arp", metavar="SPEC", help="ARP request or ND solicitation: smac,src,dst")
    group.add_argument("--ping", metavar="SPEC", help="echo request: smac,dmac,src,dst")
    group.add_argument("--udp", metavar="SPEC", help="datagram: smac,dmac,src,dst,sport,dport,data")
    group.add_argument("--tcp", metavar="SPEC", help="segment: as --udp, and flags")


def frame_from(args: argparse.Namespace) -> bytes:
    """Return the frame that the options describe. Raises UserError with the key at fault."""
    if args.frame is not None:
        return _hex_frame(args.frame, "--frame")
    name = next(name for name in _builders() if getattr(args, name) is not None)
    return _build(name, getattr(args, name), f"--{name}")


def frames_from_text(text: str) -> list[bytes]:
    """Return the frames that one argument describes: `KIND,KEY=VALUE,...`, hexadecimal digits, a
    pcap file, or one frame of it as FILE:NUMBER.

    Raises UserError that says what is wrong with it.
    """
    kind, comma, spec = text.partition(",")
    if kind in _builders() and comma:
        return [_build(kind, spec, kind)]
    path, _, number = text.rpartition(":")
    if _is_file(text):
        return _captured(Path(text), "")
    if number.isdecimal() and _is_file(path):
        return _captured(Path(path), number)
    if ".pcap" in text or "/" in text:
        raise UserError(f"there is no file {text}", field="packet")
    if "=" in text or kind in _builders():
        kinds = ", ".join(_builders())
        raise UserError(f"a packet begins with its kind ({kinds}) and a comma", field="packet")
    return [_hex_frame(text, "the packet")]


def _is_file(text: str) -> bool:
    """Tell whether a text is the name of a file; one that is too long for a name is none."""
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _captured(file: Path, number: str) -> list[bytes]:
    try:
        frames = read_pcap(file.read_bytes())
    except (OSError, DecodeError) as error:
        raise UserError(f"{file}: {error}", field="packet") from None
    if not number:
        return frames
    if not 1 <= int(number) <= len(frames):
        raise UserError(f"{file} has frames 1 to {len(frames)}, not {number}", field="packet")
    return [frames[int(number) - 1]]


def _hex_frame(text: str, what: str) -> bytes:
    try:
        return bytes.fromhex(text.replace(":", ""))
    except ValueError:
        raise UserError(f"{what} is not hexadecimal", field="frame") from None


def _builders() -> dict[str, Callable[[Fields], bytes]]:
    return {"arp": _arp, "ping": _ping, "udp": _udp, "tcp": _tcp}


def _build(name: str, spec: str, said: str) -> bytes:
    try:
        return _builders()[name](_fields(spec))
    except KeyError as error:
        raise UserError(f"{said}: {error.args[0]}= is missing", field=name) from None
    except (DecodeError, ValueError) as error:
        raise UserError(f"{said}: {error}", field=name) from None


def _fields(text: str) -> Fields:
    fields: Fields = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} is not KEY=VALUE")
        fields[key.strip()] = value.strip()
    return fields


def _check(fields: Fields, extra: frozenset[str] = frozenset()) -> None:
    unknown = fields.keys() - _ENVELOPE - extra
    if unknown:
        raise ValueError(f"unknown key {min(unknown)}")


def _number(fields: Fields, key: str, default: int | None, highest: int) -> int:
    text = fields[key] if default is None else fields.get(key, str(default))
    if not text.isdecimal() or int(text) > highest:
        raise ValueError(f"{key} must be a number up to {highest}")
    return int(text)


def _ends(fields: Fields) -> tuple[IpAddress, IpAddress]:
    source, target = parse_ip(fields["src"]), parse_ip(fields["dst"])
    if source.version is not target.version:
        raise ValueError("src and dst are of different IP versions")
    return source, target


def _envelope(fields: Fields) -> Envelope:
    source, target = _ends(fields)
    return Envelope(
        eth_src=parse_mac(fields["smac"]),
        eth_dst=parse_mac(fields["dmac"]),
        ip_src=source,
        ip_dst=target,
        vlan_tci=_number(fields, "vlan", None, 4095) if "vlan" in fields else None,
        ttl=_number(fields, "ttl", 64, 255),
        tos=_number(fields, "tos", 0, 255),
    )


def _data(fields: Fields) -> bytes:
    return fields.get("data", "").encode()


def _arp(fields: Fields) -> bytes:
    _check(fields)
    source, target = _ends(fields)
    frame = neighbour_request(parse_mac(fields["smac"]), source, target)
    if "dmac" in fields:
        if target.version is not IpVersion.V4:
            raise ValueError("dmac goes with IPv4 only")
        frame = parse_mac(fields["dmac"]).to_bytes(6, "big") + frame[6:]
    return frame


def _ping(fields: Fields) -> bytes:
    _check(fields, frozenset({"id", "seq"}))
    identifier = _number(fields, "id", 1, 65535)
    sequence = _number(fields, "seq", 1, 65535)
    return echo_request_frame(_envelope(fields), identifier, sequence, _data(fields))


def _udp(fields: Fields) -> bytes:
    _check(fields, frozenset({"sport", "dport"}))
    source = _number(fields, "sport", None, 65535)
    target = _number(fields, "dport", None, 65535)
    return udp_frame(_envelope(fields), source, target, _data(fields))


def _tcp(fields: Fields) -> bytes:
    _check(fields, frozenset({"sport", "dport", "flags"}))
    flags = 0
    for letter in fields.get("flags", "S").upper():
        if letter not in _FLAGS:
            raise ValueError(f"flags are letters of {''.join(_FLAGS)}")
        flags |= _FLAGS[letter]
    header = TcpHeader(
        _number(fields, "sport", None, 65535), _number(fields, "dport", None, 65535), flags=flags
    )
    return tcp_frame(_envelope(fields), header, _data(fields))
