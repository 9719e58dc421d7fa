"""The option that every process with a network state database has."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta


def check_store_url(url: str) -> None:
    """Raise UserError when a URL names no store that this build has."""
    # Commands that read settings without a store need not load one.
    from midonet.nsdb.url import open_store

    open_store(url)


StoreUrl = Annotated[str, Meta(min_length=1, max_length=4200, extra={"check": check_store_url})]
