"""Connections for tests of what handles them as values."""

from __future__ import annotations

from uuid import UUID

from hypothesis import strategies as st

from midonet.agent.flow_state.connection import (
    Binding,
    Connection,
    ConnectionKey,
    Endpoint,
    Side,
    TcpState,
)
from midonet.agent.flow_state.zone import Zone
from midonet.model.ids import PortId
from midonet.packets.addresses import IpVersion
from midonet.packets.five_tuple import FiveTuple

_ids = st.integers(1, 2**128 - 1).map(lambda value: UUID(int=value))
_ports = st.integers(0, 0xFFFF)
_versions = st.sampled_from(IpVersion)


@st.composite
def _tuples(draw: st.DrawFn) -> FiveTuple:
    version = draw(_versions)
    addresses = st.integers(0, 2**version.bits - 1)
    return FiveTuple(
        version,
        draw(st.integers(0, 255)),
        draw(addresses),
        draw(_ports),
        draw(addresses),
        draw(_ports),
    )


@st.composite
def _endpoints(draw: st.DrawFn) -> Endpoint:
    version = draw(_versions)
    return Endpoint(version, draw(st.integers(0, 2**version.bits - 1)), draw(_ports))


zones = st.builds(Zone, _ids, st.integers(0, 4094))
keys = st.builds(ConnectionKey, zones, _tuples())
bindings = st.builds(Binding, _ids, st.sampled_from(Side), _endpoints(), _endpoints())
connections = st.builds(
    Connection,
    forward=keys,
    returns=st.lists(keys, max_size=4).map(tuple),
    initiator=_ids.map(PortId),
    bindings=st.lists(bindings, max_size=3).map(tuple),
    tcp=st.sampled_from(TcpState),
    is_answered=st.booleans(),
)

UDP = FiveTuple(IpVersion.V4, 17, 0x0A000001, 4000, 0x0A000002, 53)


def udp_connection(number: int = 0) -> Connection:
    """Return an untranslated connection between two ports; each number is another one."""
    ends = UDP._replace(source_port=4000 + number)
    here, there = UUID(int=0xA), UUID(int=0xB)
    return Connection(
        ConnectionKey(Zone(here), ends),
        (ConnectionKey(Zone(there), ends.inverse()),),
        PortId(here),
    )
