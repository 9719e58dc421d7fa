"""Programs at the ingress of interfaces: TCX links, or clsact filters on older kernels.

A TCX link is pinned, so it outlives the process, and another program is put behind it in one
step. Attaching always looks for the link first: a second one would stack, and every packet
would be handled twice.

The kernel makes one link after the other, 10 to 20 ms each; a filter takes one. `attach_first` puts
a filter there, and `make_link` a link in its place: as long as both are there the kernel asks the
filter only about what the link's program leaves open, and ours leave nothing open at a port. So
each packet meets exactly one of them. A filter that a process left behind is found by the next one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from midonet.agent.datapath.ebpf import syscalls
from midonet.agent.datapath.ebpf.pins import link_pins
from midonet.errors import DatapathError

PORT_PROGRAM: Final = "midonet_port"
UNDERLAY_PROGRAM: Final = "midonet_underlay"
INJECT_PROGRAM: Final = "midonet_inject"
SEGMENT_PROGRAM: Final = "midonet_segment"
CLOSED_PROGRAM: Final = "midonet_closed"
_OURS: Final = "midonet_"


class AttachMode(StrEnum):
    """How programs are attached. AUTO: TCX where the kernel has it (Linux 6.6), else clsact."""

    AUTO = "auto"
    TCX = "tcx"
    CLSACT = "clsact"


class FilterAttacher(Protocol):
    """Attaches by clsact; `midonet.agent.underlay.clsact.Clsact` is one."""

    def attach(self, ifindex: int, program_fd: int, name: str) -> None:
        """Put a program at ingress, in place of an earlier one of ours."""
        ...

    def detach(self, ifindex: int) -> None:
        """Remove our program; one that is gone is fine."""
        ...

    def is_attached(self, ifindex: int) -> bool:
        """Tell whether our program is there."""
        ...

    def withdraw(self, ifindex: int) -> None:
        """Remove our program, and what was made to hold it if nobody else uses that."""
        ...

    def found(self) -> dict[int, str]:
        """Return the names under which our programs are at interfaces."""
        ...


def _has_tcx() -> bool:
    try:
        syscalls.tcx_programs(1)
    except OSError as error:
        return error.errno != errno.EINVAL
    return True


def remove_link(pin: Path) -> None:
    """Detach a pinned link and remove its pin; one that is gone is fine."""
    if not pin.exists():
        return
    link = syscalls.open_pin(str(pin))
    try:
        syscalls.detach_link(link)
    finally:
        os.close(link)
    pin.unlink()


class Hooks:
    """Attaches the programs of one loaded object.

    links: directory of pinned links. filters: needed for the clsact mode; with links, ports have
    a filter first.
    """

    def __init__(self, links: Path, mode: AttachMode, filters: FilterAttacher | None) -> None:
        self._links = links
        self._programs: dict[str, int] = {}
        uses_tcx = mode is AttachMode.TCX or (mode is AttachMode.AUTO and _has_tcx())
        if not uses_tcx and filters is None:
            raise DatapathError("this kernel has no TCX, and clsact is not available here")
        self._uses_links = uses_tcx
        self._filters = filters
        self._filtered: dict[int, str] = {}

    @property
    def mode(self) -> AttachMode:
        """The mode in use: TCX or CLSACT."""
        return AttachMode.TCX if self._uses_links else AttachMode.CLSACT

    def take_over(
        self, programs: dict[str, int], pins: list[Path], spared: Collection[int] = ()
    ) -> None:
        """Put these programs behind all links and filters found, and keep the links as ours.

        programs: descriptors by name. pins: of links, of this and of earlier generations; links
        of interfaces that are gone are forgotten. spared: interfaces whose filter stays.
        """
        self._programs = programs
        found = {} if self._filters is None else self._filters.found()
        for ifindex, filter_name in found.items():
            if filter_name in programs and ifindex not in spared:
                self._put_filter(ifindex, filter_name)
        for path in pins:
            link = syscalls.open_pin(str(path))
            try:
                name, _, _ = path.name.rpartition("-")
                if syscalls.link_info(link).ifindex == 0 or name not in programs:
                    path.unlink()
                    continue
                syscalls.update_link(link, programs[name])
                if path.parent != self._links:
                    kept = self._links / path.name
                    if not kept.exists():  # else a take-over ended half-way
                        syscalls.pin(link, str(kept))
                    path.unlink()
            finally:
                os.close(link)
        for ifindex, filter_name in list(self._filtered.items()):
            if self._path(ifindex, filter_name).exists():
                self._remove_filter(ifindex)

    def _put_filter(self, ifindex: int, program: str) -> None:
        assert self._filters is not None
        self._filters.attach(ifindex, self._programs[program], program)
        if self._uses_links:
            self._filtered[ifindex] = program

    def _remove_filter(self, ifindex: int) -> None:
        if self._filters is not None and ifindex in self._filtered:
            del self._filtered[ifindex]
            self._filters.withdraw(ifindex)

    def attach_first(self, ifindex: int, program: str) -> None:
        """Attach a program in the quickest way there is: `without_link` tells what is to follow.

        Raises DatapathError (EBUSY) when another agent's program is there.
        """
        if self._uses_links and self._filters and not self._path(ifindex, program).exists():
            self._refuse_foreign(ifindex)
            with suppress(DatapathError):  # a kernel without filters, or the interface went
                self._put_filter(ifindex, program)
                return
        self.attach(ifindex, program)

    def without_link(self, program: str) -> set[int]:
        """Return the interfaces where a filter holds a link's place."""
        return {ifindex for ifindex, name in self._filtered.items() if name == program}

    def make_link(self, ifindex: int, program: str) -> None:
        """Put a link in the place of a filter that is still there. Raises DatapathError."""
        if self._filtered.get(ifindex) == program:
            self.attach(ifindex, program)

    def attach(self, ifindex: int, program: str) -> None:
        """Attach a program to an interface; when it is there nothing changes.

        Raises DatapathError (EBUSY) when another agent's program is there.
        """
        path = self._path(ifindex, program)
        try:
            if not self._uses_links:
                self._put_filter(ifindex, program)
            elif not path.exists():
                self._refuse_foreign(ifindex)
                link = syscalls.create_tcx_link(self._programs[program], ifindex)
                try:
                    syscalls.pin(link, str(path))
                finally:
                    os.close(link)
            self._remove_filter(ifindex)
        except OSError as error:
            raise DatapathError(
                f"cannot attach to interface {ifindex}: {error}", errno=error.errno or 0
            ) from error

    def detach(self, ifindex: int, program: str) -> None:
        """Detach a program. One that is not there, or whose interface is gone, is fine."""
        if not self._uses_links and self._filters is not None:
            self._filters.detach(ifindex)
        self._remove_filter(ifindex)
        remove_link(self._path(ifindex, program))

    def is_attached(self, ifindex: int, program: str) -> bool:
        """Tell whether a program is at an interface (clsact: whether any of ours is)."""
        if not self._uses_links and self._filters is not None:
            return self._filters.is_attached(ifindex)
        return self._path(ifindex, program).exists() or self._filtered.get(ifindex) == program

    def attached(self, program: str) -> set[int]:
        """Return the interfaces that a program is attached to."""
        if not self._uses_links and self._filters is not None:
            return {index for index, name in self._filters.found().items() if name == program}
        return self.without_link(program) | {
            int(index)
            for name, _, index in (path.name.rpartition("-") for path in link_pins(self._links))
            if name == program
        }

    def detach_all(self) -> None:
        """Remove all filters; links go with their pins."""
        if self._filters is not None:
            for index in self._filters.found():
                self._filters.detach(index)

    def _path(self, ifindex: int, program: str) -> Path:
        return self._links / f"{program}-{ifindex}"

    def _refuse_foreign(self, ifindex: int) -> None:
        for program_id in syscalls.tcx_programs(ifindex):
            with suppress(OSError):  # it went meanwhile
                descriptor = syscalls.program_by_id(program_id)
                _, name = syscalls.program_identity(descriptor)
                os.close(descriptor)
                if name.startswith(_OURS):
                    raise DatapathError(
                        f"interface {ifindex} is used by another agent", errno=errno.EBUSY
                    )
