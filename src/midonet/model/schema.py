"""One definition per resource: its representation, field rules, links and media types.

A representation is a frozen msgspec struct. Attribute names are the words of the code and,
where a field is stored, the attribute of the stored struct; the encoded names are the words of
the REST interface. `Annotated` carries what a type cannot say:

- `msgspec.Meta`: ranges and lengths, enforced while decoding;
- `Facts`: who may write the field, text format, link template.

The request body type is derived: only what a caller may write, everything nullable (a null
means the default), unknown and read-only properties skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints
from uuid import UUID

import msgspec

from midonet.errors import DecodeError, ValidationError, Violation
from midonet.model.references import Reference, references_from
from midonet.model.validation import TextFormat, broken

R = TypeVar("R", bound=msgspec.Struct)
VENDOR = "application/vnd.org.midonet."


class Access(Enum):
    """Who writes a field, and when."""

    WRITABLE = "writable"  # by POST and PUT
    CREATE_ONLY = "create only"  # by POST; PUT keeps what is stored
    READ_ONLY = "read only"  # by the server; ignored in a body
    LINK = "link"  # computed from other fields; ignored in a body
    UNSUPPORTED = "not supported"  # emitted with its default; another value is refused


@dataclass(frozen=True, slots=True)
class Facts:
    """Rules of a field beside its type.

    link: URI template below the API root; `{attribute}` of the representation is filled in,
        other braces stay. The link is null when such an attribute is None. An empty template:
        the field's own value is the path below the root.
    choices: the words that are taken, for a text that is checked with other fields.
    """

    access: Access = Access.WRITABLE
    is_required: bool = False
    link: str | None = None
    text_format: TextFormat | None = None
    choices: tuple[str, ...] = ()


REQUIRED = Facts(is_required=True)
CREATE_ONLY = Facts(access=Access.CREATE_ONLY)
READ_ONLY = Facts(access=Access.READ_ONLY)
UNSUPPORTED = Facts(access=Access.UNSUPPORTED)


def link_to(template: str) -> Facts:
    """Return the facts of a link field."""
    return Facts(access=Access.LINK, link=template)


def text(text_format: TextFormat) -> Facts:
    """Return the facts of a text field (or list of texts) with a format."""
    return Facts(text_format=text_format)


def one_of(*choices: str) -> Facts:
    """Return the facts of a text field that takes these words."""
    return Facts(choices=choices)


@dataclass(frozen=True, slots=True)
class FieldSchema:
    """One field of a representation.

    name: attribute. external: property in JSON. annotation: type with its msgspec constraints.
    """

    name: str
    external: str
    annotation: Any
    default: Any
    facts: Facts
    description: str

    @property
    def is_writable(self) -> bool:
        """Tell whether a request body may carry the field."""
        return self.facts.access in (Access.WRITABLE, Access.CREATE_ONLY, Access.UNSUPPORTED)


@dataclass(frozen=True, slots=True)
class MediaType:
    """Media types of a resource: one name, several versions, the preferred first.

    `application/json` stands for the preferred version.
    aliases: further names that stand for the same.
    """

    name: str
    versions: tuple[int, ...]
    aliases: tuple[str, ...] = ()

    @property
    def items(self) -> tuple[str, ...]:
        """Media types of one object, preferred first."""
        return self._types("")

    @property
    def collections(self) -> tuple[str, ...]:
        """Media types of a list of objects, preferred first."""
        return self._types("collection.")

    def _types(self, prefix: str) -> tuple[str, ...]:
        vendor = tuple(
            f"{VENDOR}{prefix}{name}-v{version}+json"
            for name in (self.name, *self.aliases)
            for version in self.versions
        )
        return (*vendor, "application/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSchema(Generic[R]):
    """Everything about a resource that does not depend on how it is served.

    title: the word in messages and headings.
    kind: stored type, or None for what is computed or kept in a state table.
    collection: segment under the API root, or None for a resource that is only nested.
    root_keys: keys of the application document for the collection and for the item template.
    parent_link: attribute of the parent's representation that leads to the collection, for a
        resource that is created and listed below a parent.
    """

    title: str
    representation: type[R]
    media: MediaType
    kind: type[msgspec.Struct] | None = None
    collection: str | None = None
    root_keys: tuple[str | None, str | None] = (None, None)
    parent_link: str | None = None
    to_model: Callable[[R, Any], Any] | None = None
    from_model: Callable[[Any], R] | None = None

    @property
    def fields(self) -> tuple[FieldSchema, ...]:
        """Fields in the order in which they are emitted."""
        return fields_of(self.representation)

    @property
    def body_type(self) -> type[msgspec.Struct]:
        """Type of a request body."""
        return body_type_of(self.representation)

    def stored(self, representation: R, current: Any) -> Any:
        """Return the object to store. `current` is None when it is being created.

        Raises ValidationError when the fields contradict each other.
        """
        if self.to_model is not None:
            return self.to_model(representation, current)
        assert self.kind is not None
        return copy_fields(representation, self.kind, current)

    def represented(self, value: msgspec.Struct) -> R:
        """Return the representation of a stored object, without links and runtime state."""
        if self.from_model is not None:
            return self.from_model(value)
        return represent(value, self.representation)


@cache
def fields_of(representation: type[msgspec.Struct]) -> tuple[FieldSchema, ...]:
    """Return the fields of a representation type, in order of declaration."""
    hints = get_type_hints(representation, include_extras=True)
    descriptions = _descriptions(representation)
    found = []
    for info in msgspec.structs.fields(representation):
        if info.default is not msgspec.NODEFAULT:
            default = info.default
        elif info.default_factory is not msgspec.NODEFAULT:
            default = info.default_factory()
        else:
            default = msgspec.NODEFAULT
        annotation, facts = _split(hints[info.name])
        found.append(
            FieldSchema(
                info.name,
                info.encode_name,
                annotation,
                default,
                facts,
                descriptions.get(info.name, ""),
            )
        )
    return tuple(found)


def _split(hint: Any) -> tuple[Any, Facts]:
    """Separate our facts from the annotation that msgspec reads."""
    if get_origin(hint) is not Annotated:
        return hint, Facts()
    inner, *extras = get_args(hint)
    merged = Facts()
    kept = []
    for extra in extras:
        if isinstance(extra, Facts):
            merged = Facts(
                access=extra.access if extra.access is not Access.WRITABLE else merged.access,
                is_required=extra.is_required or merged.is_required,
                link=merged.link if extra.link is None else extra.link,
                text_format=extra.text_format or merged.text_format,
                choices=extra.choices or merged.choices,
            )
        else:
            kept.append(extra)
    for extra in kept:
        inner = Annotated[inner, extra]
    return inner, merged


def nested_in(field: FieldSchema) -> type[msgspec.Struct] | None:
    """Return the representation that a list consists of, when its fields have facts of ours."""
    annotation = field.annotation
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is not tuple:
        return None
    item = get_args(annotation)[0]
    if not (isinstance(item, type) and issubclass(item, msgspec.Struct)):
        return None
    return item if any(each.facts != Facts() for each in fields_of(item)) else None


def _descriptions(representation: type[msgspec.Struct]) -> dict[str, str]:
    """Read `attribute: text` paragraphs of docstrings, those of base types first."""
    found: dict[str, str] = {}
    for base in reversed(representation.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            found |= _paragraphs(base)
    return found


def _paragraphs(representation: type[msgspec.Struct]) -> dict[str, str]:
    """Read the paragraphs of one docstring; indented lines continue one."""
    found: dict[str, str] = {}
    name = ""
    for line in (representation.__doc__ or "").splitlines()[1:]:
        head, colon, tail = line.strip().partition(": ")
        if colon and head in representation.__struct_fields__:
            name = head
            found[name] = tail
        elif name and line.startswith("        "):
            found[name] += f" {line.strip()}"
        else:
            name = ""
    return found


@cache
def body_type_of(representation: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Derive the request body type: writable fields, each nullable and None by default."""
    members: list[tuple[str, Any, Any]] = []
    for field in fields_of(representation):
        if field.is_writable:
            is_refused = field.facts.access is Access.UNSUPPORTED
            nested = nested_in(field)
            given = field.annotation if nested is None else _bodies(field, body_type_of(nested))
            annotation = Any if is_refused else given | None
            members.append(
                (field.name, annotation, msgspec.field(default=None, name=field.external))
            )
    return msgspec.defstruct(f"{representation.__name__}Body", members, kw_only=True)


def _bodies(field: FieldSchema, item: Any) -> Any:
    """Return the type of a list of request bodies, with the constraints of the field."""
    listed: Any = tuple[item, ...]
    for constraint in getattr(field.annotation, "__metadata__", ()):
        listed = Annotated[listed, constraint]
    return listed


def checked(representation: type[R], body: msgspec.Struct, object_id: UUID | None = None) -> R:
    """Return the representation a decoded `body` stands for, in canonical form.

    object_id: takes the place of the body's `id`, when the representation has one.
    Raises ValidationError listing each property that is missing, malformed or not supported.
    """
    values: dict[str, Any] = {}
    violations: list[Violation] = []
    for field in fields_of(representation):
        if not field.is_writable:
            continue
        given = getattr(body, field.name)
        if field.name == "id" and object_id is not None:
            given = object_id
        if given is None:
            if field.facts.is_required:
                violations.append(Violation(field.external, "may not be null"))
            continue
        if field.facts.access is Access.UNSUPPORTED:
            if not _is_default(given, field.default):
                violations.append(Violation(field.external, "is not supported"))
            continue
        if field.facts.text_format is not None:
            given = _canonical(field, given, violations)
        nested = nested_in(field)
        if nested is not None:
            given = _checked_items(field, nested, given, violations)
        values[field.name] = given
    if violations:
        raise ValidationError(violations)
    return representation(**values)


def _checked_items(
    field: FieldSchema, nested: type[msgspec.Struct], given: Any, violations: list[Violation]
) -> tuple[msgspec.Struct, ...]:
    """Return the items of a list, each checked; what is wrong is told with the item's index."""
    items = []
    for index, body in enumerate(given):
        try:
            items.append(checked(nested, body))
        except ValidationError as error:
            violations.extend(
                Violation(f"{field.external}[{index}].{each.field}", each.rule)
                for each in error.violations
            )
    return tuple(items)


def _is_default(given: object, default: object) -> bool:
    plain = list(default) if isinstance(default, tuple) else default
    return type(given) is type(plain) and given == plain


def _canonical(field: FieldSchema, given: Any, violations: list[Violation]) -> Any:
    """Return text (or each text of a list) in the canonical form of its format."""
    text_format = field.facts.text_format
    assert text_format is not None
    items = [given] if isinstance(given, str) else given
    canonical = []
    for item in items:
        try:
            canonical.append(text_format.canonical(item))
        except DecodeError:
            violations.append(broken(field.external, text_format.rule, item))
            continue
        rule = None if text_format.unusable is None else text_format.unusable(canonical[-1])
        if rule is not None:
            violations.append(broken(field.external, rule, item))
    return canonical[0] if isinstance(given, str) and canonical else type(given)(canonical)


def copy_fields(
    representation: msgspec.Struct, kind: type[msgspec.Struct], current: msgspec.Struct | None
) -> Any:
    """Build a stored object from the writable fields that both types have.

    What a caller may not write, and create-only fields on update, come from `current`.
    """
    values: dict[str, Any] = {}
    writable = {field.name: field.facts.access for field in fields_of(type(representation))}
    for name in kind.__struct_fields__:
        access = writable.get(name)
        if access is Access.WRITABLE or (access is Access.CREATE_ONLY and current is None):
            values[name] = getattr(representation, name)
        elif current is not None:
            values[name] = getattr(current, name)
    return kind(**values)


def represent(value: msgspec.Struct, representation: type[R]) -> R:
    """Build a representation from the attributes that both types have."""
    return representation(
        **{name: getattr(value, name) for name in _shared(type(value), representation)}
    )


@cache
def _shared(kind: type[msgspec.Struct], representation: type[msgspec.Struct]) -> tuple[str, ...]:
    stored = set(kind.__struct_fields__)
    return tuple(name for name in representation.__struct_fields__ if name in stored)


def referring_fields(kind: type[msgspec.Struct]) -> Mapping[str, Reference]:
    """Return the reference each attribute of a stored kind holds."""
    return {reference.field: reference for reference in references_from(kind)}
