"""The Store protocol: exactly what ZooKeeper can keep, for every implementation.

One contract suite (`tests/contract/test_store_*.py`) runs against all implementations.

- Objects have a version that starts at 0 and grows by one with each update.
- References are index entries kept by the store from the reference table of the model
  (`midonet.model.references`), never lists inside the objects referred to. An object to which
  another still refers cannot be deleted (`ReferencedError`): deletion rules are carried out by
  `midonet.nsdb.deletion` on top, as transactions.
- Creating or updating an object whose reference points at nothing is a `NotFoundError`.
- Watches yield the latest value per object, monotonic per object. They may coalesce, and
  promise no order between objects. After a reconnect they yield a diff.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import msgspec

from midonet.model.devices import Bridge, Router
from midonet.model.groups import IpAddressGroup
from midonet.model.ids import ObjectId
from midonet.model.load_balancer import Pool

T = TypeVar("T", bound=msgspec.Struct)

MAX_OPERATIONS = 500
"""Most operations in one transaction, in every store."""

MAX_TRANSACTION_BYTES = 512 * 1024
"""Most encoded bytes in one transaction, in every store."""


@dataclass(frozen=True, slots=True)
class Versioned(Generic[T]):
    """A stored object with its version."""

    value: T
    version: int


@dataclass(frozen=True, slots=True)
class Create:
    """Create `value`; ConflictError when its id exists. Its type tells the kind."""

    value: msgspec.Struct


@dataclass(frozen=True, slots=True)
class Update:
    """Replace the object with `value`'s id; `version` must be current (None: any)."""

    value: msgspec.Struct
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete an object; `version` must be current (None: any)."""

    kind: type[msgspec.Struct]
    object_id: ObjectId
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Check:
    """Require that an object exists, at `version` (None: any)."""

    kind: type[msgspec.Struct]
    object_id: ObjectId
    version: int | None = None


@dataclass(frozen=True, slots=True)
class PutState:
    """Write a state-table entry: (table, key) of this owner at this epoch becomes `value`.

    is_persistent: survives the owner's session (API-seeded entries, leases). Otherwise the
        entry goes when the session of `owner` ends, and writing it without a live session is a
        ConflictError.
    epoch: a write with a lower epoch than that of the owner's stored entry is a ConflictError
        (a late write of an earlier incarnation).
    """

    table: str
    key: str
    value: str
    owner: ObjectId
    epoch: int = 0
    is_persistent: bool = False


@dataclass(frozen=True, slots=True)
class DropState:
    """Remove this owner's entry of (table, key), when it has `value` (None: any value)."""

    table: str
    key: str
    owner: ObjectId
    value: str | None = None


Operation = Create | Update | Delete | Check | PutState | DropState


@dataclass(frozen=True, slots=True)
class StateEntry:
    """One entry of a state table. `sequence` grows with each write to the table.

    For one key a learnt (not persistent) entry beats a persistent one; among entries of equal
    persistence the highest `sequence` wins.
    """

    table: str
    key: str
    value: str
    owner: ObjectId
    epoch: int
    sequence: int
    is_persistent: bool


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """Watch one object."""

    kind: type[msgspec.Struct]
    object_id: ObjectId


@dataclass(frozen=True, slots=True)
class Referrers:
    """Watch the ids of the objects of `kind` whose reference `field` is `target_id`."""

    kind: type[msgspec.Struct]
    field: str
    target_id: ObjectId


@dataclass(frozen=True, slots=True)
class AllOf:
    """Watch the ids of all objects of a kind (hosts, tunnel zones: small kinds only)."""

    kind: type[msgspec.Struct]


@dataclass(frozen=True, slots=True)
class Table:
    """Watch a state table."""

    table: str


WatchKey = ObjectKey | Referrers | AllOf | Table


@dataclass(frozen=True, slots=True)
class ObjectChange:
    """Latest state of a watched object; `current` is None when it does not exist."""

    key: ObjectKey
    current: Versioned[msgspec.Struct] | None


@dataclass(frozen=True, slots=True)
class IdsChange:
    """Latest ids for a `Referrers` or `AllOf` watch."""

    key: Referrers | AllOf
    ids: frozenset[ObjectId]


@dataclass(frozen=True, slots=True)
class TableChange:
    """Latest winning entries of the changed keys of a table; None for a key that is gone."""

    key: Table
    entries: tuple[tuple[str, StateEntry | None], ...]


Change = ObjectChange | IdsChange | TableChange

Follow = Callable[[Change], Iterable[WatchKey]]
"""Pure, and called in any thread: the keys that a consumer will watch once it has seen a change."""


class Watcher(Protocol):
    """A changing set of watches with one stream of changes. Close it when done."""

    def add(self, keys: Sequence[WatchKey]) -> None:
        """Start watching. The first change for a key carries its present state, also when
        that is absence or an empty set."""
        ...

    def remove(self, keys: Sequence[WatchKey]) -> None:
        """Stop watching. Changes that are already queued for the keys are discarded."""
        ...

    async def changes(self) -> list[Change]:
        """Wait for at least one change and return all that is pending, at most one a key
        (one a key of a table)."""
        ...

    async def close(self) -> None:
        """Stop all watches and wake a waiting `changes` with an empty list."""
        ...


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A live session. `owner` is a host id (or the id of a control process)."""

    owner: ObjectId
    secret: str
    timeout_s: float


class Session(Protocol):
    """Liveness of one owner. Ephemeral state goes when it ends or expires."""

    @property
    def info(self) -> SessionInfo:
        """Return identity and secret; a restarted process resumes with them."""
        ...

    async def keep_alive(self) -> bool:
        """Extend the session; False when it has expired and must be opened anew."""
        ...

    async def close(self) -> None:
        """End the session at once."""
        ...


class Store(Protocol):
    """A network state database."""

    async def open(self) -> None:
        """Connect; create or migrate the schema. Raises SchemaTooNewError, UnavailableError,
        DecodeError (the file is not a MidoNet store or is corrupt)."""
        ...

    async def close(self) -> None:
        """Disconnect; wake all watchers."""
        ...

    async def wait_lost(self) -> None:
        """Wait until it turns out that what was opened is gone for good; raise StoreLostError.

        Everything else raises it too from then on. Never returns; cancel it to stop.
        """
        ...

    async def get(self, kind: type[T], object_id: ObjectId) -> Versioned[T] | None:
        """Return an object, or None. Sees this client's own writes."""
        ...

    async def get_many(
        self, kind: type[T], object_ids: Sequence[ObjectId]
    ) -> dict[ObjectId, Versioned[T]]:
        """Return those that exist, in one round trip."""
        ...

    async def list_all(self, kind: type[T]) -> list[Versioned[T]]:
        """Return all objects of a kind, in ascending order of id."""
        ...

    async def list_ids(self, kind: type[msgspec.Struct]) -> list[ObjectId]:
        """Return the ids of all objects of a kind, ascending."""
        ...

    async def referrers(
        self, kind: type[msgspec.Struct], field: str, target_id: ObjectId
    ) -> list[ObjectId]:
        """Return ids of objects of `kind` whose reference `field` is (or, for tuple fields,
        contains) `target_id`, ascending."""
        ...

    async def referrers_many(
        self, kind: type[msgspec.Struct], field: str, target_ids: Sequence[ObjectId]
    ) -> dict[ObjectId, list[ObjectId]]:
        """Return `referrers` of several targets in one round trip; those without are missing."""
        ...

    async def transact(self, operations: Sequence[Operation]) -> int:
        """Apply all or nothing; return the store's revision after it.

        Raises MovedError (a version moved), ConflictError (an id exists), ReferencedError,
        NotFoundError (an object to update, delete, check or refer to is absent), UserError (over
        MAX_OPERATIONS or MAX_TRANSACTION_BYTES), UnavailableError.
        """
        ...

    def watcher(self, follow: Follow | None = None) -> Watcher:
        """Return a new watcher that watches nothing yet.

        follow: lets one round trip read, behind each change, what the consumer will ask for
            next. It changes how soon answers come, never which: a key is reported after `add`.
        """
        ...

    async def table(self, table: str) -> list[StateEntry]:
        """Return the winning entry of each key of a state table."""
        ...

    async def entries(self, table: str, key: str | None = None) -> list[StateEntry]:
        """Return all entries, losing ones included, of a table (or of one key)."""
        ...

    async def open_session(
        self, owner: ObjectId, *, timeout_s: float = 30.0, secret: str | None = None
    ) -> Session:
        """Open a session, or resume it when `secret` is that of the live one.

        Raises ConflictError when `owner` has a live session with another secret.
        """
        ...

    async def live_sessions(self) -> frozenset[ObjectId]:
        """Return owners whose session is live."""
        ...

    async def sequence(self, name: str) -> int:
        """Return the next value of a named counter, atomically; the first is 1."""
        ...


class StateTables:
    """Names of state tables. A name is `kind/owner[/argument]`.

    The tables of a bridge, router, pool or group go with it, entries of all owners included.
    """

    @staticmethod
    def of_object(kind: type[msgspec.Struct], object_id: ObjectId) -> tuple[str, ...]:
        """Return the names, each the table itself or what its arguments follow after `/`, of
        the tables that go when an object is deleted."""
        prefixes = {
            Bridge: ("mac", "bridge_arp"),
            Router: ("router_arp",),
            Pool: ("member_health",),
            IpAddressGroup: ("ip_address_group",),
        }
        return tuple(f"{prefix}/{object_id}" for prefix in prefixes.get(kind, ()))

    @staticmethod
    def mac(bridge_id: ObjectId, vlan: int = 0) -> str:
        """MAC text to port id, of one bridge and VLAN (0: untagged)."""
        return f"mac/{bridge_id}/{vlan}"

    @staticmethod
    def mac_vlans(bridge_id: ObjectId) -> str:
        """VLAN number to nothing: the VLANs of one bridge that have or had MAC entries."""
        return f"mac_vlans/{bridge_id}"

    @staticmethod
    def bridge_arp(bridge_id: ObjectId) -> str:
        """IP text to MAC text, of one bridge."""
        return f"bridge_arp/{bridge_id}"

    @staticmethod
    def router_arp(router_id: ObjectId) -> str:
        """IP text to neighbour record (JSON), of one router."""
        return f"router_arp/{router_id}"

    @staticmethod
    def member_health(pool_id: ObjectId) -> str:
        """Member id to `midonet.model.load_balancer.MemberHealth`, of one pool. A member that
        has no entry is active."""
        return f"member_health/{pool_id}"

    @staticmethod
    def ip_address_group(group_id: ObjectId) -> str:
        """Prefix text, network and length, to nothing: the members of one group."""
        return f"ip_address_group/{group_id}"

    @staticmethod
    def sessions() -> str:
        """Owner id to the empty text, for each live session. Kept by the store itself."""
        return "sessions"

    @staticmethod
    def host_state() -> str:
        """Host id to host state (JSON)."""
        return "host_state"
