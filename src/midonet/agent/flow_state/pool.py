"""What a NAT rule may translate to, and the order in which it is tried. Pure.

Targets come in order, and the addresses of one target begin at one that the source's address names,
so that a host keeps one public address (RFC 4787 REQ-2, "paired"). Ports come in a permutation that
is keyed by the source's end point and not by whom it talks to: what one end point opens to several
peers gets one translation as long as that is free (REQ-1), and nobody outside foretells it
(RFC 6056). A UDP port keeps its parity while one of that parity is free (REQ-4). A port is not kept
as such: hosts behind one address have the same habits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

from midonet.agent.flow_state.connection import Endpoint
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.packets.flow_hash import mix
from midonet.packets.protocols import IpProtocol

BLOCK_PORTS = 64
"""Ports of a block, the unit in which hosts share the ports of an address."""

_WORD = 0xFFFF_FFFF
_ICMP = frozenset((int(IpProtocol.ICMP), int(IpProtocol.ICMPV6)))
_UDP = int(IpProtocol.UDP)
_IDENTIFIERS = (0, 0xFFFF)
"""Identifiers of an echo are no ports: all of them are good, whatever ports a target names."""

_ADDRESSES_MAX = 1024
"""Addresses of one target that are tried for one packet."""


class EndpointRange(NamedTuple):
    """Inclusive ranges of addresses of one version and of ports; ports 0 to 0 are left alone."""

    version: IpVersion
    first: int
    last: int
    port_first: int = 0
    port_last: int = 0

    def __str__(self) -> str:
        first, last = (str(IpAddress(self.version, one)) for one in (self.first, self.last))
        addresses = first if first == last else f"{first}-{last}"
        return f"{addresses} {self.port_first}-{self.port_last}" if self.port_last else addresses

    @property
    def addresses(self) -> int:
        """Number of addresses."""
        return self.last - self.first + 1

    @property
    def has_ports(self) -> bool:
        """Tell whether ports are translated."""
        return bool(self.port_last)


class Block(NamedTuple):
    """The ports `number * BLOCK_PORTS` and following of an address, for one device."""

    version: IpVersion
    address: int
    number: int


@dataclass(frozen=True, slots=True)
class NatPool:
    """The targets of a rule, in order."""

    ranges: tuple[EndpointRange, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.ranges))

    @property
    def static_address(self) -> IpAddress | None:
        """The address of 1:1 translation, None when this is none."""
        only = self.ranges[0]
        if len(self.ranges) != 1 or only.addresses != 1 or only.has_ports:
            return None
        return IpAddress(only.version, only.first)

    @property
    def version(self) -> IpVersion:
        """IP version of all targets."""
        return self.ranges[0].version

    def contains(self, address: int, port: int, protocol: int) -> bool:
        """Tell whether an end point of the pool's version may be a translation by it."""
        return any(
            one.first <= address <= one.last
            and (not one.has_ports or _in(port, port_range(one, protocol)))
            for one in self.ranges
        )

    def addresses(self, source: Endpoint, seed: int) -> Iterator[tuple[EndpointRange, int]]:
        """Yield each address with its target, in the order for a source."""
        for one in self.ranges:
            count = one.addresses
            start = endpoint_hash(seed, source._replace(port=0)) % count
            for step in range(min(count, _ADDRESSES_MAX)):
                yield one, one.first + (start + step) % count

    def destination(self, packet: Endpoint, flow_hash: int) -> Endpoint:
        """Return where a packet to `packet` goes: each end point of all targets is as likely."""
        weights = [one.addresses * _port_count(one) for one in self.ranges]
        spread = mix(flow_hash ^ 0xD57A_7E00) << 32 | mix(flow_hash ^ 0x7E00_D57A)
        place = spread % sum(weights)
        chosen = 0
        while place >= weights[chosen]:
            place -= weights[chosen]
            chosen += 1
        one = self.ranges[chosen]
        address, port = divmod(place, _port_count(one))
        kept = one.port_first + port if one.has_ports else packet.port
        return Endpoint(one.version, one.first + address, kept)


def port_range(one: EndpointRange, protocol: int) -> tuple[int, int]:
    """Return the first and the last port, or identifier of an echo."""
    return _IDENTIFIERS if protocol in _ICMP else (one.port_first, one.port_last)


def blocks_of(ports: tuple[int, int]) -> range:
    """Return the numbers of the blocks that hold a range of ports."""
    return range(ports[0] // BLOCK_PORTS, ports[1] // BLOCK_PORTS + 1)


def port_order(
    ports: tuple[int, int], blocks: Sequence[int], source: Endpoint, protocol: int, seed: int
) -> Iterator[int]:
    """Yield each port of the range that is in one of the blocks, once, in the source's order."""
    total = len(blocks) * BLOCK_PORTS
    order = permutation(total, endpoint_hash(seed, source) ^ protocol)
    candidates = (
        port
        for port in (blocks[i // BLOCK_PORTS] * BLOCK_PORTS + i % BLOCK_PORTS for i in order)
        if ports[0] <= port <= ports[1]
    )
    return _parity_first(candidates, source.port) if protocol == _UDP else candidates


def _parity_first(ports: Iterable[int], wanted: int) -> Iterator[int]:
    others = []
    for port in ports:
        if (port ^ wanted) & 1:
            others.append(port)
        else:
            yield port
    yield from others


def permutation(total: int, key: int) -> Iterator[int]:
    """Yield 0 to total - 1, each once, beginning and striding as `key` says."""
    if not total:
        return
    place = mix(key & _WORD) % total
    stride = mix(key + 0x9E37_79B9 & _WORD) % total | 1
    while gcd(stride, total) != 1:
        stride += 2
    for _ in range(total):
        yield place
        place = (place + stride) % total


def endpoint_hash(seed: int, endpoint: Endpoint) -> int:
    """Return a keyed 32-bit hash of an end point. seed: 64 bits, the deployment's."""
    value = mix(seed >> 32 & _WORD ^ seed & _WORD)
    for shift in (96, 64, 32, 0):
        value = mix(value ^ endpoint.address >> shift & _WORD)
    return mix(value ^ endpoint.port ^ int(endpoint.version) << 16)


def _in(port: int, ports: tuple[int, int]) -> bool:
    return ports[0] <= port <= ports[1]


def _port_count(one: EndpointRange) -> int:
    return one.port_last - one.port_first + 1
