from __future__ import annotations

import os
import socket
from uuid import uuid4

import pytest

from midonet.agent.underlay.probe_engine import ProbeEngine
from midonet.agent.underlay.prober import PROBE_PORT, Prober
from midonet.errors import UnavailableError
from midonet.model.ids import HostId


async def test_taken_probe_port_is_named_and_nothing_stays_open() -> None:
    prober = Prober(ProbeEngine(HostId(uuid4()), 1, b"k"), lambda: 0.0)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken:
        # The socket of the other version is open by then, and is closed again.
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("::1", PROBE_PORT))
        with pytest.raises(UnavailableError, match=rf"port {PROBE_PORT} is in use.*{os.getpid()}"):
            prober.open()
    prober.open()
    prober.close()
