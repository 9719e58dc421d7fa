from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from midonet.agent.datapath.memory import UdpUnderlay
from midonet.api.server import bind
from midonet.errors import DatapathError, UnavailableError, UserError
from midonet.packets.addresses import parse_ip
from midonet.runtime.listen_address import ListenAddress, listeners, parse_listen, udp_port_in_use


@pytest.mark.parametrize(
    ("text", "host", "port", "is_ipv6"),
    [
        ("127.0.0.1:8181", "127.0.0.1", 8181, False),
        (":0", "", 0, False),
        ("[::1]:65535", "::1", 65535, True),
        ("host.example:80", "host.example", 80, False),
    ],
)
def test_addresses_are_read(text: str, host: str, port: int, is_ipv6: bool) -> None:
    assert parse_listen(text) == ListenAddress(host, port, is_ipv6)


@pytest.mark.parametrize("text", ["", "::1:80", "1.2.3.4", "[::1]", "a:65536", "a:-1", "[]:1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_listen(text)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
def test_taken_port_is_named_with_who_has_it(listen: str) -> None:
    with bind(listen) as taken:
        port = taken.getsockname()[1]
        name = Path("/proc/self/comm").read_text().strip()
        assert listeners(port) == [f"{name} (pid {os.getpid()})"]
        with pytest.raises(UnavailableError) as refusal:
            bind(listen.replace(":0", f":{port}"))
        assert f"port {port} is in use by {name} (pid {os.getpid()})" in str(refusal.value)


def test_port_that_nobody_listens_on_has_no_listeners() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert listeners(bound.getsockname()[1]) == []


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_taken_udp_port_is_named_with_who_has_it(family: int, host: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as taken:
        taken.bind((host, 0))
        port = taken.getsockname()[1]
        name = Path("/proc/self/comm").read_text().strip()
        assert udp_port_in_use(port) == f"UDP port {port} is in use by {name} (pid {os.getpid()})"


async def test_underlay_address_that_is_taken_is_named_with_who_has_it() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        underlay = UdpUnderlay(port=port)
        with pytest.raises(DatapathError, match=rf"UDP port {port} is in use by .*{os.getpid()}"):
            underlay.listen([parse_ip("127.0.0.1")], lambda _: None)
