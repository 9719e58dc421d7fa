"""Servers of pool members and their clients, with real sockets in the machines' namespaces."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from midonet.demo.lab import VirtualMachine
from tests.netns.entering import socket_inside

SERVICE_PORT = 8080
PATIENCE_S = 20.0
_LOOK_UP_S = 0.5
LOST_S = 2.0
"""After this time a datagram counts as lost."""


class _Server:
    """One machine that answers; its threads look up each `_LOOK_UP_S` whether to stop."""

    def __init__(self, machine: VirtualMachine) -> None:
        self._name = f"{machine.name}\n".encode()
        self._is_stopping = threading.Event()
        self._listener = _socket(machine, socket.SOCK_STREAM)
        self._listener.listen(512)
        self._datagrams = _socket(machine, socket.SOCK_DGRAM)
        self._threads = [
            threading.Thread(target=self._accept, daemon=True),
            threading.Thread(target=self._answer, daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._is_stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
        self._listener.close()
        self._datagrams.close()

    def _accept(self) -> None:
        while not self._is_stopping.is_set():
            with suppress(OSError):
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(_LOOK_UP_S)
        with connection, suppress(ConnectionError):
            while not self._is_stopping.is_set():
                with suppress(TimeoutError):
                    if not connection.recv(256):
                        return
                    connection.sendall(self._name)

    def _answer(self) -> None:
        while not self._is_stopping.is_set():
            with suppress(OSError):
                _, client = self._datagrams.recvfrom(256)
                self._datagrams.sendto(self._name, client)


@contextmanager
def serving(machines: Iterable[VirtualMachine]) -> Iterator[None]:
    """Let each machine answer whatever is asked with its name: TCP and UDP, IPv4 and IPv6."""
    servers = [_Server(machine) for machine in machines]
    for server in servers:
        server.start()
    try:
        yield
    finally:
        for server in servers:
            server.stop()


def _socket(machine: VirtualMachine, kind: socket.SocketKind) -> socket.socket:
    made = socket_inside(machine.namespace, socket.AF_INET6, kind)
    made.settimeout(_LOOK_UP_S)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(("::", SERVICE_PORT))
    return made


class Client:
    """A TCP connection to a VIP that is open."""

    def __init__(
        self, machine: VirtualMachine, vip: tuple[str, int], port: int = 0, *, is_udp: bool = False
    ) -> None:
        """Connect, from a port of the caller's choice unless it is 0. Raises OSError."""
        family = socket.AF_INET6 if ":" in vip[0] else socket.AF_INET
        kind = socket.SOCK_DGRAM if is_udp else socket.SOCK_STREAM
        self._socket = socket_inside(machine.namespace, family, kind)
        self._socket.settimeout(LOST_S if is_udp else PATIENCE_S)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if port:
            self._socket.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))
        try:
            self._socket.connect(vip)
        except OSError:
            self._socket.close()
            raise

    def ask(self) -> str:
        """Send a line; return the name of the member that answers. Raises OSError."""
        self._socket.sendall(b"?")
        answer = b""
        while not answer.endswith(b"\n"):
            data = self._socket.recv(256)
            if not data:
                raise ConnectionResetError("closed")
            answer += data
        return answer.decode().strip()

    def send(self) -> None:
        """Send without waiting for an answer."""
        self._socket.sendall(b"?")

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def asked_once(
    machine: VirtualMachine, vip: tuple[str, int], port: int = 0, *, is_udp: bool = False
) -> str:
    """Return the member that answers a new connection."""
    with Client(machine, vip, port, is_udp=is_udp) as client:
        return client.ask()
