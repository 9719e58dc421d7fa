"""A tap with virtio headers, as a hypervisor makes one for a VM (linux/if_tun.h)."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import time
from types import TracebackType

from midonet.demo.namespaces import Namespace
from tests.netns.entering import entered

_TUNSETIFF, _TUNSETOFFLOAD, _TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_OFFLOADS = 0x01 | 0x02 | 0x04  # checksum, TSO over IPv4 and IPv6
_HEADER = struct.Struct("=BBHHHH")
_NEEDS_CSUM = 1
GSO_NONE, GSO_TCPV4, GSO_TCPV6 = 0, 1, 4


class Tap:
    """One tap in a host's namespace: what is written enters the network there."""

    def __init__(self, host: Namespace, name: str) -> None:
        self.name = name
        with entered(host):
            self._file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
            fcntl.ioctl(self._file, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(self._file, _TUNSETVNETHDRSZ, struct.pack("i", _HEADER.size))
        fcntl.ioctl(self._file, _TUNSETOFFLOAD, _OFFLOADS)
        host.ip(f"link set {name} up mtu 1430")

    def __enter__(self) -> Tap:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)

    def send(self, frame: bytes) -> None:
        """Send a complete frame."""
        os.write(self._file, bytes(_HEADER.size) + frame)

    def send_tcp(self, frame: bytes, *, l4_offset: int, gso_type: int, gso_size: int) -> None:
        """Send a segment whose checksum field holds the sum of the pseudo-header only."""
        header = _HEADER.pack(
            _NEEDS_CSUM, gso_type, l4_offset + 20, gso_size if gso_type else 0, l4_offset, 16
        )
        os.write(self._file, header + frame)

    def receive(self, timeout_s: float = 5) -> tuple[tuple[int, ...], bytes] | None:
        """Return the next frame with its header (flags, GSO type, header length, GSO size,
        checksum start and offset); None when none comes in time."""
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self._file], [], [], left)[0]:
                data = os.read(self._file, 1 << 17)
                return _HEADER.unpack_from(data), data[_HEADER.size :]
        return None
