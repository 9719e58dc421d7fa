"""VLAN interfaces of a VM whose kernel has none: a TAP for each, and a process that tags.

    python -m midonet.demo.vlans ID...      makes vlanID for each beside eth0, until ended

Prints a line when they are there.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import sys
from typing import Final

_TUNSETIFF: Final = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_SOL_PACKET, _PACKET_AUXDATA = 263, 8
_VLAN_VALID: Final = 0x10  # TP_STATUS_VLAN_VALID
_OUTGOING: Final = 4
_ETH_P_ALL: Final = 3
_TAG: Final = 0x8100
_FRAME_BYTES: Final = 1 << 16


def _make(vlan: int) -> int:
    name = f"vlan{vlan}".encode()
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name, _IFF_TAP | _IFF_NO_PI))
    return descriptor


def _receive(trunk: socket.socket) -> tuple[int, bytes]:
    """Return the VLAN (0: none) and the frame without its tag."""
    frame, ancillary, _, sender = trunk.recvmsg(_FRAME_BYTES, 256)
    if sender[2] == _OUTGOING:
        return 0, b""
    for level, kind, data in ancillary:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, _, _, _, _, tci, _ = struct.unpack_from("=IIIHHHH", data)
            if status & _VLAN_VALID:
                return tci & 0xFFF, frame
    if frame[12:14] == _TAG.to_bytes(2, "big"):
        return int.from_bytes(frame[14:16], "big") & 0xFFF, frame[:12] + frame[16:]
    return 0, frame


def carry(vlans: list[int]) -> None:
    """Move frames between eth0 and the interfaces, tagged on eth0, without end."""
    taps = {_make(vlan): vlan for vlan in vlans}
    by_vlan = {vlan: descriptor for descriptor, vlan in taps.items()}
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)) as trunk:
        trunk.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        trunk.bind(("eth0", _ETH_P_ALL))
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            for ready in select.select([trunk.fileno(), *taps], [], [])[0]:
                if ready == trunk.fileno():
                    vlan, frame = _receive(trunk)
                    if vlan in by_vlan:
                        _write(by_vlan[vlan], frame)
                else:
                    frame = os.read(ready, _FRAME_BYTES)
                    tag = struct.pack("!HH", _TAG, taps[ready])
                    trunk.send(frame[:12] + tag + frame[12:])


def _write(tap: int, frame: bytes) -> None:
    try:
        os.write(tap, frame)
    except OSError:
        return  # the interface is down


if __name__ == "__main__":
    carry([int(each) for each in sys.argv[1:]])
