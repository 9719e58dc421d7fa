"""`midonet cluster`: the REST API and the services of a control node."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
from pathlib import Path

import structlog
import uvloop

from midonet.api.app import build_app
from midonet.api.connection import ConnectionLimits
from midonet.api.edge import EdgePolicy
from midonet.api.server import ApiServer, bind, is_loopback
from midonet.cluster.daemon import start_services
from midonet.cluster.settings import ENVIRONMENT_PREFIX, ClusterSettings
from midonet.commands.store_loss import end_with
from midonet.nsdb.url import open_store
from midonet.runtime.clock import SystemClock
from midonet.runtime.config import load
from midonet.runtime.logging import LogFormat, capture_foreign_messages, configure_logging
from midonet.runtime.notify import notify
from midonet.runtime.supervisor import OnFailure, Supervisor

_LAST_ANSWERS_S = 10.0

_log = structlog.get_logger("cluster")

_OPEN = (
    "there is neither authentication nor TLS: whoever reaches this address is an administrator;"
    " listen on a loopback address behind a proxy that has both"
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("cluster", help="run a control node: REST API and services")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file to read")
    parser.add_argument("--nsdb", metavar="URL", help="network state database")
    parser.add_argument("--listen", metavar="ADDR:PORT", help="address of the REST API")
    parser.add_argument("--log-level", help="debug, info, warning or error")
    parser.add_argument(
        "--log-format",
        choices=[each.value for each in LogFormat],
        help="lines of text, or one JSON object a line",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT; 0 after a clean stop, 1 when a service failed for good."""
    flags = {name: getattr(args, name) for name in ("nsdb", "listen", "log_level", "log_format")}
    settings = load(
        ClusterSettings, own_prefix=ENVIRONMENT_PREFIX, file=args.config, flags=flags
    ).value
    configure_logging(settings.log_level, settings.log_format)
    capture_foreign_messages(settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings))


async def serve(settings: ClusterSettings) -> int:
    """Serve until told to stop; return the exit code."""
    store = open_store(settings.nsdb)
    listening = bind(settings.listen)
    try:
        await store.open()
        try:
            address = listening.getsockname()
            policy = EdgePolicy(
                frozenset((*settings.allowed_hosts, socket.gethostname())),
                frozenset(settings.cors_origins),
            )
            limits = ConnectionLimits(connections=settings.max_connections)
            app = build_app(store, policy=policy)
            server = ApiServer(app, lambda: _ready(address), limits)
            if not is_loopback(listening):
                _log.warning("api_open_to_the_network", listen=settings.listen, reason=_OPEN)
            async with Supervisor() as supervisor:
                loop = asyncio.get_running_loop()
                for each in (signal.SIGTERM, signal.SIGINT):
                    loop.add_signal_handler(each, server.stop)

                async def serve_api() -> None:
                    await server.serve([listening])
                    supervisor.stop()

                api = supervisor.start("api", serve_api, OnFailure.STOP_ALL)
                supervisor.start("store", lambda: end_with(store), OnFailure.STOP_ALL)
                start_services(supervisor, store, SystemClock(), settings)
                await supervisor.wait()
                notify("STOPPING=1")
                # Also where another task ended the process: callers get their answers.
                server.stop()
                await asyncio.wait({api}, timeout=_LAST_ANSWERS_S)
        finally:
            await store.close()
    finally:
        listening.close()
    _log.info("stopped")
    return 0 if supervisor.fatal is None else 1


def _ready(address: tuple[str, int]) -> None:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    _log.info("ready", listen=f"{host}:{address[1]}")
    notify("READY=1")
