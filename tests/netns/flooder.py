"""A program for the inside of a VM: sends frames that nobody has seen before, at a pace.

python flooder.py sources|destinations|addresses GATEWAY_MAC SECONDS FRAMES_PER_SECOND BYTES
"""

from __future__ import annotations

import random
import socket
import struct
import sys
import time

_SLICE_S = 0.01


def frame(what: str, number: int, gateway_mac: bytes, own_mac: bytes, size: int) -> bytes:
    """Return a UDP frame that differs from all others in source, in destination or in address."""
    unique = b"\x02" + struct.pack("!IB", random.getrandbits(32), number & 0xFF)
    destination, source = gateway_mac, own_mac
    address = 0x0A00_0210
    if what == "sources":
        source = unique
    elif what == "destinations":
        destination = unique
    else:
        address = 0x0A00_0000 | random.getrandbits(24)
    length = max(28, size - 14)
    ip = struct.pack("!BBHHHBBHII", 0x45, 0, length, 0, 0, 64, 17, 0, 0x0A00_0163, address)
    total = sum(struct.unpack("!10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + ip[12:]
    udp = struct.pack("!HHHH", number & 0xFFFF or 1, 9, length - 20, 0)
    return destination + source + b"\x08\x00" + ip + udp + bytes(length - 28)


def main() -> None:
    """Send, then print how many frames were sent."""
    what, gateway, seconds, rate, size = sys.argv[1:]
    sent = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind(("eth0", 0))
        own_mac = out.getsockname()[4]
        started = time.monotonic()
        while (now := time.monotonic()) < started + float(seconds):
            due = int((now - started + _SLICE_S) * int(rate))
            while sent < due:
                out.send(frame(what, sent, bytes.fromhex(gateway), own_mac, int(size)))
                sent += 1
            time.sleep(_SLICE_S)
    sys.stdout.write(f"{sent}\n")


if __name__ == "__main__":
    main()
