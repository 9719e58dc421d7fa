"""Reads the type information (BTF) of a built object: structures and enumerations.

Format: Documentation/bpf/btf.rst of the kernel. Own code, so that the check of the ABI mirror
shares nothing with what it checks.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

_INT, _POINTER, _ARRAY, _STRUCT, _UNION, _ENUM = 1, 2, 3, 4, 5, 6
_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _PROTOTYPE = 8, 9, 10, 11, 13
_VARIABLE, _SECTION, _DECL_TAG, _ENUM64 = 14, 15, 17, 19


@dataclass
class BtfType:
    """One type. members: (name, type number, offset in bits); values: names to numbers."""

    kind: int
    name: str
    size_or_type: int
    members: list[tuple[str, int, int]] = field(default_factory=list)
    values: dict[str, int] = field(default_factory=dict)
    element: int = 0
    count: int = 0


def section(path: Path, wanted: str) -> bytes:
    """Return the bytes of a section of a 64-bit little-endian ELF file."""
    data = path.read_bytes()
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names_index = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
    names = headers[names_index][4]
    for name, _, _, _, offset, length in headers:
        start = names + name
        if data[start : data.index(b"\0", start)].decode() == wanted:
            return data[offset : offset + length]
    raise KeyError(wanted)


class Btf:
    """All types of an object."""

    def __init__(self, path: Path) -> None:
        data = section(path, ".BTF")
        _, _, _, header, type_start, type_size, names, _ = struct.unpack_from("<HBBIIIII", data)
        self._names = data[header + names :]
        self.types = [BtfType(0, "", 0)]
        at = header + type_start
        end = at + type_size
        while at < end:
            at = self._read(data, at)

    def struct_fields(self, name: str) -> tuple[int, dict[str, tuple[int, int]]]:
        """Return (size, field to (offset, size)), all in bytes."""
        for found in self.types:
            if found.kind == _STRUCT and found.name == name:
                return found.size_or_type, {
                    member: (bits // 8, self._size(number))
                    for member, number, bits in found.members
                }
        raise KeyError(name)

    def enum_values(self, name: str) -> dict[str, int]:
        """Return the names and numbers of an enumeration."""
        for found in self.types:
            if found.kind == _ENUM and found.name == name:
                return found.values
        raise KeyError(name)

    def _name(self, offset: int) -> str:
        return self._names[offset : self._names.index(b"\0", offset)].decode()

    def _size(self, number: int) -> int:
        found = self.types[number]
        if found.kind == _POINTER:
            return 8
        if found.kind == _ARRAY:
            return found.count * self._size(found.element)
        if found.kind in (_TYPEDEF, _VOLATILE, _CONST, _RESTRICT):
            return self._size(found.size_or_type)
        return found.size_or_type

    def _read(self, data: bytes, at: int) -> int:
        name, info, size_or_type = struct.unpack_from("<III", data, at)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        at += 12
        found = BtfType(kind, self._name(name), size_or_type)
        self.types.append(found)
        if kind in (_STRUCT, _UNION):
            for _ in range(count):
                member, number, offset = struct.unpack_from("<III", data, at)
                found.members.append((self._name(member), number, offset & 0xFFFFFF))
                at += 12
        elif kind == _ENUM:
            for _ in range(count):
                member, value = struct.unpack_from("<II", data, at)
                found.values[self._name(member)] = value
                at += 8
        elif kind == _ARRAY:
            found.element, _, found.count = struct.unpack_from("<III", data, at)
            at += 12
        else:
            each = {_PROTOTYPE: 8, _SECTION: 12, _ENUM64: 12}.get(kind, 0)
            at += count * each + {_INT: 4, _VARIABLE: 4, _DECL_TAG: 4}.get(kind, 0)
        return at
