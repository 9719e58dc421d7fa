from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from midonet.agent.decisions.synthesis import synthesise_frame
from midonet.packets.flowkey import VLAN_PRESENT, FlowKey
from midonet.packets.frame import parse_frame

_MAC = st.integers(0, (1 << 48) - 1)
_V4 = st.integers(0, (1 << 32) - 1)
_V6 = st.integers(0, (1 << 128) - 1).filter(lambda value: value >> 32 != 0xFFFF)
_PORT = st.integers(0, 0xFFFF)
_BYTE = st.integers(0, 0xFF)
_TCI = st.one_of(st.just(0), st.integers(0, 0xFFFF).map(lambda tci: tci | VLAN_PRESENT | 1))


@st.composite
def keys(draw: st.DrawFn) -> FlowKey:
    eth_type = draw(st.sampled_from([0, 0x0800, 0x86DD, 0x0806, 0x88CC]))
    link = FlowKey(draw(_MAC), draw(_MAC), eth_type, draw(_TCI))
    if eth_type == 0x0806:
        return link._replace(ip_proto=draw(_BYTE), ip_src=draw(_V4), ip_dst=draw(_V4))
    if eth_type not in (0x0800, 0x86DD):
        return link
    address = _V4 if eth_type == 0x0800 else _V6
    icmp = 1 if eth_type == 0x0800 else 58
    protocol = draw(st.sampled_from([6, 17, 132, icmp, 47, 50]))
    fragment = draw(st.sampled_from([0, 1, 2]))
    numbers = (0, 0)
    if fragment != 2 and protocol in (6, 17, 132):
        numbers = (draw(_PORT), draw(_PORT))
    elif fragment != 2 and protocol == icmp:
        numbers = (draw(_BYTE), draw(_BYTE))
    return link._replace(
        ip_proto=protocol,
        ip_tos=draw(_BYTE),
        ip_frag=fragment,
        ip_src=draw(address),
        ip_dst=draw(address),
        l4_src=numbers[0],
        l4_dst=numbers[1],
    )


@given(keys())
def test_frame_of_a_key_has_that_key(key: FlowKey) -> None:
    assert parse_frame(synthesise_frame(key)).key == key
