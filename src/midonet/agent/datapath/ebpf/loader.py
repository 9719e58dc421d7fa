"""Loads the built object with libbpf.so.1: the only user of that library.

Maps that are pinned in the given directory are reused; the others are created and pinned.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import hashlib
import os
import sys
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from midonet.agent.datapath.ebpf.syscalls import STORES_IN_ORDER, BpfMap
from midonet.errors import DatapathError

OBJECT_PATH: Final = Path(__file__).with_name("datapath.bpf.o")
OLDER_OBJECT_PATH: Final = Path(__file__).with_name("datapath_older.bpf.o")
"""The same without what only newer kernels let programs read (`bpf/lib/offload.h`)."""

_KERNEL_CONTEXT: Final = b"bpf_cast_to_kern_ctx"
_BTF_KIND_FUNC: Final = 12

_POINTER = ctypes.c_void_p
_FUNCTIONS: Final = {
    "bpf_object__open_file": (_POINTER, [ctypes.c_char_p, _POINTER]),
    "bpf_object__load": (ctypes.c_int, [_POINTER]),
    "bpf_object__close": (None, [_POINTER]),
    "bpf_object__next_map": (_POINTER, [_POINTER, _POINTER]),
    "bpf_object__next_program": (_POINTER, [_POINTER, _POINTER]),
    "bpf_map__name": (ctypes.c_char_p, [_POINTER]),
    "bpf_map__fd": (ctypes.c_int, [_POINTER]),
    "bpf_map__set_pin_path": (ctypes.c_int, [_POINTER, ctypes.c_char_p]),
    "bpf_map__set_max_entries": (ctypes.c_int, [_POINTER, ctypes.c_uint32]),
    "bpf_map__set_initial_value": (ctypes.c_int, [_POINTER, ctypes.c_char_p, ctypes.c_size_t]),
    "bpf_map__key_size": (ctypes.c_uint32, [_POINTER]),
    "bpf_map__value_size": (ctypes.c_uint32, [_POINTER]),
    "bpf_map__max_entries": (ctypes.c_uint32, [_POINTER]),
    "bpf_map__is_internal": (ctypes.c_bool, [_POINTER]),
    "bpf_program__name": (ctypes.c_char_p, [_POINTER]),
    "bpf_program__fd": (ctypes.c_int, [_POINTER]),
    "btf__load_vmlinux_btf": (_POINTER, []),
    "btf__find_by_name_kind": (ctypes.c_int, [_POINTER, ctypes.c_char_p, ctypes.c_uint32]),
    "btf__free": (None, [_POINTER]),
}
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, _POINTER, _POINTER)
_WARNING: Final = 0
_LINES_SHOWN: Final = 40
_TEXT_SIZE_BYTES: Final = 1 << 20
_CHARACTERS_A_LINE: Final = 300


class _Messages:
    """What libbpf had to say since `clear`; it goes nowhere else. The log of the verifier is one
    message of many lines, of which the last ones say what it refused."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_LINES_SHOWN)
        self._room = ctypes.create_string_buffer(_TEXT_SIZE_BYTES)
        self._format = ctypes.CDLL(None).vsnprintf
        self._format.argtypes = [_POINTER, ctypes.c_size_t, _POINTER, _POINTER]
        self.callback = _PRINT(self._take)

    def _take(self, level: int, template: int, arguments: int) -> int:
        # A va_list is passed as a pointer by every calling convention that Linux has BPF for.
        if level == _WARNING:
            self._format(self._room, _TEXT_SIZE_BYTES, template, arguments)
            text = self._room.value.decode(errors="replace")
            self._lines.extend(line[:_CHARACTERS_A_LINE] for line in text.splitlines() if line)
        return 0

    def clear(self) -> None:
        """Forget all."""
        self._lines.clear()

    def text(self) -> str:
        """Return the last lines."""
        return "\n".join(self._lines)


_MESSAGES = _Messages()


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError:
        raise DatapathError("libbpf.so.1 is not installed") from None
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    library.libbpf_set_print(_MESSAGES.callback)
    return library


def build_id(path: Path = OBJECT_PATH) -> str:
    """Return 16 hexadecimal digits that name this build of the object.

    Raises DatapathError when it has not been built.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except FileNotFoundError:
        raise DatapathError(f"{path} is missing: build it with `make -C bpf`") from None


def object_for_kernel() -> Path:
    """Return the build that the running kernel takes.

    It has to describe itself (BTF) and to show programs its packet structure (Linux 6.2).
    """
    library = _library()
    kernel = library.btf__load_vmlinux_btf()
    if not kernel:
        return OLDER_OBJECT_PATH
    try:
        found = library.btf__find_by_name_kind(kernel, _KERNEL_CONTEXT, _BTF_KIND_FUNC)
    finally:
        library.btf__free(kernel)
    return OBJECT_PATH if found > 0 else OLDER_OBJECT_PATH


@dataclass
class LoadedObject:
    """Maps by name and program descriptors by name. `close` frees the descriptors."""

    handle: int
    library: ctypes.CDLL
    maps: dict[str, BpfMap] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)

    def close(self) -> None:
        """Close all descriptors. What is pinned or attached lives on. Idempotent."""
        if self.handle:
            self.library.bpf_object__close(self.handle)
            self.handle = 0


def load_object(
    path: Path = OBJECT_PATH,
    *,
    pin_directory: Path | None = None,
    unpinned: Collection[str] = (),
    entries: Mapping[str, int] | None = None,
    reorders_loads: bool = not STORES_IN_ORDER,
) -> LoadedObject:
    """Load the object into the kernel.

    pin_directory: in a bpffs; maps found there are reused, others pinned there, except those
    named in `unpinned`. entries: other capacities of maps, by name. reorders_loads: the program
    needs barriers between what it reads. Raises DatapathError with the errno of the kernel;
    EINVAL also when a pinned map has another shape than this build expects.
    """
    build_id(path)
    library = _library()
    _MESSAGES.clear()
    handle = library.bpf_object__open_file(str(path).encode(), None)
    if not handle:
        raise DatapathError(f"{path} is not a BPF object", errno=ctypes.get_errno())
    loaded = LoadedObject(handle, library)
    try:
        _prepare_maps(loaded, pin_directory, unpinned, entries or {})
        _set_constants(loaded, reorders_loads=reorders_loads)
        result = library.bpf_object__load(handle)
        if result:
            raise DatapathError(_load_message(-result), errno=-result)
        _collect(loaded)
    except DatapathError:
        loaded.close()
        raise
    return loaded


def _load_message(number: int) -> str:
    reason = {
        errno.EPERM: "missing privileges: CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON are needed",
        errno.EACCES: "the verifier refused it; this kernel may be too old",
        errno.EINVAL: "the kernel or a pinned map does not fit this build",
        errno.ENOMEM: "not enough memory",
    }.get(number, os.strerror(number))
    told = _MESSAGES.text()
    text = f"the kernel did not load the datapath program ({reason})"
    return f"{text}; libbpf says:\n{told}" if told else text


def _prepare_maps(
    loaded: LoadedObject,
    pin_directory: Path | None,
    unpinned: Collection[str],
    entries: Mapping[str, int],
) -> None:
    library = loaded.library
    item = library.bpf_object__next_map(loaded.handle, None)
    while item:
        name = library.bpf_map__name(item).decode()
        is_kept = name not in unpinned and not library.bpf_map__is_internal(item)
        if pin_directory is not None and is_kept:
            path = str(pin_directory / name)
            _check(library.bpf_map__set_pin_path(item, path.encode()), f"pin map {name} at {path}")
        if name in entries:
            size = entries[name]
            _check(library.bpf_map__set_max_entries(item, size), f"size map {name} for {size}")
        item = library.bpf_object__next_map(loaded.handle, item)


def _check(result: int, action: str) -> None:
    if result:
        raise DatapathError(f"cannot {action}: {os.strerror(-result)}", errno=-result)


def _set_constants(loaded: LoadedObject, *, reorders_loads: bool) -> None:
    """Set the constants of `bpf/lib/records.h`: one integer."""
    library = loaded.library
    item = library.bpf_object__next_map(loaded.handle, None)
    while item:
        if library.bpf_map__name(item).decode().endswith(".rodata.cpu"):
            value = int(reorders_loads).to_bytes(4, sys.byteorder)
            _check(library.bpf_map__set_initial_value(item, value, 4), "set the constants")
        item = library.bpf_object__next_map(loaded.handle, item)


def _collect(loaded: LoadedObject) -> None:
    library = loaded.library
    item = library.bpf_object__next_map(loaded.handle, None)
    while item:
        loaded.maps[library.bpf_map__name(item).decode()] = BpfMap(
            library.bpf_map__fd(item),
            library.bpf_map__key_size(item),
            library.bpf_map__value_size(item),
            library.bpf_map__max_entries(item),
        )
        item = library.bpf_object__next_map(loaded.handle, item)
    item = library.bpf_object__next_program(loaded.handle, None)
    while item:
        loaded.programs[library.bpf_program__name(item).decode()] = library.bpf_program__fd(item)
        item = library.bpf_object__next_program(loaded.handle, item)
