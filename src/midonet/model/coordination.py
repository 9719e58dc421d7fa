"""Records by which processes share out keys, blocks and roles, and the cluster-wide settings.

They are objects, not state-table entries, because each is changed by compare-and-set on its
version, in one transaction with what depends on it.
"""

from __future__ import annotations

from uuid import UUID, uuid5

import msgspec

from midonet.model.ids import HostId, ObjectId

_NAMESPACE = UUID("6d69646f-6e65-5400-8000-636f6f726469")

CLUSTER_SETTINGS_ID: ObjectId = uuid5(_NAMESPACE, "cluster-settings")
"""Identifier of the one `ClusterSettings` object."""


class TunnelKeyUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who holds, or last held, a tunnel key of a host. Its existence makes the key unique there.

    id: derived from (host, key) by `tunnel_key_use_id`.
    holder_id: the port (or flood group) that the key names. Not a reference: the record outlives
        its holder, because the key stays in quarantine.
    released_at_s: Unix time (s) at which the key was given up; None while it is in use.
    """

    id: ObjectId
    host_id: HostId
    tunnel_key: int
    holder_id: ObjectId
    released_at_s: int | None = None


class Lease(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The right of `owner` to allocate from a block (of NAT ports, of addresses, ...).

    id: derived from the block's name by `lease_id`.
    epoch: grows by one each time the block changes hands.
    released_at_s: Unix time (s) at which the owner gave the block up or was declared dead;
        None while the lease holds.
    """

    id: ObjectId
    block: str
    owner: ObjectId
    epoch: int
    released_at_s: int | None = None


class Leadership(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who leads a role. `fencing_token` grows by one with each new leader and never repeats.

    id: derived from the role's name by `leadership_id`.
    leader: id of the leading process; None when the last one resigned.
    """

    id: ObjectId
    role: str
    leader: ObjectId | None
    fencing_token: int


MAC_AGEING_S = 300
"""Default time (s) after its last use until a bridge forgets a MAC: IEEE 802.1Q, table 8-6."""


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Values all hosts must agree on.

    hash_seed: 64 bits, random, set once and never changed.
    mac_ageing_s: time (s) until an unused MAC is forgotten, of bridges that say nothing else.
    """

    id: ObjectId
    hash_seed: int
    mac_ageing_s: int = MAC_AGEING_S


def tunnel_key_use_id(host_id: HostId, tunnel_key: int) -> ObjectId:
    """Return the identifier of the record of `tunnel_key` at `host_id`."""
    return uuid5(host_id, f"tunnel-key:{tunnel_key}")


def lease_id(block: str) -> ObjectId:
    """Return the identifier of the lease of `block`."""
    return uuid5(_NAMESPACE, f"lease:{block}")


def leadership_id(role: str) -> ObjectId:
    """Return the identifier of the leadership of `role`."""
    return uuid5(_NAMESPACE, f"leadership:{role}")
