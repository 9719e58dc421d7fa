"""What the server answered instead of what was asked for."""

from __future__ import annotations

import msgspec

from midonet.errors import MidoNetError, Violation


class ApiError(MidoNetError):
    """An error reply. `violations` lists broken rules, for status 400."""

    def __init__(self, status: int, message: str, violations: tuple[Violation, ...] = ()) -> None:
        super().__init__(f"{message} (HTTP {status})")
        self.status = status
        self.message = message
        self.violations = violations


class _ViolationBody(msgspec.Struct):
    property: str = ""
    message: str = ""


class _ErrorBody(msgspec.Struct):
    message: str | None = None
    violations: list[_ViolationBody] = []


def read_error(status: int, reason: str, body: bytes) -> ApiError:
    """Return the error that a reply stands for, whatever its body."""
    try:
        parsed = msgspec.json.decode(body, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ApiError(status, reason)
    violations = tuple(Violation(each.property, each.message) for each in parsed.violations)
    return ApiError(status, parsed.message or reason, violations)
