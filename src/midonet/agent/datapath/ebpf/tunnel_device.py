"""The VXLAN device that owns the overlay's UDP port, and takes nothing.

Its socket makes the kernel merge segments of our tunnels on real interfaces (GRO), and keeps the
host from answering them with port-unreachable. But what reaches that socket is opened and handed
to the host: packets on interfaces without our hook, to other addresses of the host, reassembled
fragments. So a program drops all that comes out of the device, by name; it is in place before the
device is up, and stays when the agent ends. Should that program ever be missing, the host's stack
has no address and no use for the device either.

It is inside the bridge of the ports' interfaces (`enclosure.py`): a bridge passes on to all its
slaves the headroom that one of them asks for, so what a workload sends has room for outer headers.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from pathlib import Path
from typing import Final

from midonet.agent.datapath.ebpf.enclosure import Enclosure
from midonet.agent.datapath.ebpf.hooks import CLOSED_PROGRAM, Hooks
from midonet.agent.datapath.ebpf.rtnetlink import Link, RouteNetlink
from midonet.errors import DatapathError
from midonet.runtime.listen_address import udp_port_in_use

NAME: Final = "mn-vxlan"
_SETTINGS: Final = {
    f"ipv6/conf/{NAME}/disable_ipv6": "1",
    f"ipv6/conf/{NAME}/accept_ra": "0",
    f"ipv4/conf/{NAME}/rp_filter": "1",  # no route leads there: every source is a wrong one
    f"ipv4/conf/{NAME}/arp_ignore": "8",
    f"ipv4/conf/{NAME}/forwarding": "0",
}


class TunnelDevice:
    """The device in this network namespace, found by its name."""

    def __init__(self, netlink: RouteNetlink, hooks: Hooks, enclosure: Enclosure) -> None:
        self._netlink = netlink
        self._enclosure = enclosure
        self._hooks = hooks
        self._port = 0

    @property
    def ifindex(self) -> int:
        """Index of the device, 0 when there is none."""
        link = self._netlink.link(NAME)
        return 0 if link is None else link.ifindex

    def close_what_is_there(self) -> None:
        """Let nothing through a device that an earlier process left. Raises DatapathError."""
        link = self._netlink.link(NAME)
        if link is not None:
            self._port = link.vxlan_port
            self._close(link)

    def own_port(self, port: int) -> None:
        """Have the device own a UDP port. Raises DatapathError."""
        self._port = port
        self.restore()

    def restore(self) -> None:
        """Make the device again if it is gone, or is not as wanted. Raises DatapathError."""
        if not self._port:
            return
        link = self._netlink.link(NAME)
        if link is not None and link.vxlan_port != self._port:
            self._remove(link)
            link = None
        if link is None:
            self._netlink.create_vxlan(NAME, self._port)
            link = self._netlink.link(NAME)
        if link is not None and not (
            link.is_up
            and link.master == self._enclosure.ifindex
            and self._hooks.is_attached(link.ifindex, CLOSED_PROGRAM)
        ):
            self._close(link)
            self._set_up()

    def _set_up(self) -> None:
        try:
            self._netlink.set_up(NAME)
        except DatapathError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise DatapathError(
                f"{udp_port_in_use(self._port)}; it is the overlay's (vxlan_port): tunnels work,"
                " but their segments are not merged",
                errno=errno.EADDRINUSE,
            ) from error

    def _close(self, link: Link) -> None:
        self._hooks.attach(link.ifindex, CLOSED_PROGRAM)
        with suppress(DatapathError):  # packets are copied then to make room
            self._enclosure.enclose(link)
        for name, value in _SETTINGS.items():
            with suppress(OSError):  # no IPv6, or settings that may not be written here
                (Path("/proc/sys/net") / name).write_text(value)

    def _remove(self, link: Link) -> None:
        # The device first: it must not be open for a moment.
        self._netlink.delete_link(NAME)
        self._hooks.detach(link.ifindex, CLOSED_PROGRAM)

    @staticmethod
    def remove(netlink: RouteNetlink) -> None:
        """Remove the device. Idempotent."""
        netlink.delete_link(NAME)
