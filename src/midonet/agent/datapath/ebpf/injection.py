"""The way from the agent back into the datapath: a veth pair with a program at its far end.

    agent --packet socket--> mn-inj0 ===== mn-inj1 --ingress--> midonet_inject

The mark of each packet says what it is: a port's slot and incarnation, for classification, or
the identifier of an output. Copies of a flood that leave by a tunnel take the same turn.

Segmentation is off at both ends, so super-packets whose offload the kernel cannot carry through a
tunnel come out at the other end as segments: this way on their way into one, and from mn-inj1 to
mn-inj0, where midonet_segment is, when they arrive on the underlay.
Recognition rule: the names, with an alias that tells which agent made the pair.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final

from midonet.agent.datapath.ebpf import abi
from midonet.agent.datapath.ebpf.ethtool import stop_segmentation_offload
from midonet.agent.datapath.ebpf.rtnetlink import RouteNetlink
from midonet.errors import DatapathError

PAIRS: Final = tuple((f"mn-inj{near}", f"mn-inj{near + 1}") for near in range(0, 8, 2))
"""Names of the near and the far end. The first pair is the usual one. A version that takes over
from another takes the next that is free: the earlier programs go on with theirs."""

_MTU_BYTES: Final = 65535
_SOL_PACKET, _PACKET_VNET_HDR, _PACKET_QDISC_BYPASS = 263, 15, 20
_SO_MARK: Final = 36


class Injection:
    """The pair and the socket. owner: a word that names the agent, kept as the pair's alias."""

    def __init__(self, netlink: RouteNetlink, owner: str) -> None:
        self._netlink = netlink
        self._owner = owner
        self._socket: socket.socket | None = None
        self._pair = PAIRS[0]
        self.near_ifindex = 0
        self.far_ifindex = 0

    def open(self, known_near: int, *, beside_another: bool) -> None:
        """Make the pair when it is missing, and the socket.

        known_near: interface that the tables name, 0 when they are new. beside_another: a pair
        that is there already belongs to earlier programs, unless the tables name it.
        Raises DatapathError (EBUSY) when another agent in this network namespace has a pair.
        """
        present = {pair: self._netlink.link(pair[0]) for pair in PAIRS}
        for (name, _), link in present.items():
            if link is not None and link.alias != self._owner:
                raise DatapathError(
                    f"another agent uses this network namespace: {name} is of {link.alias!r}",
                    errno=errno.EBUSY,
                )
        named = [pair for pair, link in present.items() if link and link.ifindex == known_near]
        free = [pair for pair, link in present.items() if link is None]
        self._pair = near_name, far_name = [*named, *(free if beside_another else ()), PAIRS[0]][0]
        near = present[self._pair]
        if near is None:
            self._netlink.create_veth(near_name, far_name, alias=self._owner, mtu_bytes=_MTU_BYTES)
            near = self._netlink.link(near_name)
        far = self._netlink.link(far_name)
        if near is None or far is None:
            raise DatapathError(f"interface {far_name} is missing", errno=errno.ENODEV)
        self.near_ifindex, self.far_ifindex = near.ifindex, far.ifindex
        try:
            for name in self._pair:
                stop_segmentation_offload(name)
        except OSError as error:
            raise DatapathError(
                f"cannot set the offload of {near_name}: {error}", errno=error.errno or 0
            ) from error
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        made.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        made.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        made.bind((near_name, 0))
        self._socket = made

    def close(self) -> None:
        """Close the socket; the pair stays, floods need it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def other_far_ends(self) -> set[int]:
        """Return the far ends of the pairs of earlier programs."""
        links = [self._netlink.link(far) for near, far in PAIRS if (near, far) != self._pair]
        return {link.ifindex for link in links if link is not None}

    def remove_others(self) -> None:
        """Remove the pairs of earlier programs."""
        for pair in PAIRS:
            if pair != self._pair:
                self._remove(pair[0])

    def remove(self) -> None:
        """Remove all pairs that are ours. Idempotent."""
        for name, _ in PAIRS:
            self._remove(name)

    def _remove(self, name: str) -> None:
        near = self._netlink.link(name)
        if near is not None and near.alias == self._owner:
            self._netlink.delete_link(name)

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
