"""Links: URI templates of representations, filled in under the caller's base URI.

A link to something that this server does not serve is null, so that clients which follow it are
told there is nothing instead of finding out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar, get_args, get_origin
from urllib.parse import quote
from uuid import UUID

import msgspec

from midonet.model.schema import fields_of

R = TypeVar("R", bound=msgspec.Struct)
_PARAMETER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class _Link:
    """A link field: text with a `{}` for each attribute in `attributes`."""

    field: str
    text: str
    attributes: tuple[str, ...]


class Links:
    """Fills in the links of representations. `paths`: templates of the paths served."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._served = frozenset(_PARAMETER.sub("{}", path) for path in paths)
        self._compiled: dict[type[msgspec.Struct], tuple[_Link, ...]] = {}
        self._nested: dict[type[msgspec.Struct], tuple[str, ...]] = {}

    def fill(self, representation: R, base: str) -> R:
        """Return the representation with absolute links."""
        kind = type(representation)
        compiled = self._compiled.get(kind)
        if compiled is None:
            compiled = self._compiled[kind] = tuple(self._compile(kind))
            self._nested[kind] = tuple(_nested_fields(kind))
        values: dict[str, object] = {
            name: tuple(self.fill(item, base) for item in getattr(representation, name))
            for name in self._nested[kind]
        }
        for one in compiled:
            if not one.text:
                path = getattr(representation, one.field)
                values[one.field] = None if path is None else f"{base}{path}"
                continue
            filled = [getattr(representation, name) for name in one.attributes]
            if None in filled:
                continue
            values[one.field] = base + one.text.format(*map(_quoted, filled))
        return msgspec.structs.replace(representation, **values)

    def _compile(self, kind: type[msgspec.Struct]) -> Iterable[_Link]:
        for field in fields_of(kind):
            template = field.facts.link
            if template is None:
                continue
            if template and not self._is_served(template):
                continue
            attributes = []
            text = ""
            position = 0
            for match in _PARAMETER.finditer(template):
                text += template[position : match.start()]
                if match[1] in kind.__struct_fields__:
                    attributes.append(match[1])
                    text += "{}"
                else:
                    text += f"{{{{{match[1]}}}}}"
                position = match.end()
            yield _Link(field.name, text + template[position:], tuple(attributes))

    def _is_served(self, template: str) -> bool:
        path = template.partition("?")[0]
        # `{macAddress}_{portId}` is one segment of a served path.
        normal = re.sub(r"\{\}_\{\}", "{}", _PARAMETER.sub("{}", path))
        return normal in self._served


def _quoted(value: object) -> str:
    # An identifier needs no quoting, and lists have many.
    return str(value) if isinstance(value, UUID) else quote(str(value), safe=":")


def _nested_fields(kind: type[msgspec.Struct]) -> Iterable[str]:
    """Yield fields that hold a tuple of representations."""
    for field in fields_of(kind):
        arguments = get_args(field.annotation)
        if (
            get_origin(field.annotation) is tuple
            and isinstance(arguments[0], type)
            and issubclass(arguments[0], msgspec.Struct)
        ):
            yield field.name
