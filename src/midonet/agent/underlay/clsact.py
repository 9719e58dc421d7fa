"""Attach BPF programs with clsact: for kernels without TCX (before 6.6), and until a link is made.

The qdisc and its filter stay when the process ends; attaching again replaces the filter in one
step, so no packet passes without a program. Recognition rule: priority 77 and handle 1 on the
ingress side of clsact.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from midonet.errors import DatapathError

_INGRESS = 0xFFFF_FFF2  # TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS), linux/pkt_sched.h
_EGRESS = 0xFFFF_FFF3
_PRIORITY = 77
_EEXIST, _ENOENT, _EINVAL, _ENODEV = 17, 2, 22, 19


class Clsact:
    """Blocking netlink calls, carried out by one worker thread: the netlink library keeps an
    event loop of its own, which must not be the caller's."""

    def __init__(self) -> None:
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="clsact")
        self._netlink: IPRoute = self._worker.submit(IPRoute).result()
        self._made: set[int] = set()

    def close(self) -> None:
        """Close the netlink socket; what is attached stays."""
        self._worker.submit(self._netlink.close).result()
        self._worker.shutdown()

    def attach(self, ifindex: int, program_fd: int, name: str) -> None:
        """Run the program on ingress of an interface, in place of an earlier one of ours.

        Raises DatapathError.
        """
        self._worker.submit(self._attach, ifindex, program_fd, name).result()

    def detach(self, ifindex: int) -> None:
        """Remove our filter; an interface that is gone or has none is fine."""
        self._worker.submit(self._detach, ifindex).result()

    def is_attached(self, ifindex: int) -> bool:
        """Tell whether our filter is on the interface."""
        return self._worker.submit(self._is_attached, ifindex).result()

    def withdraw(self, ifindex: int) -> None:
        """Remove our filter, and clsact if it was made here and has no other filter."""
        self._worker.submit(self._withdraw, ifindex).result()

    def found(self) -> dict[int, str]:
        """Return the names under which our programs are at interfaces of this namespace."""
        return self._worker.submit(self._found).result()

    def _attach(self, ifindex: int, program_fd: int, name: str) -> None:
        try:
            self._netlink.tc("add", "clsact", ifindex)
            self._made.add(ifindex)
        except NetlinkError as error:
            if error.code != _EEXIST:
                raise _refused("add clsact to", ifindex, error) from error
        try:
            self._netlink.tc(
                "replace-filter",
                "bpf",
                ifindex,
                ":1",
                fd=program_fd,
                name=name,
                parent=_INGRESS,
                prio=_PRIORITY,
                classid=1,
                direct_action=True,
            )
        except NetlinkError as error:
            raise _refused("attach the program to", ifindex, error) from error

    def _detach(self, ifindex: int) -> None:
        try:
            self._netlink.tc("del-filter", "bpf", ifindex, ":1", parent=_INGRESS, prio=_PRIORITY)
        except NetlinkError as error:
            if error.code not in (_ENOENT, _EINVAL, _ENODEV):
                raise _refused("detach the program from", ifindex, error) from error

    def _withdraw(self, ifindex: int) -> None:
        self._detach(ifindex)
        if ifindex in self._made and not any(
            self._filters(ifindex, side) for side in (_INGRESS, _EGRESS)
        ):
            self._made.discard(ifindex)
            with suppress(NetlinkError):  # it is gone, or somebody removed it
                self._netlink.tc("del", "clsact", ifindex)

    def _is_attached(self, ifindex: int) -> bool:
        return bool(self._own_filters(ifindex))

    def _found(self) -> dict[int, str]:
        found = {}
        for qdisc in list(self._netlink.get_qdiscs()):
            if qdisc.get_attr("TCA_KIND") == "clsact":
                name = self._program_name(qdisc["index"])
                if name is not None:
                    found[qdisc["index"]] = name
        return found

    def _program_name(self, ifindex: int) -> str | None:
        for found in self._own_filters(ifindex):
            options = found.get_attr("TCA_OPTIONS")
            name = None if options is None else options.get_attr("TCA_BPF_NAME")
            if name:
                return str(name)
        return None

    def _own_filters(self, ifindex: int) -> list[Any]:
        return [
            found for found in self._filters(ifindex, _INGRESS) if found["info"] >> 16 == _PRIORITY
        ]

    def _filters(self, ifindex: int, side: int) -> list[Any]:
        try:
            return list(self._netlink.get_filters(ifindex, 0, side))
        except NetlinkError:
            return []


def _refused(action: str, ifindex: int, error: NetlinkError) -> DatapathError:
    return DatapathError(f"cannot {action} interface {ifindex}: {error}", errno=int(error.code))
