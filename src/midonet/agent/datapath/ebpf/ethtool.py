"""Offload features of a network interface, by the names that ethtool shows.

Source: include/uapi/linux/ethtool.h, net/ethtool/common.c (names).
"""

from __future__ import annotations

import array
import fcntl
import socket
import struct

_SIOCETHTOOL = 0x8946
_GET_STRINGS, _GET_SET_INFO, _SET_FEATURES = 0x1B, 0x37, 0x3B
_FEATURES = 4  # ETH_SS_FEATURES
_NAME_SIZE = 32


def _call(made: socket.socket, interface: str, request: bytes) -> bytes:
    """Make one request; return the structure as the kernel left it. Raises OSError."""
    room = array.array("B", request)
    address, _ = room.buffer_info()
    fcntl.ioctl(made, _SIOCETHTOOL, struct.pack("=16sQ16x", interface.encode(), address))
    return room.tobytes()


def feature_names(made: socket.socket, interface: str) -> list[str]:
    """Return the names of all features that this kernel knows, in the order of their bits."""
    info = _call(made, interface, struct.pack("=IIQI", _GET_SET_INFO, 0, 1 << _FEATURES, 0))
    (count,) = struct.unpack_from("=I", info, 16)
    head = struct.pack("=III", _GET_STRINGS, _FEATURES, count)
    names = _call(made, interface, head + bytes(count * _NAME_SIZE))[len(head) :]
    return [
        names[at : at + _NAME_SIZE].split(b"\0", 1)[0].decode()
        for at in range(0, count * _NAME_SIZE, _NAME_SIZE)
    ]


def stop_segmentation_offload(interface: str) -> None:
    """Have the kernel cut up every super-packet that leaves by an interface.

    Raises OSError.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        names = feature_names(made, interface)
        bits = sum(1 << bit for bit, name in enumerate(names) if _is_segmentation(name))
        blocks = (len(names) + 31) // 32
        request = struct.pack("=II", _SET_FEATURES, blocks)
        for block in range(blocks):
            request += struct.pack("=II", bits >> 32 * block & 0xFFFF_FFFF, 0)
        _call(made, interface, request)


def _is_segmentation(name: str) -> bool:
    return name.startswith("tx-") and (name.endswith("-segmentation") or name.startswith("tx-gso"))
