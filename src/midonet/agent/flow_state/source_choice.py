"""Which end point a new connection's source becomes: pure, from what is free here.

A host chooses among the ports of the blocks that it holds, and among all of them before it says
that there is none. It asks for a further block when those it may have of an address are used up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from midonet.agent.flow_state.allocations import Allocation, AllocationTable
from midonet.agent.flow_state.connection import Connection, Endpoint, Side
from midonet.agent.flow_state.pool import (
    BLOCK_PORTS,
    NatPool,
    blocks_of,
    port_order,
    port_range,
)
from midonet.agent.flow_state.translation import endpoint
from midonet.model.ids import ObjectId
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple
from midonet.packets.protocols import IpProtocol

_ICMP = frozenset((int(IpProtocol.ICMP), int(IpProtocol.ICMPV6)))


class NatAddress(NamedTuple):
    """An address that a device translates to."""

    owner: ObjectId
    version: IpVersion
    address: int


class LeaseBlock(NamedTuple):
    """Wanted: a block of an address that has ports of this range, both ends included."""

    address: NatAddress
    first_port: int
    last_port: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """An end point that was free.

    candidates: end points that were looked at. spare: how many there were of its address.
    further: how more of them may be had.
    """

    endpoint: Endpoint
    candidates: int
    spare: int = 0
    further: LeaseBlock | None = None


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Nothing of the pool is free, here or to be leased. candidates: what was looked at."""

    candidates: int


LOW_WATER = BLOCK_PORTS // 2
"""Free end points of an address, towards one destination, below which a block is leased ahead."""

SourceChoice = Chosen | LeaseBlock | Exhausted


class BlockReader(Protocol):
    """The blocks that this host holds."""

    def held(self, address: NatAddress) -> tuple[int, ...]:
        """Return the numbers of the blocks held of an address, ascending."""
        ...

    def may_lease(self, wanted: LeaseBlock) -> bool:
        """Tell whether a further block may be had: some are free as far as is known."""
        ...


class SourceChooser:
    """Chooses from allocations and blocks, and changes neither."""

    def __init__(self, allocations: AllocationTable, blocks: BlockReader) -> None:
        self._allocations = allocations
        self._blocks = blocks

    def choose(
        self,
        owner: ObjectId,
        pool: NatPool,
        packet: FiveTuple,
        seed: int,
    ) -> SourceChoice:
        """Return what the source of `packet` becomes by a pool of `owner`.

        seed: 64 bits, the deployment's.
        """
        source = endpoint(packet, at_source=True)
        remote = remote_of(packet)
        wanted: LeaseBlock | None = None
        looked_at = 0
        if self._allocations.is_full:
            return Exhausted(0)
        for targets, value in pool.addresses(source, seed):
            address = NatAddress(owner, targets.version, value)
            ports = port_range(targets, packet.protocol)
            lease = LeaseBlock(address, *ports)
            within = blocks_of(ports)
            held = [one for one in self._blocks.held(address) if one in within]
            used = self._allocations.used_ports(
                owner, packet.protocol, (targets.version, value), remote
            )
            for port in port_order(ports, held, source, packet.protocol, seed):
                looked_at += 1
                if port not in used:
                    found = Endpoint(targets.version, value, port)
                    spare = len(held) * BLOCK_PORTS - len(used)
                    return Chosen(found, looked_at, spare, lease)
            if self._blocks.may_lease(lease):
                wanted = lease
                break
        return wanted or Exhausted(looked_at)


def remote_of(packet: FiveTuple) -> Endpoint:
    """Return the end point that tells apart who shares a translated source.

    Echoes to one address are told apart by the identifier alone, which is the translated one.
    """
    remote = endpoint(packet, at_source=False)
    return remote._replace(port=0) if packet.protocol in _ICMP else remote


def allocations_of(connection: Connection) -> tuple[Allocation, ...]:
    """Return what a connection that has begun holds: its translated sources.

    The remote end point of each is what the destination was where that device translated.
    """
    packet = connection.forward.tuple
    held: list[Allocation] = []
    for binding in connection.bindings:
        if binding.side is Side.DESTINATION:
            packet = packet._replace(
                version=binding.after.version,
                destination=binding.after.address,
                destination_port=binding.after.port,
            )
        else:
            remote = remote_of(packet)
            held.append(Allocation(binding.owner, packet.protocol, binding.after, remote))
    return tuple(held)


class FixedBlocks:
    """Blocks that are given: all of them, or those of a mapping. Nothing is leased."""

    def __init__(self, blocks: Mapping[NatAddress, tuple[int, ...]] | None = None) -> None:
        self._blocks = blocks

    def held(self, address: NatAddress) -> tuple[int, ...]:
        """Return the blocks of an address."""
        if self._blocks is None:
            return ALL_BLOCKS
        return self._blocks.get(address, ())

    def may_lease(self, wanted: LeaseBlock) -> bool:
        """There is nobody to lease from."""
        return False


ALL_BLOCKS = tuple(blocks_of((0, 0xFFFF)))
"""All blocks of an address."""
