"""bpf(2) and mount(2) through ctypes: maps, programs, links, pins.

Numbers are those of `include/uapi/linux/bpf.h`. Everything here raises OSError with the errno
of the kernel; callers say what it means.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from midonet.errors import DatapathError

_BPF_NUMBERS: Final = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "ppc64le": 361,
    "ppc64": 361,
    "s390x": 351,
    "loongarch64": 280,
}

_MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT_KEY = 1, 2, 3, 4
_OBJ_PIN, _OBJ_GET = 6, 7
_PROG_TEST_RUN = 10
_OBJ_GET_INFO = 15
_PROG_QUERY = 16
_PROG_GET_FD_BY_ID = 13
_MAP_LOOKUP_BATCH = 24
_LINK_CREATE, _LINK_UPDATE, _LINK_DETACH = 28, 29, 34
TCX_INGRESS: Final = 46
BPF_NOEXIST: Final = 1
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

Buffer = ctypes.Array[ctypes.c_char]


def _bpf_number() -> int:
    machine = platform.machine()
    number = _BPF_NUMBERS.get(machine)
    if number is None:
        raise DatapathError(f"the bpf system call number of {machine} is not known")
    return number


_BPF: Final = _bpf_number()


def _bpf(command: int, attributes: Buffer, size: int) -> int:
    result = int(_libc.syscall(_BPF, command, attributes, size))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


STORES_IN_ORDER: Final = platform.machine() in {"x86_64", "s390x"}
"""Whether other CPUs see the stores of this one in the order of the program. Those that show them
so also load in the order of the program, and before what is stored later."""

_FUTEX_NUMBERS: Final = {"aarch64": 98, "riscv64": 98, "loongarch64": 98, "ppc64le": 221,
                         "ppc64": 221}  # fmt: skip
_FUTEX_WAKE_PRIVATE = 129
_futex_word = ctypes.c_uint32(0)


def order_stores() -> None:
    """Have what was stored before this seen before what is stored after it.

    Python has no barrier of its own; waking nobody at a futex is one system call that is a full
    barrier, where the CPU needs one.
    """
    _fence()


def order_loads() -> None:
    """Have what was loaded before this be older than what is loaded, or seen stored, after it."""
    _fence()


def _fence() -> None:
    if not STORES_IN_ORDER:
        number = _FUTEX_NUMBERS[platform.machine()]
        _libc.syscall(number, ctypes.byref(_futex_word), _FUTEX_WAKE_PRIVATE, 1, None, None, 0)


def _buffer(data: bytes) -> Buffer:
    return ctypes.create_string_buffer(data, len(data))


def _address(buffer: Buffer) -> int:
    return ctypes.addressof(buffer)


class BpfMap:
    """A map by its descriptor. One instance is not for several threads: it reuses its buffers.

    key_size, value_size: bytes. entries: capacity.
    """

    def __init__(self, fd: int, key_size: int, value_size: int, entries: int) -> None:
        self.fd = fd
        self.key_size = key_size
        self.value_size = value_size
        self.entries = entries
        self._key = ctypes.create_string_buffer(max(key_size, 1))
        self._next = ctypes.create_string_buffer(max(key_size, 1))
        self._value = ctypes.create_string_buffer(max(value_size, 1))
        key, value, following = map(_address, (self._key, self._value, self._next))
        self._access = _buffer(struct.pack("=I4xQQQ", fd, key, value, 0))
        self._delete = _buffer(struct.pack("=I4xQQQ", fd, key, 0, 0))
        self._walk = _buffer(struct.pack("=I4xQQQ", fd, key, following, 0))
        self._first = _buffer(struct.pack("=I4xQQQ", fd, 0, following, 0))

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Insert or replace an entry; the replacement is atomic in a hash."""
        self._key.raw = key
        self._value.raw = value
        struct.pack_into("=Q", self._access, 24, flags)
        _bpf(_MAP_UPDATE, self._access, 32)

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key, None when there is none."""
        self._key.raw = key
        struct.pack_into("=Q", self._access, 24, 0)
        try:
            _bpf(_MAP_LOOKUP, self._access, 32)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return self._value.raw[: self.value_size]

    def delete(self, key: bytes) -> bool:
        """Remove an entry. Return False when there was none."""
        self._key.raw = key
        try:
            _bpf(_MAP_DELETE, self._delete, 32)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def keys(self) -> list[bytes]:
        """Return all keys of a hash. Concurrent changes may be missed or seen twice."""
        found: list[bytes] = []
        attributes = self._first
        while len(found) <= self.entries:
            try:
                _bpf(_MAP_NEXT_KEY, attributes, 32)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    break
                raise
            found.append(self._next.raw[: self.key_size])
            self._key.raw = found[-1]
            attributes = self._walk
        return found

    def items(self) -> list[tuple[bytes, bytes]]:
        """Return all entries of a hash or array, in chunks by batch calls."""
        return [entry for chunk in self._batches(4096) for entry in chunk]

    def _batches(self, chunk: int) -> Iterator[list[tuple[bytes, bytes]]]:
        keys = ctypes.create_string_buffer(chunk * self.key_size)
        values = ctypes.create_string_buffer(chunk * self.value_size)
        token = ctypes.create_string_buffer(max(self.key_size, 8))
        start = 0
        finished = False
        while not finished:
            attributes = _buffer(
                struct.pack(
                    "=QQQQIIQQ", start, _address(token), _address(keys), _address(values),
                    chunk, self.fd, 0, 0,
                )
            )  # fmt: skip
            try:
                _bpf(_MAP_LOOKUP_BATCH, attributes, 56)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise
                finished = True
            (count,) = struct.unpack_from("=I", attributes, 32)
            raw_keys, raw_values = keys.raw, values.raw
            yield [
                (
                    raw_keys[i * self.key_size : (i + 1) * self.key_size],
                    raw_values[i * self.value_size : (i + 1) * self.value_size],
                )
                for i in range(count)
            ]
            start = _address(token)


def pin(fd: int, path: str) -> None:
    """Pin a map, program or link in a bpffs."""
    name = _buffer(path.encode() + b"\0")
    _bpf(_OBJ_PIN, _buffer(struct.pack("=QII", _address(name), fd, 0)), 16)


def open_pin(path: str) -> int:
    """Return a new descriptor of what is pinned at `path`."""
    name = _buffer(path.encode() + b"\0")
    return _bpf(_OBJ_GET, _buffer(struct.pack("=QII", _address(name), 0, 0)), 16)


class LinkInfo(NamedTuple):
    """A link read back. ifindex is 0 once its interface is gone."""

    link_id: int
    program_id: int
    ifindex: int


def create_tcx_link(program_fd: int, ifindex: int) -> int:
    """Attach a program at TCX ingress; return the link's descriptor."""
    attributes = _buffer(struct.pack("=IIII", program_fd, ifindex, TCX_INGRESS, 0) + bytes(32))
    return _bpf(_LINK_CREATE, attributes, 48)


def update_link(link_fd: int, program_fd: int) -> None:
    """Put another program behind a link, atomically."""
    _bpf(_LINK_UPDATE, _buffer(struct.pack("=IIII", link_fd, program_fd, 0, 0)), 16)


def detach_link(link_fd: int) -> None:
    """Take a link off its interface at once; closing the last reference would do it later."""
    _bpf(_LINK_DETACH, _buffer(struct.pack("=I", link_fd)), 4)


def _info(fd: int, size: int) -> bytes:
    room = ctypes.create_string_buffer(size)
    _bpf(_OBJ_GET_INFO, _buffer(struct.pack("=IIQ", fd, size, _address(room))), 16)
    return room.raw


def link_info(fd: int) -> LinkInfo:
    """Return what a TCX link is attached to."""
    _, link_id, program_id, _, ifindex = struct.unpack_from("=IIIII", _info(fd, 64))
    return LinkInfo(link_id, program_id, ifindex)


def program_identity(fd: int) -> tuple[int, str]:
    """Return (id, name) of a program."""
    info = _info(fd, 128)
    (program_id,) = struct.unpack_from("=I", info, 4)
    return program_id, info[64:80].split(b"\0", 1)[0].decode()


def verified_instructions(fd: int) -> int:
    """Return how many instructions the verifier went through for a program (Linux 5.16)."""
    (count,) = struct.unpack_from("=I", _info(fd, 232), 216)
    return int(count)


class MapShape(NamedTuple):
    """Type, sizes in bytes and capacity of a map."""

    map_type: int
    key_size: int
    value_size: int
    entries: int


def map_shape(fd: int) -> MapShape:
    """Return the shape of a map."""
    map_type, _, key_size, value_size, entries = struct.unpack_from("=IIIII", _info(fd, 80))
    return MapShape(map_type, key_size, value_size, entries)


def tcx_programs(ifindex: int) -> list[int]:
    """Return the identifiers of the programs at TCX ingress of an interface."""
    room = ctypes.create_string_buffer(4 * 64)
    attributes = _buffer(
        struct.pack("=IIIIQI4xQQQQ", ifindex, TCX_INGRESS, 0, 0, _address(room), 64, 0, 0, 0, 0)
    )
    _bpf(_PROG_QUERY, attributes, len(attributes))
    (count,) = struct.unpack_from("=I", attributes, 24)
    return list(struct.unpack_from(f"={count}I", room.raw))


def program_by_id(program_id: int) -> int:
    """Return a descriptor of the program with an identifier."""
    return _bpf(_PROG_GET_FD_BY_ID, _buffer(struct.pack("=III", program_id, 0, 0)), 12)


class ProgramRun(NamedTuple):
    """Outcome of a test run: return code, frame afterwards, nanoseconds a run, context."""

    verdict: int
    frame: bytes
    duration_ns: int
    context: bytes


def run_program(
    program_fd: int, frame: bytes, *, repeat: int = 1, context: bytes = b"", flags: int = 0
) -> ProgramRun:
    """Run a program on a frame (BPF_PROG_TEST_RUN). context: a `struct __sk_buff`.

    flags: BPF_F_TEST_SKB_CHECKSUM_COMPLETE (4, Linux 6.16) gives the packet a device's sum of all
    its bytes and raises OSError (EBADMSG) when that is not right afterwards.
    """
    data_in, data_out = _buffer(frame), ctypes.create_string_buffer(8192)
    context_in, context_out = _buffer(context or b"\0"), ctypes.create_string_buffer(192)
    attributes = _buffer(
        struct.pack(
            "=IIIIQQIIIIQQII8x", program_fd, 0, len(frame), len(data_out), _address(data_in),
            _address(data_out), repeat, 0, len(context), 192 if context else 0,
            _address(context_in) if context else 0, _address(context_out) if context else 0,
            flags, 0,
        )
    )  # fmt: skip
    _bpf(_PROG_TEST_RUN, attributes, 80)
    verdict, _, size = struct.unpack_from("=iII", attributes, 4)
    (duration,) = struct.unpack_from("=I", attributes, 36)
    return ProgramRun(verdict, data_out.raw[:size], duration, context_out.raw)


def mount_bpffs(path: str) -> None:
    """Mount a bpffs."""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    if _libc.mount(b"bpf", path.encode(), b"bpf", flags, b"mode=0700"):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def unmount(path: str) -> None:
    """Unmount a file system; detached at once even when descriptors are open."""
    if _libc.umount2(path.encode(), 2):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
