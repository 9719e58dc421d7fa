"""Request bodies: bytes to typed bodies, with an error that names the property.

Numbers may come as strings. Whatever the bytes, the outcome is a body or a ValidationError.
"""

from __future__ import annotations

import re
from functools import cache

import msgspec

from midonet.errors import ValidationError, Violation
from midonet.model.schema import ResourceSchema

MAX_BODY_BYTES = 4 * 1024 * 1024
"""Largest request body, before and after decompression."""

_PLACE = re.compile(r"^(?P<rule>.*?)(?: - at `(?:key in )?\$\.?(?P<property>[^`]*)`)?$", re.DOTALL)


def decode_body(schema: ResourceSchema[msgspec.Struct], body: bytes) -> msgspec.Struct:
    """Decode the body of a resource. An empty body counts as `{}`. Raises ValidationError."""
    try:
        return _decoder(schema.body_type).decode(body or b"{}")
    except msgspec.ValidationError as error:
        raise ValidationError((_violation(str(error)),)) from None
    except msgspec.DecodeError as error:
        raise ValidationError((Violation("body", f"is not valid JSON: {error}"),)) from None
    except UnicodeDecodeError:
        raise ValidationError((Violation("body", "is not valid UTF-8"),)) from None
    except RecursionError:
        raise ValidationError((Violation("body", "is nested too deeply"),)) from None


@cache
def _decoder(body_type: type[msgspec.Struct]) -> msgspec.json.Decoder[msgspec.Struct]:
    return msgspec.json.Decoder(body_type, strict=False)


def _violation(message: str) -> Violation:
    """Split a decoder's message, `rule - at `$.property``, into property and rule."""
    match = _PLACE.match(message)
    assert match is not None
    rule = match["rule"].replace("`", "")
    return Violation(match["property"] or "body", rule[:1].lower() + rule[1:])
