"""Types of options that several processes have, each with its bounds."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from midonet.errors import UserError

UdpPort = Annotated[int, Meta(ge=1, le=65_535)]

_MAX_NAMES = 256


def check_printable(text: str) -> None:
    """Raise UserError when a text has line ends or other control characters."""
    if text and not text.isprintable():
        raise UserError(f"{text!r} has characters that cannot be printed")


def check_path(text: str) -> None:
    """Raise UserError when no file can have this path."""
    if "\0" in text:
        raise UserError(f"{text!r} is not a path")


def check_names(names: tuple[str, ...]) -> None:
    """Raise UserError when one of several names has characters that names cannot have."""
    for name in names:
        if not name.isprintable() or any(character.isspace() for character in name):
            raise UserError(f"{name!r} is not a name or origin")


PathText = Annotated[str, Meta(max_length=4096, extra={"check": check_path})]
"""A path of the file system (PATH_MAX bytes)."""

Names = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=300)], ...],
    Meta(max_length=_MAX_NAMES, extra={"check": check_names}),
]
"""Names or origins; each as long as a host name with scheme and port may be."""
