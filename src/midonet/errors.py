"""The one error tree of MidoNet. First level: who must act.

    MidoNetError
    +-- UserError            the request is wrong; the caller corrects it
    |   +-- NotFoundError    an object named in the request does not exist
    |   +-- ValidationError  properties of the request break their rules
    +-- ConflictError        the state moved or forbids it; retry on new state
    |   +-- MovedError       an object changed since it was read
    |   +-- ReferencedError  an object cannot go while others refer to it
    |   +-- NoSessionError   an entry that ends with a session has none to live by
    |   +-- RevisionTooOldError  a watch asked for history that is gone
    +-- UnavailableError     something outside is away; wait and retry
    |   +-- SchemaTooNewError    the store was written by a newer MidoNet
    |   +-- StoreLostError       the store that was opened is gone; start again
    +-- DecodeError          bytes from a peer or a store are malformed
    +-- DatapathError        the kernel refused an operation
    +-- InternalError        our own bug

Dropping a packet is not an error (see `midonet.agent.flows.drop_reason`), and not knowing
yet is not an error (see `Await` in `midonet.agent.simulation.result`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class MidoNetError(Exception):
    """Base of every error this package raises on purpose."""


class UserError(MidoNetError):
    """The request is wrong. `field` names the offending property when there is one."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class NotFoundError(UserError):
    """There is no `kind` with the identifier `object_id`."""

    def __init__(self, kind: str, object_id: object) -> None:
        super().__init__(f"There is no {kind} with ID {object_id}.")
        self.kind = kind
        self.object_id = object_id


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule. `field` is the property as the caller wrote it."""

    field: str
    rule: str


class ValidationError(UserError):
    """Properties of the request break their rules; every one that was found is listed."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        listed = "; ".join(f"{violation.field}: {violation.rule}" for violation in violations)
        super().__init__(
            f"Validation error(s) found: {listed}",
            field=violations[0].field if violations else None,
        )
        self.violations = tuple(violations)


class ConflictError(MidoNetError):
    """The state changed under the caller, or forbids the operation."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class MovedError(ConflictError):
    """The `kind` with the identifier `object_id` is at another version than the caller's."""

    def __init__(self, kind: str, object_id: object, version: int, expected: int) -> None:
        super().__init__(f"{kind} {object_id} is at version {version}, not {expected}.")
        self.kind = kind
        self.object_id = object_id


class ReferencedError(ConflictError):
    """An object cannot be deleted while `referrer` still refers to it."""


class NoSessionError(ConflictError):
    """A state entry that ends with its owner's session, whose owner has no live session."""


class RevisionTooOldError(ConflictError):
    """A watch asked to resume from a revision whose history is gone; read everything again."""


class UnavailableError(MidoNetError):
    """Something this process depends on is away."""


class SchemaTooNewError(UnavailableError):
    """The store's schema is newer than this process understands."""


class StoreLostError(UnavailableError):
    """The store that this process opened is not there any more, and will not come back to it."""


class DecodeError(MidoNetError):
    """Bytes received from a peer or read from a store are malformed."""


class DatapathError(MidoNetError):
    """The kernel refused an operation. `errno` is 0 when there is no system error number."""

    def __init__(self, message: str, *, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


class InternalError(MidoNetError):
    """A state that this package's own invariants exclude."""
