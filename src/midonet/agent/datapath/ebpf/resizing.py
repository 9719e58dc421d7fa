"""Tables of this ABI version with other sizes: copied before the links change hands.

Nobody but the agent writes what is copied here, and it is this process, so the earlier programs
forward by the earlier tables until the copy is whole. Where a record lies depends on the sizes, so
records are placed anew; what names them by identifier does not change.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from midonet.agent.datapath.ebpf import abi, syscalls
from midonet.agent.datapath.ebpf.slots import slot_key
from midonet.agent.datapath.ebpf.syscalls import BpfMap
from midonet.errors import DatapathError

_COPIED = ("config", "interfaces", "ports", "port_masks", "tunnels", "peers", "port_states")
_PLACED = ("classes", "programs", "program_notes", "outputs", "tunnel_keys", "deliveries")


def copy_tables(source: Path, target: Mapping[str, BpfMap]) -> None:
    """Copy what lies pinned in `source`. Raises DatapathError when it does not fit."""
    with ExitStack() as stack:
        maps = {}
        for name in _COPIED + _PLACED:
            if (source / name).exists():
                maps[name] = stack.enter_context(_opened(source / name))
        try:
            for name in maps.keys() & set(_COPIED):
                for key, value in maps[name].items():
                    target[name].update(key, value)
            if maps.keys() >= set(_PLACED):
                _place_outputs(maps["outputs"], target["outputs"])
                _place(maps, target, "classes", ("programs", "program_notes"))
                _place(maps, target, "tunnel_keys", ("deliveries",))
        except OSError as error:
            raise DatapathError(
                f"the smaller tables do not hold what is in use: {error}", errno=error.errno or 0
            ) from error


@contextmanager
def _opened(path: Path) -> Iterator[BpfMap]:
    descriptor = syscalls.open_pin(str(path))
    try:
        shape = syscalls.map_shape(descriptor)
        yield BpfMap(descriptor, shape.key_size, shape.value_size, shape.entries)
    finally:
        os.close(descriptor)


def _place_outputs(source: BpfMap, target: BpfMap) -> None:
    taken: set[int] = set()
    for _, record in source.items():
        sequence, identifier, _ = abi.OUTPUT_RECORD.struct.unpack(record)
        if sequence and sequence % 2 == 0:
            index = identifier % target.entries
            if index in taken:
                raise OSError(errno.ENOSPC, "two outputs have one place")
            taken.add(index)
            target.update(slot_key(index), record)


def _place(
    maps: Mapping[str, BpfMap], target: Mapping[str, BpfMap], names: str, records: tuple[str, ...]
) -> None:
    """Copy a hash that names records, and the records."""
    for index, (key, value) in enumerate(maps[names].items(), start=1):
        for record in records:
            found = maps[record].get(value)
            if found is not None:
                target[record].update(slot_key(index), found)
        target[names].update(key, slot_key(index))
