"""Carries the datagrams of the probe engine: one UDP socket a version, port 6678."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Mapping

from midonet.agent.underlay.probe_engine import PeerState, ProbeEngine, ip_overhead
from midonet.errors import UnavailableError
from midonet.model.ids import HostId
from midonet.packets.addresses import IpAddress, IpVersion, parse_ip
from midonet.runtime.listen_address import udp_port_in_use

PROBE_PORT = 6678

_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3
"""include/uapi/linux/in.h and in6.h: set DF, ignore what the kernel learnt of the path."""

_LONGEST = 65535


class Prober:
    """Runs a `ProbeEngine` on the sockets of this network namespace."""

    def __init__(self, engine: ProbeEngine, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._clock = clock
        self._sockets: dict[IpVersion, socket.socket] = {}
        self._wake = asyncio.Event()

    def open(self) -> None:
        """Bind the sockets. Raises UnavailableError when the port is taken."""
        loop = asyncio.get_running_loop()
        try:
            for version in IpVersion:
                self._sockets[version] = _bind(version)
        except OSError as error:
            self.close()
            reason = error.strerror
            if error.errno == errno.EADDRINUSE:
                reason = udp_port_in_use(PROBE_PORT)
            raise UnavailableError(f"paths to peers cannot be probed: {reason}") from None
        for bound in self._sockets.values():
            loop.add_reader(bound, self._readable, bound)

    def close(self) -> None:
        """Close the sockets."""
        loop = asyncio.get_running_loop()
        for bound in self._sockets.values():
            loop.remove_reader(bound)
            bound.close()
        self._sockets.clear()

    def set_peers(self, peers: Mapping[HostId, tuple[IpAddress, int]]) -> None:
        """Replace the peers: host to (address, interface MTU in bytes)."""
        self._engine.set_peers(peers, self._clock())
        self._wake.set()

    def state(self, host_id: HostId) -> PeerState | None:
        """Return what is known of a peer."""
        return self._engine.state(host_id, self._clock())

    async def run(self) -> None:
        """Send what is due until cancelled."""
        while True:
            self._flush()
            timer = self._engine.next_timer()
            delay = None if timer is None else max(0.0, timer - self._clock())
            try:
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            except TimeoutError:
                continue
            self._wake.clear()

    def _readable(self, bound: socket.socket) -> None:
        for _ in range(64):
            try:
                payload, source = bound.recvfrom(_LONGEST)
            except BlockingIOError:
                break
            except OSError:  # an ICMP error reported on the socket: that peer will not answer
                continue
            self._engine.receive(payload, parse_ip(source[0].partition("%")[0]), self._clock())
        self._flush()

    def _flush(self) -> None:
        for datagram in self._engine.datagrams(self._clock()):
            bound = self._sockets.get(datagram.remote.version)
            if bound is None:
                continue
            try:
                bound.sendto(datagram.payload, (str(datagram.remote), PROBE_PORT))
            except OSError as error:
                if error.errno == errno.EMSGSIZE:
                    size = len(datagram.payload) + ip_overhead(datagram.remote)
                    self._engine.refused(datagram.remote, size)
        # Anything else (no route, no buffer) looks like silence to the engine, as it should.


def _bind(version: IpVersion) -> socket.socket:
    """Return a socket at the probes' port. Raises OSError."""
    is_ipv4 = version is IpVersion.V4
    bound = socket.socket(socket.AF_INET if is_ipv4 else socket.AF_INET6, socket.SOCK_DGRAM)
    try:
        bound.setblocking(False)
        if is_ipv4:
            bound.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        else:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
        bound.bind(("0.0.0.0" if is_ipv4 else "::", PROBE_PORT))
    except OSError:
        bound.close()
        raise
    return bound
