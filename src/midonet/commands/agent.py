"""`midonet agent`: the agent of this host (or network namespace)."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
from pathlib import Path
from typing import get_args

import structlog

from midonet.agent.daemon import Agent
from midonet.agent.host.host_keeper import host_record
from midonet.agent.host.settings import (
    CONTROL_SOCKET_NAME,
    ENVIRONMENT_PREFIX,
    AgentSettings,
    AttachModeName,
    DatapathKind,
)
from midonet.agent.host.state_directory import StateDirectory
from midonet.agent.operator.control_socket import ControlSocket
from midonet.agent.soft_state.holdings import HoldingLimits
from midonet.commands.datapaths import datapath_of, uninstall_datapath
from midonet.commands.privilege import require_privilege
from midonet.commands.store_loss import end_with
from midonet.errors import StoreLostError, UnavailableError, UserError
from midonet.nsdb.settings import cluster_settings
from midonet.nsdb.store import Store
from midonet.nsdb.url import open_store
from midonet.runtime.clock import SystemClock
from midonet.runtime.config import load
from midonet.runtime.logging import LogFormat, capture_foreign_messages, configure_logging
from midonet.runtime.notify import notify
from midonet.runtime.supervisor import OnFailure, Supervisor

_log = structlog.get_logger("agent")

_FLAGS = (
    "nsdb",
    "host_name",
    "state_dir",
    "run_dir",
    "datapath",
    "attach_mode",
    "underlay_port",
    "log_level",
    "log_format",
)
_RETRY_S = 1.0


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("agent", help="run the agent of this host")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file to read")
    parser.add_argument("--nsdb", metavar="URL", help="network state database: sqlite:///PATH")
    parser.add_argument("--host-name", metavar="NAME", help="name of this host in the API")
    parser.add_argument("--state-dir", metavar="DIR", help="what the agent remembers; one each")
    parser.add_argument("--run-dir", metavar="DIR", help="place of the control socket")
    parser.add_argument(
        "--datapath",
        choices=[kind.value for kind in DatapathKind],
        help="what moves the packets: the kernel (ebpf), or this process (memory), without "
        "privileges, for injected frames only",
    )
    parser.add_argument(
        "--attach-mode",
        choices=get_args(AttachModeName),
        help="how the kernel datapath hooks into interfaces; auto is tcx where the kernel has it",
    )
    parser.add_argument(
        "--underlay-port", type=int, metavar="PORT", help="UDP port between memory datapaths"
    )
    parser.add_argument("--log-level", help="debug, info, warning or error")
    parser.add_argument(
        "--log-format",
        choices=[each.value for each in LogFormat],
        help="lines of text, or one JSON object a line",
    )
    parser.add_argument(
        "--uninstall", action="store_true", help="remove all that the datapath put into this host"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; 0 after a clean stop."""
    flags = {name: getattr(args, name) for name in _FLAGS}
    kind = _UninstallSettings if args.uninstall else AgentSettings
    settings = load(kind, own_prefix=ENVIRONMENT_PREFIX, file=args.config, flags=flags).value
    if settings.datapath is DatapathKind.EBPF:
        require_privilege()
    configure_logging(settings.log_level, settings.log_format)
    capture_foreign_messages(settings.log_level)
    # The standard event loop: uvloop has no datagram transport for netlink sockets.
    return asyncio.run(uninstall(settings) if args.uninstall else serve(settings))


class _UninstallSettings(AgentSettings, frozen=True, kw_only=True):
    """What it takes to remove everything: no store."""

    nsdb: str = ""


async def uninstall(settings: AgentSettings) -> int:
    """Remove what the datapath left in this host."""
    state_directory = StateDirectory(Path(settings.state_dir))
    try:
        await uninstall_datapath(settings)
    finally:
        state_directory.close()
    return 0


async def serve(settings: AgentSettings) -> int:
    """Run the agent; return the exit code."""
    state_directory = StateDirectory(Path(settings.state_dir))
    is_clean = True
    try:
        async with Supervisor() as supervisor:
            loop = asyncio.get_running_loop()
            for each in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(each, supervisor.stop)
            store = open_store(settings.nsdb)
            try:
                hash_seed = await _reach_store(store, state_directory, supervisor)
                if hash_seed is not None:
                    is_clean = await _serve(settings, state_directory, store, supervisor, hash_seed)
            finally:
                await store.close()
    finally:
        state_directory.close()
    _log.info("stopped")
    return 0 if is_clean else 1


async def _reach_store(
    store: Store, state_directory: StateDirectory, supervisor: Supervisor
) -> int | None:
    """Open the store as soon as it can be reached, and return the deployment's flow-hash key.

    None when told to stop before.
    """
    is_open = False
    while True:
        try:
            if not is_open:
                await store.open()
                is_open = True
            return await _hash_seed(store, state_directory)
        except StoreLostError:
            raise
        except UnavailableError as error:
            _log.warning("store_away", error=str(error))
        try:
            async with asyncio.timeout(_RETRY_S):
                await supervisor.wait()
                return None
        except TimeoutError:
            continue


async def _serve(
    settings: AgentSettings,
    state_directory: StateDirectory,
    store: Store,
    supervisor: Supervisor,
    hash_seed: int,
) -> bool:
    """Run until told to stop; False when a task failed that the agent cannot do without."""
    async with datapath_of(settings, hash_seed) as (datapath, interfaces):
        agent = Agent(
            host_record(state_directory.host_id(), settings.host_name or socket.gethostname()),
            store,
            datapath,
            state_directory,
            SystemClock(),
            interfaces=interfaces,
            hash_seed=hash_seed,
            session_timeout_s=settings.session_timeout_s,
            vxlan_port=settings.vxlan_port,
            limits=HoldingLimits(port=settings.max_macs_per_port),
        )
        run_dir = Path(settings.run_dir or settings.state_dir)
        control = ControlSocket(run_dir / CONTROL_SOCKET_NAME, agent.control.respond)
        try:
            return await _run(agent, control, supervisor, store)
        finally:
            await control.close()
            await agent.stop()


async def _run(agent: Agent, control: ControlSocket, supervisor: Supervisor, store: Store) -> bool:
    async with Supervisor() as tasks:
        await agent.start(tasks)
        await control.open()
        _log.info("ready", host_id=str(agent.host.id), datapath=agent.datapath.capabilities.name)
        notify("READY=1")

        async def stop_with_process() -> None:
            await supervisor.wait()
            tasks.stop()

        tasks.start("stop", stop_with_process)
        tasks.start("store", lambda: end_with(store), OnFailure.STOP_ALL)
        await tasks.wait()
        notify("STOPPING=1")
        return tasks.fatal is None


async def _hash_seed(store: Store, state_directory: StateDirectory) -> int:
    """Return the deployment's flow-hash key, as remembered while the store is away.

    Raises UserError when the database is another deployment's, or a new one where ours was: it
    binds no port here, and following it would take the ports of this host from the network.
    """
    remembered = state_directory.hash_seed()
    try:
        seed = (await cluster_settings(store)).hash_seed
    except UnavailableError:
        if remembered is None:
            raise
        return remembered
    if remembered not in (None, seed):
        belonging = state_directory.path / "hash_seed"
        raise UserError(
            "this state database is not the one that this host belongs to. Restore that one, or,"
            f" if the host is to join another, remove {belonging} and start again"
        )
    state_directory.save_hash_seed(seed)
    return seed
