"""The bridge that keeps ports' interfaces from the host's own stack: made once, never up.

    tap0, veth1, ...  --slaves of-->  mn-ports (down)

The program at an interface's ingress takes every frame before the bridge could. Where there is no
program (before the port is attached, after it was detached, when a program is missing for whatever
reason) the kernel hands the frame to the bridge, and a bridge that is down drops it. Without it the
host would answer, and with ip_forward=1 route to the underlay, what a workload sends.
Recognition rule: the name, with an alias that tells which agent made it.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import Final

from midonet.agent.datapath.ebpf.rtnetlink import Link, RouteNetlink
from midonet.errors import DatapathError

NAME: Final = "mn-ports"
_MAC: Final = bytes.fromhex("024d4e000001")
"""Else the bridge would take the addresses of its slaves in turn, each with a notification."""


class Enclosure:
    """The bridge in this network namespace. owner: a word that names the agent."""

    def __init__(self, netlink: RouteNetlink, owner: str) -> None:
        self._netlink = netlink
        self._owner = owner
        self.ifindex = 0

    def open(self) -> None:
        """Make the bridge when it is missing, and see that it is down.

        Raises DatapathError (EBUSY) when another agent in this network namespace has one.
        """
        link = self._netlink.link(NAME)
        if link is None:
            self._netlink.create_bridge(NAME, alias=self._owner, mac=_MAC)
            link = self._netlink.link(NAME)
        if link is None:
            raise DatapathError(f"interface {NAME} is missing", errno=errno.ENODEV)
        if link.alias != self._owner:
            raise DatapathError(
                f"another agent uses this network namespace: {NAME} is of {link.alias!r}",
                errno=errno.EBUSY,
            )
        if link.is_up:
            self._netlink.set_down(NAME)
        self.ifindex = link.ifindex

    def enclose(self, link: Link) -> None:
        """Make an interface a slave of the bridge; one that is it already stays so.

        Raises DatapathError: EBUSY when the interface has another master, else what the kernel
        says about an interface that cannot be a slave.
        """
        if link.master == self.ifindex:
            return
        if link.master:
            master = self._netlink.link_at(link.master)
            name = f"interface {link.master}" if master is None else master.name
            raise DatapathError(
                f"interface {link.name} is a slave of {name}: a port's interface has no master but"
                f" {NAME} (ip link set {link.name} nomaster)",
                errno=errno.EBUSY,
            )
        self._netlink.enslave(link.name, self.ifindex)

    def remove(self) -> None:
        """Set what is left inside down, so that it stays closed, and remove the bridge if it is
        ours. Idempotent."""
        link = self._netlink.link(NAME)
        if link is None or link.alias != self._owner:
            return
        for slave in self._netlink.slaves(link.ifindex):
            with suppress(DatapathError):  # it went meanwhile
                self._netlink.set_down(slave.name)
        self._netlink.delete_link(NAME)
