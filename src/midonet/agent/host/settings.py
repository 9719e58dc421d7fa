"""Configuration of an agent process."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from midonet.nsdb.settings_types import StoreUrl
from midonet.runtime.logging import LevelName, LogFormat
from midonet.runtime.settings_types import PathText, UdpPort, check_printable


class DatapathKind(StrEnum):
    """What moves the packets."""

    EBPF = "ebpf"
    MEMORY = "memory"


AttachModeName = Literal["auto", "tcx", "clsact"]
"""Values of `midonet.agent.datapath.ebpf.AttachMode`, which is loaded only where it is used."""


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Options of `midonet agent`. All take effect at start.

    nsdb: URL of the network state database.
    host_name: name of this host in the API; the system's host name when empty.
    state_dir: directory of what the agent remembers; one for each agent of a machine.
    run_dir: directory of the control socket; `state_dir` when empty.
    datapath: what moves the packets.
    attach_mode: how programs are attached to interfaces: auto, tcx or clsact. auto is tcx where
        the kernel has it (Linux 6.6), else clsact.
    max_programs: most flow programs in the kernel datapath; the least recently used make room.
    max_ports: most ports of this host in the kernel datapath.
    datapath_object: built BPF object to load; the one that came with the agent when empty.
    vxlan_port: UDP port of overlay packets.
    underlay_port: UDP port of the memory datapath's substitute for the physical network.
    max_macs_per_port: most MACs, and most neighbours of routers, that one port teaches; beyond it
        a port's own least recently used entry makes room.
    session_timeout_s: time without contact after which this host counts as gone.
    log_level: debug, info, warning or error. log_format: text or json.
    """

    nsdb: StoreUrl
    host_name: Annotated[str, Meta(max_length=255, extra={"check": check_printable})] = ""
    state_dir: Annotated[PathText, Meta(min_length=1)] = "/var/lib/midonet"
    run_dir: PathText = ""
    datapath: DatapathKind = DatapathKind.EBPF
    attach_mode: AttachModeName = "auto"
    max_programs: Annotated[int, Meta(ge=16, le=1 << 22)] = 65536
    max_ports: Annotated[int, Meta(ge=1, le=16_384)] = 1024
    datapath_object: PathText = ""
    vxlan_port: UdpPort = 6677
    underlay_port: UdpPort = 16677
    max_macs_per_port: Annotated[int, Meta(ge=1, le=65_536)] = 1024
    session_timeout_s: Annotated[float, Meta(ge=1.0, le=3600.0)] = 30.0
    log_level: LevelName = "info"
    log_format: LogFormat = LogFormat.TEXT


ENVIRONMENT_PREFIX = "MIDONET_AGENT_"
"""Prefix of this process's own environment variables."""

CONTROL_SOCKET_NAME = "agent.sock"
"""Name of the control socket in the run directory."""
