"""A TCP stream between two VMs that goes on beside a test, and is checked byte by byte."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from midonet.demo.lab import VirtualMachine
from tests.netns.entering import socket_inside

_BLOCK_BYTES = 8192
_PAUSE_S = 0.005
_TCPI_TOTAL_RETRANS_OFFSET = 100  # struct tcp_info, include/uapi/linux/tcp.h


@dataclass(slots=True)
class Stream:
    """What came of a stream. All but `error` grows while it runs.

    longest_pause_s: longest time in which nothing arrived.
    """

    sent: int = 0
    received: int = 0
    is_intact: bool = True
    longest_pause_s: float = 0.0
    retransmitted: int = 0
    error: OSError | None = None
    is_stopping: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def stop(self) -> None:
        """End the stream; return when all that was sent has arrived."""
        self.is_stopping.set()
        for thread in self.threads:
            thread.join(30)


def _block(number: int) -> bytes:
    return struct.pack("!Q", number) * (_BLOCK_BYTES // 8)


def _send(client: socket.socket, stream: Stream) -> None:
    try:
        number = 0
        while not stream.is_stopping.is_set():
            client.sendall(_block(number))
            stream.sent += _BLOCK_BYTES
            number += 1
            time.sleep(_PAUSE_S)  # a pace, not a wait
        client.shutdown(socket.SHUT_WR)
        client.recv(1)
        info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        (stream.retransmitted,) = struct.unpack_from("=I", info, _TCPI_TOTAL_RETRANS_OFFSET)
    except OSError as error:
        stream.error = error


def _receive(connection: socket.socket, stream: Stream) -> None:
    try:
        rest, number, last = b"", 0, time.monotonic()
        while data := connection.recv(1 << 16):
            now = time.monotonic()
            stream.longest_pause_s = max(stream.longest_pause_s, now - last)
            last = now
            rest += data
            stream.received += len(data)
            while len(rest) >= _BLOCK_BYTES:
                stream.is_intact &= rest[:_BLOCK_BYTES] == _block(number)
                rest, number = rest[_BLOCK_BYTES:], number + 1
        connection.sendall(b".")
    except OSError as error:
        stream.error = error


@contextmanager
def steady_stream(
    source: VirtualMachine, server: VirtualMachine, address: str, port: int = 5005
) -> Iterator[Stream]:
    """Send without end, a block every 5 ms, while the block lasts or until `stop`."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    stream = Stream()
    with (
        socket_inside(server.namespace, family) as listener,
        socket_inside(source.namespace, family) as client,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
        client.connect((address, port))
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(20)
            stream.threads = [
                threading.Thread(target=_send, args=(client, stream)),
                threading.Thread(target=_receive, args=(connection, stream)),
            ]
            for thread in stream.threads:
                thread.start()
            try:
                yield stream
            finally:
                stream.stop()
