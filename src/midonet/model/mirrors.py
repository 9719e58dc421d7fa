"""Mirrors: copies of packets for who watches the network."""

from __future__ import annotations

import msgspec

from midonet.model.chains import Condition
from midonet.model.ids import MirrorId, PortId


class Mirror(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A copy of each packet that meets one of the conditions leaves by a port.

    Which packets are looked at is said by the ports, bridges and routers that name the mirror.

    conditions: without any, nothing is copied; one without tests is met by every packet.
    """

    id: MirrorId
    to_port_id: PortId
    conditions: tuple[Condition, ...] = ()
