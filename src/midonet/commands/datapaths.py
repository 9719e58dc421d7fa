"""Which datapath an agent uses, with what it needs around it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from midonet.agent.datapath.memory import MemoryDatapath, UdpUnderlay
from midonet.agent.datapath.protocol import Datapath
from midonet.agent.host.host_keeper import InterfaceSource
from midonet.agent.host.settings import AgentSettings, DatapathKind
from midonet.errors import UserError


@asynccontextmanager
async def datapath_of(
    settings: AgentSettings, hash_seed: int
) -> AsyncIterator[tuple[Datapath, InterfaceSource | None]]:
    """Yield the datapath, not opened yet, and where its interfaces come from.

    The source is None when every bound name counts as an interface. What a persistent datapath
    needs in the kernel stays there at the end. Raises DatapathError.
    """
    if settings.datapath is DatapathKind.MEMORY:
        underlay = UdpUnderlay(port=settings.underlay_port)
        yield MemoryDatapath(underlay, hash_seed=hash_seed), None
        return
    from midonet.agent.datapath.ebpf import AttachMode, EbpfDatapath
    from midonet.agent.underlay.clsact import Clsact
    from midonet.agent.underlay.interfaces import KernelInterfaces

    filters = Clsact()
    try:
        datapath = EbpfDatapath(
            Path(settings.state_dir),
            hash_seed=hash_seed,
            attach_mode=AttachMode(settings.attach_mode),
            filters=filters,
            max_programs=settings.max_programs,
            max_ports=settings.max_ports,
            object_path=Path(settings.datapath_object) if settings.datapath_object else None,
        )
        yield datapath, KernelInterfaces()
    finally:
        filters.close()


async def uninstall_datapath(settings: AgentSettings) -> None:
    """Remove from this host (namespace) all that the datapath and the agent put there."""
    if settings.datapath is DatapathKind.MEMORY:
        raise UserError("The memory datapath leaves nothing behind.", field="datapath")
    from midonet.agent.underlay.links import Links

    async with datapath_of(settings, 0) as (datapath, _):
        await datapath.uninstall()
    async with Links() as links:
        for name in await links.own():
            await links.remove(name)
