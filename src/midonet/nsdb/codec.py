"""Encoding of stored objects: JSON by msgspec, tolerant of fields this process does not know.

Each stored object carries the schema number of the process that wrote it. Fields that a newer
schema added are skipped on reading; because writing the object back would erase them, the
store refuses to update an object of a newer schema (`SchemaTooNewError`).
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from midonet.errors import DecodeError, InternalError
from midonet.model.references import KINDS, references_from

T = TypeVar("T", bound=msgspec.Struct)

SCHEMA_VERSION = 4
"""Schema of the objects that this process writes. Grows when a kind gains a field or value."""

_KIND_BY_NAME: dict[str, type[msgspec.Struct]] = {kind.__name__: kind for kind in KINDS}
_DECODERS: dict[type[msgspec.Struct], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in KINDS
}
_ENCODER = msgspec.json.Encoder()


def kind_name(kind: type[msgspec.Struct]) -> str:
    """Return the stored name of a kind. Raises InternalError for a type that is not stored."""
    if kind not in _DECODERS:
        raise InternalError(f"{kind.__name__} is not a stored kind")
    return kind.__name__


def kind_named(name: str) -> type[msgspec.Struct] | None:
    """Return the kind with a stored name; None for one of a newer schema."""
    return _KIND_BY_NAME.get(name)


def encode(value: msgspec.Struct) -> bytes:
    """Return the stored form of an object. Raises InternalError for a type that is not stored."""
    kind_name(type(value))
    return _ENCODER.encode(value)


def decode(kind: type[T], body: bytes) -> T:
    """Return the object of `kind` in `body`. Raises DecodeError for any malformed bytes."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise InternalError(f"{kind.__name__} is not a stored kind")
    try:
        value: T = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"stored {kind.__name__} is malformed: {error}") from error
    return value


def kinds() -> tuple[type[msgspec.Struct], ...]:
    """Return every kind that can be encoded."""
    return tuple(_DECODERS)


def target_kind_name(kind: type[msgspec.Struct], field: str) -> str:
    """Return the name of the kind that a reference points at.

    Raises InternalError when the model declares no such reference.
    """
    for reference in references_from(kind):
        if reference.field == field:
            return reference.target.__name__
    raise InternalError(f"{kind.__name__}.{field} is not a reference")
