"""What outlives the agent: a BPF file system in the state directory, one directory a generation.

    STATE_DIR/datapath.lock          held by the process that uses the datapath
    STATE_DIR/bpf/                   a bpffs that this class mounts
        v1-65536-1024-2/             ABI version and sizes of the tables
            maps/NAME                pinned maps
            links/PROGRAM-IFINDEX    pinned TCX links

Recognition rule: everything in that file system is ours. It is mounted here and not under
/sys/fs/bpf, because tools that enter a network namespace mount a fresh /sys over it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from midonet.agent.datapath.ebpf import abi
from midonet.agent.datapath.ebpf.syscalls import mount_bpffs, unmount
from midonet.errors import DatapathError
from midonet.runtime.private_files import open_private

_SPARE_RECORDS = 64
"""Records of programs beyond their number: a program is replaced in a record of its own, and index
0 is none."""

CACHES = frozenset(
    {"interface_hints", "program_hints", "mask_hints", "delivery_hints", "states", "scratch"}
)
"""Maps that hold nothing worth keeping: not pinned, so that their shape may change at any time."""


class TableSizes(NamedTuple):
    """Capacities that decide the shape of the pinned maps.

    programs: classes. ports: slots, slot 0 included. width: statistics a program has.
    """

    programs: int
    ports: int
    width: int

    @property
    def entries(self) -> dict[str, int]:
        """Capacity of each map that depends on them, by name."""
        return {
            "classes": self.programs,
            "programs": self.programs + _SPARE_RECORDS,
            "program_notes": self.programs + _SPARE_RECORDS,
            "outputs": 1 << (2 * max(self.programs, 2048) - 1).bit_length(),
            "statistics": (self.programs + 1) * self.width,
            "interfaces": self.ports,
            "ports": self.ports,
            "port_states": self.ports,
            "port_masks": self.ports,
            "drops": self.ports * abi.DROP_REASONS,
        }


class PinDirectory:
    """The pins of one agent. state_dir: of that agent; it exists."""

    def __init__(self, state_dir: Path, sizes: TableSizes) -> None:
        self._root = state_dir / "bpf"
        self._lock_path = state_dir / "datapath.lock"
        self._lock: int | None = None
        name = f"v{abi.ABI_VERSION}-{sizes.programs}-{sizes.ports}-{sizes.width}"
        self.generation = self._root / name

    @property
    def maps(self) -> Path:
        """Where maps of this generation are pinned."""
        return self.generation / "maps"

    @property
    def links(self) -> Path:
        """Where links of this generation are pinned."""
        return self.generation / "links"

    @property
    def is_mounted(self) -> bool:
        """Tell whether the file system is there."""
        return self._root.is_mount()

    def acquire(self) -> None:
        """Take the lock.

        Raises DatapathError when another process has it, UserError when it is not a file of ours.
        """
        if self._lock is not None:
            return
        descriptor = open_private(self._lock_path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise DatapathError(
                f"another agent uses the datapath of {self._lock_path.parent}",
                errno=error.errno or 0,
            ) from None
        self._lock = descriptor

    def release(self) -> None:
        """Give the lock back. Idempotent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def mount(self) -> None:
        """Mount the file system and make this generation's directories, as far as missing."""
        if self._root.is_symlink():
            raise DatapathError(f"{self._root} is a symbolic link, which is not followed")
        self._root.mkdir(mode=0o700, exist_ok=True)
        if not self.is_mounted:
            try:
                mount_bpffs(str(self._root))
            except OSError as error:
                raise DatapathError(
                    f"cannot mount a BPF file system at {self._root}: {error}",
                    errno=error.errno or 0,
                ) from error
        for directory in (self.maps, self.links):
            directory.mkdir(parents=True, exist_ok=True)

    def forget(self, names: Iterable[str]) -> None:
        """Remove the pins of maps of this generation, if there are any."""
        for name in names:
            (self.maps / name).unlink(missing_ok=True)

    def other_generations(self) -> list[Path]:
        """Return the directories of other ABI versions and table sizes."""
        if not self.is_mounted:
            return []
        # The kernel has files of its own there; no name with a dot is ours.
        found = (path for path in self._root.iterdir() if "." not in path.name)
        return sorted(path for path in found if path != self.generation)

    @property
    def has_other_versions(self) -> bool:
        """Tell whether another ABI version has tables here."""
        prefix = f"v{abi.ABI_VERSION}-"
        return any(not path.name.startswith(prefix) for path in self.other_generations())

    def all_link_pins(self) -> list[Path]:
        """Return the pinned links of all generations."""
        generations = [*self.other_generations(), self.generation]
        return [pin for path in generations for pin in link_pins(path / "links")]

    def remove_generation(self, path: Path) -> None:
        """Remove the pins of a generation; what nothing else refers to is freed."""
        for directory in (path / "links", path / "maps"):
            if directory.is_dir():
                for found in directory.iterdir():
                    found.unlink()
                directory.rmdir()
        path.rmdir()

    def remove_all(self) -> None:
        """Remove all pins, the file system and the lock file. Idempotent."""
        if self.is_mounted:
            for path in [*self.other_generations(), self.generation]:
                if path.is_dir():
                    self.remove_generation(path)
            unmount(str(self._root))
        with suppress(FileNotFoundError):
            self._root.rmdir()
        self._lock_path.unlink(missing_ok=True)
        self.release()


def link_pins(directory: Path) -> list[Path]:
    """Return the link pins in a directory; none when it does not exist."""
    return sorted(directory.iterdir()) if directory.is_dir() else []
