"""What simulation asks of the connections that are known. Reads never wait."""

from __future__ import annotations

from typing import Protocol

from midonet.agent.flow_state.connection import Connection, ConnectionKey


class ConnectionReader(Protocol):
    """The connections as they are now."""

    def find(self, key: ConnectionKey, now_s: float) -> Connection | None:
        """Return the connection that has a key, None when there is none or it has expired.

        now_s: seconds on the clock that `simulate` is given.
        """
        ...

    def should_wait(self, key: ConnectionKey, now_s: float) -> bool:
        """Tell whether another host may know a key that is not here, and can still be asked."""
        ...


class _NoConnections:
    """A reader that knows of none, and nobody to ask."""

    def find(self, key: ConnectionKey, now_s: float) -> Connection | None:
        return None

    def should_wait(self, key: ConnectionKey, now_s: float) -> bool:
        return False


NO_CONNECTIONS: ConnectionReader = _NoConnections()


class Without:
    """The connections but for one, which is over."""

    def __init__(self, connections: ConnectionReader, gone: Connection) -> None:
        self._connections = connections
        self._gone = gone

    def find(self, key: ConnectionKey, now_s: float) -> Connection | None:
        """As of the reader; the one that is over is not there."""
        found = self._connections.find(key, now_s)
        return None if found is not None and found.is_same(self._gone) else found

    def should_wait(self, key: ConnectionKey, now_s: float) -> bool:
        """As of the reader: others may not know yet that it is over."""
        return not self._gone.has(key) and self._connections.should_wait(key, now_s)


class With:
    """The connections and one more, which is taken to be there."""

    def __init__(self, connections: ConnectionReader, assumed: Connection) -> None:
        self._connections = connections
        self._assumed = assumed

    def find(self, key: ConnectionKey, now_s: float) -> Connection | None:
        """As of the reader, which knows better; else the one that is assumed."""
        found = self._connections.find(key, now_s)
        return self._assumed if found is None and self._assumed.has(key) else found

    def should_wait(self, key: ConnectionKey, now_s: float) -> bool:
        """As of the reader."""
        return not self._assumed.has(key) and self._connections.should_wait(key, now_s)
