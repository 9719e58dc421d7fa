"""Zones: where a five-tuple means something."""

from __future__ import annotations

from typing import NamedTuple

from midonet.model.ids import ObjectId


class Zone(NamedTuple):
    """The connections that share their tuples.

    scope: identity of a port, or of the one stateful port group that it is in. vlan: id of the
    outermost VLAN of the frame at that port, 0 for none. An identity is never used again, so a new
    port never inherits connections.
    """

    scope: ObjectId
    vlan: int = 0
