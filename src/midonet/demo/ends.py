"""Small programs that run inside a VM or on the underlay, as children of the demo.

    python -m midonet.demo.ends receive PORT            one TCP stream; prints size and digest
    python -m midonet.demo.ends send HOST PORT BYTES    sends a stream of its own making
    python -m midonet.demo.ends identify PORT NAME      tells its name to who connects
    python -m midonet.demo.ends mirror PORT             tells who connects its own address
    python -m midonet.demo.ends ask HOST PORT           prints the name of who answers
    python -m midonet.demo.ends poll HOST PORT COUNT   counts who answers COUNT connections
    python -m midonet.demo.ends witness                 counts outer packets until SIGTERM

Each prints one JSON object.
"""

from __future__ import annotations

import hashlib
import json
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from types import FrameType

_CHUNK = 1 << 18
_SOURCE_BLOCK = hashlib.sha256(b"midonet demo").digest() * (_CHUNK // 32)
_ETH_P_ALL = 3


def _say(**facts: object) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _listen(port: int) -> socket.socket:
    listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    listener.settimeout(60)
    _say(ready=True)
    return listener


def receive(port: str) -> None:
    """Take one stream; say how long it was and what it hashed to."""
    with _listen(int(port)) as listener:
        stream, _peer = listener.accept()
        with stream:
            digest = hashlib.sha256()
            size = 0
            started = time.monotonic()
            while chunk := stream.recv(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
            seconds = time.monotonic() - started
            stream.sendall(b".")
    _say(size=size, digest=digest.hexdigest(), seconds=seconds)


def send(host: str, port: str, size: str) -> None:
    """Send `size` bytes that differ from block to block; say what they hash to."""
    left = int(size)
    digest = hashlib.sha256()
    with socket.create_connection((host, int(port)), timeout=60) as stream:
        number = 0
        while left:
            block = struct.pack("!Q", number) + _SOURCE_BLOCK[8:]
            block = block[: min(left, _CHUNK)]
            digest.update(block)
            stream.sendall(block)
            left -= len(block)
            number += 1
        stream.shutdown(socket.SHUT_WR)
        stream.recv(1)
    _say(size=int(size), digest=digest.hexdigest())


def identify(port: str, name: str) -> None:
    """Tell `name` to everyone who connects, until ended."""
    with _listen(int(port)) as listener:
        while True:
            stream, _peer = listener.accept()
            with stream:
                stream.sendall(name.encode())


def mirror(port: str) -> None:
    """Tell everyone who connects the address it is seen with, until ended."""
    with _listen(int(port)) as listener:
        while True:
            stream, peer = listener.accept()
            with stream:
                stream.sendall(str(peer[0]).removeprefix("::ffff:").encode())


def ask(host: str, port: str) -> None:
    """Print who answers."""
    with socket.create_connection((host, int(port)), timeout=60) as stream:
        _say(name=stream.recv(100).decode())


def poll(host: str, port: str, count: str) -> None:
    """Connect `count` times; print how often each name answered."""
    names: Counter[str] = Counter()
    for _ in range(int(count)):
        with socket.create_connection((host, int(port)), timeout=60) as stream:
            names[stream.recv(100).decode()] += 1
    _say(**names)


def witness() -> None:
    """Count the IP packets that pass this namespace's interfaces by what carries them."""
    counts = {"vxlan": 0, "gre": 0, "other": 0}
    stopping: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopping.append(number)

    signal.signal(signal.SIGTERM, stop)
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)) as tap:
        tap.settimeout(0.1)
        _say(ready=True)
        while True:
            try:
                packet, address = tap.recvfrom(64)
            except TimeoutError:
                # Only now: what had arrived before the signal counts.
                if stopping:
                    break
                continue
            if address[2] != 4:  # PACKET_OUTGOING would count everything twice
                counts[_carrier(packet, address[1])] += 1
    _say(**counts)


def _carrier(packet: bytes, eth_type: int) -> str:
    if eth_type == 0x0800 and len(packet) >= 24:
        protocol, header = packet[9], (packet[0] & 15) * 4
    elif eth_type == 0x86DD and len(packet) >= 44:
        protocol, header = packet[6], 40
    else:
        return "other"
    if protocol == 47:
        return "gre"
    is_vxlan = protocol == 17 and packet[header + 2 : header + 4] == struct.pack("!H", 6677)
    return "vxlan" if is_vxlan else "other"


PROGRAMS: dict[str, Callable[..., None]] = {
    program.__name__: program for program in (receive, send, identify, mirror, ask, poll, witness)
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
