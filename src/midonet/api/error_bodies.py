"""Errors as the wire knows them: `Error-v1` bodies and statuses."""

from __future__ import annotations

from http import HTTPStatus

import msgspec

from midonet.errors import (
    ConflictError,
    MidoNetError,
    NotFoundError,
    UnavailableError,
    UserError,
    ValidationError,
)

ERROR_MEDIA_TYPE = "application/vnd.org.midonet.Error-v1+json"


class ViolationBody(msgspec.Struct, frozen=True):
    """One broken rule."""

    property: str
    message: str


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error. `violations` is there for validation errors only."""

    message: str
    code: int
    violations: list[ViolationBody] | None = None


class HttpError(MidoNetError):
    """An error that is about HTTP itself: method, media type, size, authentication."""

    def __init__(
        self, status: int, message: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message or HTTPStatus(status).phrase)
        self.status = status
        self.message = message or HTTPStatus(status).phrase
        self.headers = headers or {}


def status_of(error: MidoNetError) -> int:
    """Return the HTTP status of an error."""
    match error:
        case HttpError():
            return error.status
        case NotFoundError():
            return 404
        case UserError():
            return 400
        case ConflictError():
            return 409
        case UnavailableError():
            return 503
        case _:
            return 500


def encode_error(error: MidoNetError) -> bytes:
    """Return the body for an error."""
    violations = None
    if isinstance(error, ValidationError):
        violations = [ViolationBody(one.field, one.rule) for one in error.violations]
    elif isinstance(error, UserError) and error.field is not None:
        violations = [ViolationBody(error.field, error.message)]
    return msgspec.json.encode(ErrorBody(str(error), status_of(error), violations))
