"""What carries outer packets between memory datapaths: the stand-in for the physical network.

Outer packets are whole IPv4 or IPv6 packets, exactly as they would be on a wire. Delivery is
best effort, as on a wire: what cannot be delivered is counted and gone.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

from midonet.errors import DatapathError
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.runtime.listen_address import udp_port_in_use

UDP_UNDERLAY_PORT = 16677
"""Default UDP port of `UdpUnderlay`."""

_MAX_DATAGRAM_SIZE = 65_535
_DATAGRAMS_PER_WAKEUP = 256

Receiver = Callable[[bytes], None]


class Listener(Protocol):
    """What `Underlay.listen` returns."""

    def close(self) -> None:
        """Stop receiving. Closing again changes nothing."""
        ...


class Underlay(Protocol):
    """Carries outer packets to the host that has their destination address."""

    def listen(self, addresses: Iterable[IpAddress], receive: Receiver) -> Listener:
        """Hand packets for `addresses` to `receive` until the listener is closed.

        Raises DatapathError when an address is taken or is not of this host.
        """
        ...

    def send(self, packet: bytes) -> bool:
        """Send one outer packet. Returns False when it could not leave this host."""
        ...


class OuterAddresses(NamedTuple):
    """Addresses in the header of an outer packet."""

    source: IpAddress
    destination: IpAddress


def outer_addresses(packet: bytes) -> OuterAddresses | None:
    """Read the addresses of an IP packet; None when it is too short to have them."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        family, start, size = IpVersion.V4, 12, 4
    elif version == 6 and len(packet) >= 40:
        family, start, size = IpVersion.V6, 8, 16
    else:
        return None
    middle, end = start + size, start + 2 * size
    return OuterAddresses(
        IpAddress(family, int.from_bytes(packet[start:middle], "big")),
        IpAddress(family, int.from_bytes(packet[middle:end], "big")),
    )


class InProcessUnderlay:
    """A switchboard among the datapaths of one process.

    Packets are delivered in the order sent and before `send` of the outermost caller returns,
    never from within the delivery of another.
    """

    def __init__(self) -> None:
        self._receivers: dict[IpAddress, Receiver] = {}
        self._queue: deque[tuple[Receiver, bytes]] = deque()
        self._is_draining = False
        self.undeliverable = 0

    def listen(self, addresses: Iterable[IpAddress], receive: Receiver) -> Listener:
        """See `Underlay.listen`."""
        wanted = tuple(addresses)
        for address in wanted:
            if address in self._receivers:
                raise DatapathError(f"underlay address {address} is taken")
        for address in wanted:
            self._receivers[address] = receive
        return _InProcessListener(self._receivers, wanted, receive)

    def send(self, packet: bytes) -> bool:
        """See `Underlay.send`. A packet without a receiver is counted in `undeliverable`."""
        addresses = outer_addresses(packet)
        receive = self._receivers.get(addresses.destination) if addresses else None
        if receive is None:
            self.undeliverable += 1
            return True
        self._queue.append((receive, packet))
        if not self._is_draining:
            self._drain()
        return True

    def _drain(self) -> None:
        self._is_draining = True
        try:
            while self._queue:
                receive, packet = self._queue.popleft()
                receive(packet)
        finally:
            self._is_draining = False


class _InProcessListener:
    def __init__(
        self,
        receivers: dict[IpAddress, Receiver],
        addresses: tuple[IpAddress, ...],
        receive: Receiver,
    ) -> None:
        self._receivers = receivers
        self._addresses = addresses
        self._receive = receive

    def close(self) -> None:
        for address in self._addresses:
            if self._receivers.get(address) is self._receive:
                del self._receivers[address]
        self._addresses = ()


class UdpUnderlay:
    """Outer packets in UDP datagrams, between processes, without privilege.

    By default the host with underlay address A receives at (A, port 16677); with addresses like
    127.0.1.1 and 127.0.1.2 one machine has any number of hosts. Whoever can send to that
    endpoint can forge outer packets, as on an unprotected physical network.
    """

    def __init__(
        self,
        endpoints: Mapping[IpAddress, tuple[str, int]] | None = None,
        *,
        port: int = UDP_UNDERLAY_PORT,
    ) -> None:
        """Carry packets to the UDP endpoint (host address, port) of each underlay address.

        endpoints: exceptions from the default of the class docstring. port: of that default.
        """
        self._endpoints = dict(endpoints or {})
        self._port = port
        self._sockets: dict[IpAddress, socket.socket] = {}
        self.undeliverable = 0

    def listen(self, addresses: Iterable[IpAddress], receive: Receiver) -> Listener:
        """See `Underlay.listen`. Needs a running event loop."""
        loop = asyncio.get_running_loop()
        opened: dict[IpAddress, socket.socket] = {}
        try:
            for address in addresses:
                opened[address] = self._bind(address)
        except DatapathError:
            for bound in opened.values():
                bound.close()
            raise
        for address, bound in opened.items():
            self._sockets[address] = bound
            loop.add_reader(bound.fileno(), _read_datagrams, bound, receive)
        return _UdpListener(self._sockets, opened, loop)

    def send(self, packet: bytes) -> bool:
        """See `Underlay.send`. A full socket buffer loses the packet, as a full wire does."""
        addresses = outer_addresses(packet)
        if addresses is None:
            return False
        out = self._sockets.get(addresses.source)
        if out is None:
            return False
        try:
            out.sendto(packet, self._endpoint(addresses.destination))
        except OSError:
            self.undeliverable += 1
            return False
        return True

    def _endpoint(self, address: IpAddress) -> tuple[str, int]:
        return self._endpoints.get(address, (str(address), self._port))

    def _bind(self, address: IpAddress) -> socket.socket:
        host, port = self._endpoint(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            bound.bind((host, port))
        except OSError as error:
            bound.close()
            reason = udp_port_in_use(port) if error.errno == errno.EADDRINUSE else error.strerror
            raise DatapathError(
                f"cannot receive for underlay address {address} at {host} port {port}: {reason}",
                errno=error.errno or 0,
            ) from error
        return bound


class _UdpListener:
    def __init__(
        self,
        sockets: dict[IpAddress, socket.socket],
        opened: dict[IpAddress, socket.socket],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._sockets = sockets
        self._opened = opened
        self._loop = loop

    def close(self) -> None:
        for address, bound in self._opened.items():
            if not self._loop.is_closed():
                self._loop.remove_reader(bound.fileno())
            bound.close()
            if self._sockets.get(address) is bound:
                del self._sockets[address]
        self._opened = {}


def _read_datagrams(bound: socket.socket, receive: Receiver) -> None:
    """Read what is there, up to a bound that leaves the loop its turn."""
    for _ in range(_DATAGRAMS_PER_WAKEUP):
        try:
            packet = bound.recv(_MAX_DATAGRAM_SIZE)
        except OSError:  # nothing left, or an error reported for an earlier send
            return
        receive(packet)
        if bound.fileno() < 0:  # closed by the receiver
            return
