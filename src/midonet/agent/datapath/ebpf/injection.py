"""The way from the agent back into the datapath: a veth pair with a program at its far end.

    agent --packet socket--> mn-inj0 ===== mn-inj1 --ingress--> midonet_inject

The mark of each packet says what it is: a port's slot and incarnation, for classification, or
the identifier of an output. Copies of a flood that leave by a tunnel take the same turn.
Recognition rule: the names, with an alias that tells which agent made the pair.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final

from midonet.agent.datapath.ebpf import abi
from midonet.agent.datapath.ebpf.rtnetlink import RouteNetlink
from midonet.errors import DatapathError

NEAR_NAME: Final = "mn-inj0"
FAR_NAME: Final = "mn-inj1"
_MTU_BYTES: Final = 65535
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_QDISC_BYPASS = 263, 15, 20
_SO_MARK: Final = 36


class Injection:
    """The pair and the socket. owner: a word that names the agent, kept as the pair's alias."""

    def __init__(self, netlink: RouteNetlink, owner: str) -> None:
        self._netlink = netlink
        self._owner = owner
        self._socket: socket.socket | None = None
        self.near_ifindex = 0
        self.far_ifindex = 0

    def open(self) -> None:
        """Make the pair when it is missing, and the socket.

        Raises DatapathError (EBUSY) when another agent in this network namespace has a pair.
        """
        near = self._netlink.link(NEAR_NAME)
        if near is None:
            self._netlink.create_veth(NEAR_NAME, FAR_NAME, alias=self._owner, mtu_bytes=_MTU_BYTES)
            near = self._netlink.link(NEAR_NAME)
        far = self._netlink.link(FAR_NAME)
        if near is None or far is None:
            raise DatapathError(f"interface {FAR_NAME} is missing", errno=errno.ENODEV)
        if near.alias != self._owner:
            raise DatapathError(
                f"another agent uses this network namespace: {NEAR_NAME} is of {near.alias!r}",
                errno=errno.EBUSY,
            )
        self.near_ifindex, self.far_ifindex = near.ifindex, far.ifindex
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        made.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        made.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        made.bind((NEAR_NAME, 0))
        self._socket = made

    def close(self) -> None:
        """Close the socket; the pair stays, floods need it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def remove(self) -> None:
        """Remove the pair, if it is ours. Idempotent."""
        near = self._netlink.link(NEAR_NAME)
        if near is not None and near.alias == self._owner:
            self._netlink.delete_link(NEAR_NAME)

    def send(self, frame: bytes, mark: int, offload: bytes) -> bool:
        """Send a frame; False when the kernel did not take it.

        offload: a virtio_net_hdr (`offload.py`).
        """
        if self._socket is None:
            raise DatapathError("the datapath is closed")
        ancillary = [(socket.SOL_SOCKET, _SO_MARK, struct.pack("=I", mark))]
        try:
            self._socket.sendmsg([offload, frame], ancillary)
        except OSError:
            return False
        return True


def classification_mark(slot: int, incarnation: int) -> int:
    """Return the mark of a frame that is to be classified as if it entered at a port."""
    return slot | (incarnation & abi.MARK_INCARNATION_MASK) << abi.MARK_INCARNATION_SHIFT


def output_mark(identifier: int) -> int:
    """Return the mark of a frame that is to leave by one output."""
    return abi.MARK_OUTPUT | identifier
