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

from midonet.errors import DecodeError, UserError
from midonet.packets.addresses import IpAddress, IpVersion, parse_ip, parse_mac
from midonet.packets.build import Envelope, echo_request_frame, tcp_frame, udp_frame
from midonet.packets.neighbour import neighbour_request
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
        try:
            return bytes.fromhex(args.frame.replace(":", ""))
        except ValueError:
            raise UserError("--frame is not hexadecimal", field="frame") from None
    builders: dict[str, Callable[[Fields], bytes]] = {
        "arp": _arp,
        "ping": _ping,
        "udp": _udp,
        "tcp": _tcp,
    }
    name = next(name for name in builders if getattr(args, name) is not None)
    try:
        return builders[name](_fields(getattr(args, name)))
    except KeyError as error:
        raise UserError(f"--{name}: {error.args[0]}= is missing", field=name) from None
    except (DecodeError, ValueError) as error:
        raise UserError(f"--{name}: {error}", field=name) from None


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
