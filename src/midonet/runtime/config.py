"""Configuration of a process: one frozen struct from file, environment and flags.

Sources, later ones winning: defaults of the struct, one TOML file, environment variables,
command-line flags. A key of the file that the struct does not have is an error, and so is an
environment variable that begins with the process's own prefix; nothing is ignored silently.

Every value is checked where it is read: a number against the bounds of its field, anything
against the function that the field names as `check` (`Meta(extra={"check": ...})`), which raises
UserError. What is refused names source, value and bound.

Environment: the field `host_name` of a process with prefix `MIDONET_AGENT_` is read from
`MIDONET_AGENT_HOST_NAME`, or from the shared `MIDONET_HOST_NAME`. Values are text and are
converted to the field's type (`true`/`false`, numbers, comma-separated lists).
"""

from __future__ import annotations

import difflib
import math
import os
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import inspect

from midonet.errors import UserError

T = TypeVar("T", bound=msgspec.Struct)

SHARED_PREFIX = "MIDONET_"

_MAX_FILE_BYTES = 1 << 20


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
            values[name] = _convert(value, fields[name], f"{file}: {name}", is_text=False)
            origins[name] = f"file {file}"
    environment = os.environ if environment is None else environment
    for variable, name in _variables(environment, fields, own_prefix):
        text = environment[variable]
        values[name] = _convert(_untext(text, fields[name]), fields[name], variable, is_text=True)
        origins[name] = f"environment {variable}"
    for name, value in (flags or {}).items():
        if value is not None:
            flag = "--" + name.replace("_", "-")
            is_text = isinstance(value, str)
            values[name] = _convert(value, fields[name], flag, is_text=is_text)
            origins[name] = f"flag {flag}"
    missing = [n for n, field in fields.items() if field.required and n not in values]
    if missing:
        raise UserError(
            f"missing setting: {', '.join(missing)} (set it in the file of --config, as"
            f" {SHARED_PREFIX}{missing[0].upper()} in the environment, or as a flag)",
            field=missing[0],
        )
    return Loaded(kind(**values), origins)


def describe(loaded: Loaded[T]) -> list[tuple[str, object, str]]:
    """Return (name, effective value, origin) of every option, in the struct's order."""
    names = loaded.value.__struct_fields__
    return [
        (name, msgspec.to_builtins(getattr(loaded.value, name), str_keys=True), origin)
        for name, origin in ((name, loaded.origins[name]) for name in names)
    ]


def option_type(field: msgspec.structs.FieldInfo) -> inspect.Type:
    """Return the type of an option with its bounds."""
    found = inspect.type_info(field.type)
    return found.type if isinstance(found, inspect.Metadata) else found


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the known word that looks most like one, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def expected(kind: inspect.Type) -> str:
    """Return in words what an option takes, bounds included."""
    match kind:
        case inspect.IntType(ge=low, le=high):
            return f"a whole number from {low} to {high}"
        case inspect.FloatType(ge=low, le=high):
            return f"a number from {low:g} to {high:g}"
        case inspect.BoolType():
            return "true or false"
        case inspect.EnumType(cls=cls):
            return "one of " + ", ".join(str(member.value) for member in cls)
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(str(value) for value in values)
        case inspect.StrType(min_length=least, max_length=most):
            return f"text of {least or 0} to {most} characters"
        case inspect.VarTupleType(item_type=item, max_length=most):
            return f"a list of at most {most} times {expected(item)}"
        case _:
            return f"a {type(kind).__name__}"


def _read_file(file: Path, fields: Mapping[str, msgspec.structs.FieldInfo]) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_FILE_BYTES + 1)
        if len(text) > _MAX_FILE_BYTES:
            raise UserError(f"{file} is longer than {_MAX_FILE_BYTES} bytes")
        content = tomllib.loads(text.decode("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{file} is not valid TOML: {error}") from None
    for name in content:
        if name not in fields:
            hint = did_you_mean(name, fields)
            raise UserError(f"{file}: unknown key {name!r}{hint}", field=name)
    return content


def _variables(
    environment: Mapping[str, str],
    fields: Mapping[str, msgspec.structs.FieldInfo],
    own_prefix: str,
) -> list[tuple[str, str]]:
    """Return (variable, field) pairs to apply, the process's own prefix after the shared one."""
    for variable in environment:
        if variable.startswith(own_prefix) and variable[len(own_prefix) :].lower() not in fields:
            hint = did_you_mean(variable, (own_prefix + name.upper() for name in fields))
            raise UserError(f"unknown environment variable {variable}{hint}", field=variable)
    return [
        (prefix + name.upper(), name)
        for prefix in (SHARED_PREFIX, own_prefix)
        for name in fields
        if prefix + name.upper() in environment
    ]


def _untext(text: str, field: msgspec.structs.FieldInfo) -> object:
    if isinstance(option_type(field), inspect.VarTupleType | inspect.ListType):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _convert(
    value: object, field: msgspec.structs.FieldInfo, source: str, *, is_text: bool
) -> object:
    """Return the value of a field. is_text: numbers and booleans come as text."""
    try:
        converted = msgspec.convert(value, field.type, strict=not is_text)
    except msgspec.ValidationError:
        raise _refusal(source, value, field) from None
    if isinstance(converted, float) and not math.isfinite(converted):
        raise _refusal(source, value, field)
    check = _check_of(field)
    if check is not None:
        try:
            check(converted)
        except UserError as error:
            raise UserError(f"{source}: {error}", field=field.name) from None
    return converted


def _refusal(source: str, value: object, field: msgspec.structs.FieldInfo) -> UserError:
    kind = option_type(field)
    shown = value if isinstance(value, str) else str(value).lower()
    hint = ""
    if isinstance(kind, inspect.EnumType):
        hint = did_you_mean(shown, (str(member.value) for member in kind.cls))
    elif isinstance(kind, inspect.LiteralType):
        hint = did_you_mean(shown, map(str, kind.values))
    return UserError(f"{source}: {shown[:80]!r} is not {expected(kind)}{hint}", field=field.name)


def _check_of(field: msgspec.structs.FieldInfo) -> Callable[[Any], object] | None:
    found = inspect.type_info(field.type)
    if not isinstance(found, inspect.Metadata) or found.extra is None:
        return None
    check: Callable[[Any], object] | None = found.extra.get("check")
    return check
