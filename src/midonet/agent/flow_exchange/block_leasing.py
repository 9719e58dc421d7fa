"""Blocks of ports that this host leases, so that no two hosts translate to one end point.

A lease is a record in the state database (`midonet.nsdb.leases`): it is entered before the first
port of the block is used, and stands over restarts of its owner. A further block is leased before
those at hand are used up, and given back when none of its ports was in use for a while. While the
database is away the host goes on with what it holds, for as long as a block stays its own in
any case; what it then lacks is not to be had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Protocol
from uuid import UUID

import structlog

from midonet.agent.flow_state.allocations import OwnedBlock
from midonet.agent.flow_state.pool import Block, blocks_of
from midonet.agent.flow_state.source_choice import LeaseBlock, NatAddress
from midonet.errors import MidoNetError
from midonet.model.coordination import Lease, lease_id
from midonet.model.ids import HostId
from midonet.nsdb.leases import Leases
from midonet.nsdb.store import Store
from midonet.packets.addresses import IpVersion
from midonet.runtime.clock import Clock

VALIDITY_S = 3600.0
"""How long a host may use its blocks without having seen that they are its own."""

REST_S = VALIDITY_S + 7440.0 + 60.0
"""How long a block that was given up belongs to nobody else: the last use of it was at most
`VALIDITY_S` later, and an established TCP connection of that lasts 7440 s (RFC 5382)."""

UNUSED_S = 300.0
RETRY_S = 2.0
_CONFIRM_S = 30.0
_PREFIX = "nat"

_log = structlog.get_logger("nat")


class BlockUse(Protocol):
    """How many end points of a block are in use."""

    def in_block(self, owned: OwnedBlock) -> int:
        """Return the number of allocations in a block."""
        ...


@dataclass(slots=True)
class _Held:
    """A lease, and since when (s) none of its ports has been in use."""

    lease: Lease
    unused_since_s: float


class BlockLeasing:
    """The blocks that this host holds. A `BlockReader`; `run` keeps them."""

    def __init__(
        self,
        leases: Leases,
        host_id: HostId,
        clock: Clock,
        use: BlockUse,
        *,
        random: Random,
        on_news: Callable[[], None] = lambda: None,
    ) -> None:
        """on_news: what was wanted has come, or cannot be had now."""
        self._leases = leases
        self._host_id = host_id
        self._clock = clock
        self._use = use
        self._random = random
        self._on_news = on_news
        self._held: dict[NatAddress, dict[int, _Held]] = {}
        self._wanted: dict[LeaseBlock, None] = {}
        self._not_before_s: dict[LeaseBlock, float] = {}
        self._valid_until_s = 0.0
        self._is_loaded = False
        self._wake = asyncio.Event()

    @property
    def _store(self) -> Store:
        return self._leases.store

    # For simulation and the shell: nothing waits.

    def held(self, address: NatAddress) -> tuple[int, ...]:
        """Return the numbers of the blocks that may be used of an address, ascending."""
        if self._clock.now_s() >= self._valid_until_s:
            return ()
        return tuple(sorted(self._held.get(address, ())))

    def may_lease(self, wanted: LeaseBlock) -> bool:
        """Tell whether a further block may be had, as far as is known."""
        return self._clock.now_s() >= self._not_before_s.get(wanted, 0.0)

    def want(self, wanted: LeaseBlock) -> None:
        """Lease a block soon."""
        if self.may_lease(wanted):
            self._wanted[wanted] = None
            self._wake.set()

    def is_wanted(self, wanted: LeaseBlock) -> bool:
        """Tell whether a block is still being leased."""
        return wanted in self._wanted

    # Keeping them.

    async def run(self) -> None:
        """Lease what is wanted and look after what is held, until cancelled."""
        next_s = 0.0
        while True:
            if self._clock.now_s() >= next_s:
                next_s = self._clock.now_s() + _CONFIRM_S
                await self.confirm()
                await self.give_back()
            await self.lease_wanted()
            waiting = asyncio.ensure_future(self._wake.wait())
            ticking = asyncio.ensure_future(self._clock.sleep(min(RETRY_S, _CONFIRM_S)))
            try:
                await asyncio.wait((waiting, ticking), return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
                ticking.cancel()
            self._wake.clear()

    async def confirm(self) -> None:
        """See which blocks are this host's, and that they may be used for a while longer."""
        asked_s = self._clock.now_s()
        try:
            if self._is_loaded:
                ids = [one.lease.id for each in self._held.values() for one in each.values()]
                found = list((await self._store.get_many(Lease, ids)).values()) if ids else []
            else:
                found = await self._store.list_all(Lease)
        except MidoNetError as error:
            _log.warning("leases_not_confirmed", error=str(error))
            return
        known, self._held = self._held, {}
        for versioned in found:
            owned = _block_of(versioned.value)
            if owned is not None and self._is_own(versioned.value):
                address = _address(owned)
                before = known.get(address, {}).get(owned.block.number)
                self._keep(versioned.value, asked_s if before is None else before.unused_since_s)
        self._is_loaded = True
        self._valid_until_s = asked_s + VALIDITY_S

    async def lease_wanted(self) -> None:
        """Lease a block for each wish; what cannot be had is not tried again for a moment."""
        if not self._is_loaded or self._clock.now_s() >= self._valid_until_s:
            await self.confirm()
        for wanted in list(self._wanted):
            if not await self._lease_one(wanted):
                self._not_before_s[wanted] = self._clock.now_s() + RETRY_S
            del self._wanted[wanted]
        now_s = self._clock.now_s()
        self._not_before_s = {one: at for one, at in self._not_before_s.items() if at > now_s}
        self._on_news()

    async def give_back(self) -> None:
        """Give blocks back of which no port was in use for a while."""
        now_s = self._clock.now_s()
        for address, blocks in list(self._held.items()):
            for number, held in list(blocks.items()):
                if self._use.in_block(OwnedBlock(address.owner, _block(address, number))):
                    held.unused_since_s = now_s
                elif now_s - held.unused_since_s >= UNUSED_S:
                    # First it is not used any more, then it is another's.
                    del blocks[number]
                    if not await self._release(held.lease):
                        return
            if not blocks:
                self._held.pop(address, None)

    async def _lease_one(self, wanted: LeaseBlock) -> bool:
        """Lease a block of a wish, any of those that are free."""
        address = wanted.address
        held = self._held.get(address, {})
        numbers = [
            one for one in blocks_of((wanted.first_port, wanted.last_port)) if one not in held
        ]
        self._random.shuffle(numbers)
        try:
            taken = await self._taken(address, numbers)
            for number in numbers:
                if number in taken:
                    continue
                name = block_name(OwnedBlock(address.owner, _block(address, number)))
                lease = await self._leases.acquire(name, self._host_id)
                if lease is not None:
                    self._keep(lease, self._clock.now_s())
                    return True
        except MidoNetError as error:
            _log.warning("block_not_leased", error=str(error))
        return False

    async def _taken(self, address: NatAddress, numbers: Iterable[int]) -> frozenset[int]:
        """Return the blocks that another host has, without trying to get each."""
        ids = {
            lease_id(block_name(OwnedBlock(address.owner, _block(address, number)))): number
            for number in numbers
        }
        found = await self._store.get_many(Lease, list(ids))
        return frozenset(
            ids[one.value.id]
            for one in found.values()
            if one.value.released_at_s is None and one.value.owner != self._host_id
        )

    async def _release(self, lease: Lease) -> bool:
        try:
            await self._leases.release(lease)
        except MidoNetError as error:
            _log.warning("block_not_given_back", error=str(error))
            self._is_loaded = False  # it is this host's still, and found again
            return False
        return True

    def _keep(self, lease: Lease, unused_since_s: float) -> None:
        owned = _block_of(lease)
        if owned is not None:
            blocks = self._held.setdefault(_address(owned), {})
            blocks[owned.block.number] = _Held(lease, unused_since_s)

    def _is_own(self, lease: Lease) -> bool:
        return lease.owner == self._host_id and lease.released_at_s is None


def block_name(owned: OwnedBlock) -> str:
    """Return the name under which a block is leased."""
    block = owned.block
    return f"{_PREFIX}/{owned.owner}/{int(block.version)}/{block.address:x}/{block.number}"


def _block_of(lease: Lease) -> OwnedBlock | None:
    """Return the block of a lease, None of one that is for something else."""
    parts = lease.block.split("/")
    if len(parts) != 5 or parts[0] != _PREFIX:
        return None
    try:
        block = Block(IpVersion(int(parts[2])), int(parts[3], 16), int(parts[4]))
        return OwnedBlock(UUID(parts[1]), block)
    except ValueError:
        return None


def _address(owned: OwnedBlock) -> NatAddress:
    return NatAddress(owned.owner, owned.block.version, owned.block.address)


def _block(address: NatAddress, number: int) -> Block:
    return Block(address.version, address.address, number)
