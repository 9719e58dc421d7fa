"""Configuration of a process: one frozen struct from file, environment and flags.

Sources, later ones winning: defaults of the struct, one TOML file, environment variables,
command-line flags. A key of the file that the struct does not have is an error, and so is an
environment variable that begins with the process's own prefix; nothing is ignored silently.

Environment: the field `host_name` of a process with prefix `MIDONET_AGENT_` is read from
`MIDONET_AGENT_HOST_NAME`, or from the shared `MIDONET_HOST_NAME`. Values are text and are
converted to the field's type (`true`/`false`, numbers, comma-separated lists).
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from midonet.errors import UserError

T = TypeVar("T", bound=msgspec.Struct)

SHARED_PREFIX = "MIDONET_"


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A configuration with the origin of each value: `default`, a file, a variable, a flag."""

    value: T
    origins: Mapping[str, str]


def load(
    kind: type[T],
    *,
    own_prefix: str,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Loaded[T]:
    """Read all sources and validate the result.

    flags: by field name; None means not given. Raises UserError with the source and the key.
    """
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, object] = {}
    origins = dict.fromkeys(fields, "default")
    if file is not None:
        for name, value in _read_file(file, fields).items():
            values[name] = _convert(value, fields[name], f"{file}: {name}")
            origins[name] = f"file {file}"
    environment = os.environ if environment is None else environment
    for variable, name in _variables(environment, fields, own_prefix):
        text = environment[variable]
        values[name] = _convert(_untext(text, fields[name]), fields[name], variable)
        origins[name] = f"environment {variable}"
    for name, value in (flags or {}).items():
        if value is not None:
            flag = "--" + name.replace("_", "-")
            values[name] = _convert(value, fields[name], flag)
            origins[name] = f"flag {flag}"
    missing = [n for n, field in fields.items() if field.required and n not in values]
    if missing:
        raise UserError(f"missing setting: {', '.join(missing)}", field=missing[0])
    return Loaded(kind(**values), origins)


def describe(loaded: Loaded[T]) -> list[tuple[str, object, str]]:
    """Return (name, effective value, origin) of every option, in the struct's order."""
    names = loaded.value.__struct_fields__
    return [
        (name, msgspec.to_builtins(getattr(loaded.value, name), str_keys=True), origin)
        for name, origin in ((name, loaded.origins[name]) for name in names)
    ]


def _read_file(file: Path, fields: Mapping[str, msgspec.structs.FieldInfo]) -> dict[str, Any]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not valid TOML: {error}") from None
    for name in content:
        if name not in fields:
            raise UserError(f"{file}: unknown key {name!r}", field=name)
    return content


def _variables(
    environment: Mapping[str, str],
    fields: Mapping[str, msgspec.structs.FieldInfo],
    own_prefix: str,
) -> list[tuple[str, str]]:
    """Return (variable, field) pairs to apply, the process's own prefix after the shared one."""
    for variable in environment:
        if variable.startswith(own_prefix) and variable[len(own_prefix) :].lower() not in fields:
            raise UserError(f"unknown environment variable {variable}", field=variable)
    return [
        (prefix + name.upper(), name)
        for prefix in (SHARED_PREFIX, own_prefix)
        for name in fields
        if prefix + name.upper() in environment
    ]


def _untext(text: str, field: msgspec.structs.FieldInfo) -> object:
    kind = msgspec.inspect.type_info(field.type)
    if isinstance(kind, msgspec.inspect.VarTupleType | msgspec.inspect.ListType):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _convert(value: object, field: msgspec.structs.FieldInfo, source: str) -> object:
    is_text = isinstance(value, str)
    try:
        return msgspec.convert(value, field.type, strict=not is_text)
    except msgspec.ValidationError as error:
        raise UserError(f"{source}: {error}", field=field.name) from None
