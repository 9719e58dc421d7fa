"""Configuration of a control node."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from midonet.nsdb.settings_types import StoreUrl
from midonet.runtime.listen_address import parse_listen
from midonet.runtime.logging import LevelName, LogFormat
from midonet.runtime.settings_types import Names


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `midonet cluster`. All take effect at start.

    nsdb: URL of the network state database.
    listen: ADDRESS:PORT of the REST API, `[ADDRESS]:PORT` for IPv6; port 0 takes a free one.
    allowed_hosts: names by which callers may reach the API, beside `localhost`, the machine's own
        name and IP addresses; `.example.org` stands for every name that ends so, `*` for any.
    cors_origins: origins, such as `https://gui.example.org`, whose web pages may call the API; `*`
        for any. Pages of other origins cannot read replies and may not write.
    max_connections: connections of API clients that may be open at once.
    collect_interval_s: pause between two rounds of garbage collection.
    mac_ageing_s: time until a bridge forgets a MAC that no traffic uses, of all bridges of the
        deployment that do not set `macAgeingSeconds`; kept in the network state database. 0
        leaves what is stored there, at first 300.
    log_level: debug, info, warning or error. log_format: text or json.
    """

    nsdb: StoreUrl
    listen: Annotated[str, Meta(max_length=255, extra={"check": parse_listen})] = "127.0.0.1:8181"
    allowed_hosts: Names = ()
    cors_origins: Names = ()
    max_connections: Annotated[int, Meta(ge=16, le=65536)] = 512
    collect_interval_s: Annotated[float, Meta(ge=1.0, le=86_400.0)] = 60.0
    mac_ageing_s: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    log_level: LevelName = "info"
    log_format: LogFormat = LogFormat.TEXT


ENVIRONMENT_PREFIX = "MIDONET_CLUSTER_"
"""Prefix of this process's own environment variables."""
