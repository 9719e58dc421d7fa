"""What each option does, as the docstring of its settings struct says."""

from __future__ import annotations

import inspect
import re

import msgspec


def effects(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Return what each option does, from `name: text` in the struct's docstring.

    An option whose text is missing there is missing here.
    """
    text = " ".join(inspect.cleandoc(kind.__doc__ or "").split("\n\n", 1)[-1].split())
    names = "|".join(field.name for field in msgspec.structs.fields(kind))
    pieces = re.split(rf"(?:^|(?<=[.] ))({names}): ", text)
    return {name: what.strip() for name, what in zip(pieces[1::2], pieces[2::2], strict=True)}
