"""Configuration of a control node."""

from __future__ import annotations

import msgspec

from midonet.runtime.logging import LogFormat


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `midonet cluster`. All take effect at start.

    nsdb: URL of the network state database.
    listen: ADDRESS:PORT of the REST API, `[ADDRESS]:PORT` for IPv6; port 0 takes a free one.
    collect_interval_s: pause between two rounds of garbage collection.
    log_level: debug, info, warning or error. log_format: text or json.
    """

    nsdb: str
    listen: str = "127.0.0.1:8181"
    collect_interval_s: float = 60.0
    log_level: str = "info"
    log_format: LogFormat = LogFormat.TEXT


ENVIRONMENT_PREFIX = "MIDONET_CLUSTER_"
"""Prefix of this process's own environment variables."""
