"""Who may call, decided by a pluggable provider. The default lets everyone in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Token:
    """What a login returns. `expires`: `EEE, dd-MM-yyyy HH:mm:ss UTC`, or None for never."""

    key: str
    expires: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """An authenticated caller."""

    user: str
    is_admin: bool


@dataclass(frozen=True, slots=True)
class Tenant:
    """A project as the provider knows it."""

    id: str
    name: str
    description: str | None = None
    is_enabled: bool = True


class AuthProvider(Protocol):
    """A source of identities. Its methods raise UnavailableError when it cannot be asked."""

    async def login(self, user: str, password: str, project: str | None) -> Token | None:
        """Return a new token, or None when the credentials are wrong."""
        ...

    async def validate(self, token: str | None) -> Identity | None:
        """Return who sent `token` (None: the header was absent), or None for nobody."""
        ...

    async def tenants(self) -> list[Tenant]:
        """Return all projects."""
        ...

    async def tenant(self, tenant_id: str) -> Tenant | None:
        """Return one project, or None."""
        ...


MOCK_TOKEN = "00000000"


class MockAuthProvider:
    """Takes any credentials and treats everyone as administrator."""

    async def login(self, user: str, password: str, project: str | None) -> Token | None:
        """Return the one token."""
        return Token(MOCK_TOKEN)

    async def validate(self, token: str | None) -> Identity | None:
        """Return the administrator, whatever the token."""
        return Identity("admin", is_admin=True)

    async def tenants(self) -> list[Tenant]:
        """Return one project, `admin`."""
        return [Tenant("admin", "admin", "The administrators' project")]

    async def tenant(self, tenant_id: str) -> Tenant | None:
        """Return a project of that name: every project exists."""
        return Tenant(tenant_id, tenant_id)
