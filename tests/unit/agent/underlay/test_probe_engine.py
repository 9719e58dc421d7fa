"""The probe engine against a simulated path."""

from __future__ import annotations

from uuid import UUID

import pytest

from midonet.agent.underlay.probe_engine import BASE_MTU, SEARCH_STEP, ProbeEngine, ip_overhead
from midonet.model.ids import HostId
from midonet.packets.addresses import IpAddress, parse_ip

KEY = b"0123456789abcdef"
LEFT = HostId(UUID(int=1))
RIGHT = HostId(UUID(int=2))
LEFT_ADDRESS = parse_ip("192.0.2.1")
RIGHT_ADDRESS = parse_ip("192.0.2.2")


class Path:
    """Two engines with a path between them that takes packets up to `mtu` bytes."""

    def __init__(self, mtu: int, ceiling: int = 1500, key: bytes = KEY) -> None:
        self.mtu = mtu
        self.now = 100.0
        self.left = ProbeEngine(LEFT, 7, KEY)
        self.right = ProbeEngine(RIGHT, 9, key)
        self.left.set_peers({RIGHT: (RIGHT_ADDRESS, ceiling)}, self.now)
        self.right.set_peers({LEFT: (LEFT_ADDRESS, ceiling)}, self.now)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self._carry(self.left, self.right, LEFT_ADDRESS)
            self._carry(self.right, self.left, RIGHT_ADDRESS)
            self._carry(self.left, self.right, LEFT_ADDRESS)
            self.now += 0.05

    def _carry(self, sender: ProbeEngine, receiver: ProbeEngine, source: IpAddress) -> None:
        for datagram in sender.datagrams(self.now):
            if len(datagram.payload) + ip_overhead(source) <= self.mtu:
                receiver.receive(datagram.payload, source, self.now)


def test_path_that_takes_the_interface_mtu_is_proven_within_seconds() -> None:
    path = Path(1500)
    path.run(3)
    state = path.left.state(RIGHT, path.now)
    assert state is not None
    assert state.is_reachable
    assert state.path_mtu_bytes == 1500
    assert state.epoch == 9


@pytest.mark.parametrize("mtu", [1280, 1400, 1450, 1499])
def test_smaller_path_is_found_to_within_the_search_step(mtu: int) -> None:
    path = Path(mtu)
    path.run(60)
    state = path.left.state(RIGHT, path.now)
    assert state is not None
    assert mtu - SEARCH_STEP <= state.path_mtu_bytes <= mtu


def test_path_that_shrinks_is_searched_anew() -> None:
    path = Path(1500)
    path.run(5)
    path.mtu = 1400
    path.run(120)
    state = path.left.state(RIGHT, path.now)
    assert state is not None
    assert state.is_reachable
    assert 1400 - SEARCH_STEP <= state.path_mtu_bytes <= 1400


def test_silent_peer_becomes_unreachable_within_four_seconds() -> None:
    path = Path(1500)
    path.run(3)
    path.mtu = 0
    path.run(4.1)
    state = path.left.state(RIGHT, path.now)
    assert state is not None
    assert not state.is_reachable
    assert state.path_mtu_bytes >= BASE_MTU


def test_local_refusal_lowers_the_ceiling_at_once() -> None:
    path = Path(1500, ceiling=9000)
    for _ in range(400):
        for datagram in path.left.datagrams(path.now):
            size = len(datagram.payload) + ip_overhead(RIGHT_ADDRESS)
            if size > 1500:
                path.left.refused(RIGHT_ADDRESS, size)
            else:
                path.right.receive(datagram.payload, LEFT_ADDRESS, path.now)
        for datagram in path.right.datagrams(path.now):
            path.left.receive(datagram.payload, RIGHT_ADDRESS, path.now)
        path.now += 0.05
    state = path.left.state(RIGHT, path.now)
    assert state is not None
    assert 1500 - SEARCH_STEP <= state.path_mtu_bytes <= 1500


def test_probe_with_another_key_is_ignored_and_counted() -> None:
    path = Path(1500, key=b"another key.....")
    path.run(5)
    state = path.left.state(RIGHT, path.now)
    assert state is not None
    assert not state.is_reachable
    assert path.left.ignored > 0


@pytest.mark.parametrize("payload", [b"", b"MNPB", b"\x00" * 64, b"MNPB\x01\x03" + b"\x00" * 60])
def test_rubbish_is_ignored_and_counted(payload: bytes) -> None:
    path = Path(1500)
    path.left.receive(payload, RIGHT_ADDRESS, path.now)
    assert path.left.ignored == 1
    assert path.left.datagrams(path.now - 10) == []


def test_probe_from_another_address_than_the_peers_is_ignored() -> None:
    path = Path(1500)
    probe = path.right.datagrams(path.now + 1)[0]
    path.left.receive(probe.payload, parse_ip("198.51.100.9"), path.now)
    assert path.left.ignored == 1
