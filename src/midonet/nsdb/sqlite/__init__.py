"""The embedded store: one SQLite file that all processes of one machine share."""

from midonet.nsdb.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
