"""Request bodies: bytes to typed bodies, with an error that names the property.

Numbers may come as strings. Whatever the bytes, the outcome is a body or a ValidationError.
"""

from __future__ import annotations

import re
import zlib
from functools import cache

import msgspec

from midonet.api.error_bodies import HttpError
from midonet.errors import ValidationError, Violation
from midonet.model.schema import ResourceSchema
from midonet.model.validation import broken

MAX_BODY_BYTES = 4 * 1024 * 1024
"""Largest request body, before and after decompression."""

_MAX_GZIP_MEMBERS = 16
_raw = msgspec.json.Decoder()
_PLACE = re.compile(r"^(?P<rule>.*?)(?: - at `(?:key in )?\$\.?(?P<property>[^`]*)`)?$", re.DOTALL)


def decode_body(schema: ResourceSchema[msgspec.Struct], body: bytes) -> msgspec.Struct:
    """Decode the body of a resource. Raises ValidationError, for an empty body too: in a PUT
    it would reset every field."""
    if not body:
        raise ValidationError((Violation("body", "must not be empty"),))
    try:
        return _decoder(schema.body_type).decode(body)
    except msgspec.ValidationError as error:
        raise ValidationError((_violation(str(error), body),)) from None
    except msgspec.DecodeError as error:
        raise ValidationError((Violation("body", f"is not valid JSON: {error}"),)) from None
    except UnicodeDecodeError:
        raise ValidationError((Violation("body", "is not valid UTF-8"),)) from None
    except RecursionError:
        raise ValidationError((Violation("body", "is nested too deeply"),)) from None


def gunzip(body: bytes) -> bytes:
    """Decompress a body. Raises HttpError: 413 over MAX_BODY_BYTES, 400 for what is not gzip, is
    cut short or is followed by something else (RFC 1952 section 2.2 allows several members)."""
    plain = bytearray()
    for _ in range(_MAX_GZIP_MEMBERS):
        decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            plain += decompressor.decompress(body, MAX_BODY_BYTES + 1 - len(plain))
        except zlib.error as error:
            raise HttpError(400, f"The body is not valid gzip: {error}") from None
        if len(plain) > MAX_BODY_BYTES or decompressor.unconsumed_tail:
            raise HttpError(413)
        if not decompressor.eof:
            raise HttpError(400, "The body is not valid gzip: it is cut short.")
        body = decompressor.unused_data
        if not body:
            return bytes(plain)
    raise HttpError(400, f"The body has more than {_MAX_GZIP_MEMBERS} gzip members.")


@cache
def _decoder(body_type: type[msgspec.Struct]) -> msgspec.json.Decoder[msgspec.Struct]:
    return msgspec.json.Decoder(body_type, strict=False)


def _violation(message: str, body: bytes) -> Violation:
    """Split a decoder's message, `rule - at `$.property``, into property and rule."""
    match = _PLACE.match(message)
    assert match is not None
    rule = match["rule"].replace("`", "")
    rule = rule[:1].lower() + rule[1:]
    place = match["property"] or ""
    value = _value_at(place, body)
    if isinstance(value, str | int | float):
        return broken(place, rule, value)
    return Violation(place or "body", rule)


def _value_at(place: str, body: bytes) -> object:
    """Return the value at `name.name` of a document; None when it is deeper or not there, or
    when what follows it in the document is malformed."""
    try:
        value = _raw.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    for name in place.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value
