"""Quantising of masks."""

from __future__ import annotations

import pytest

from midonet.agent.flows.mask import EMPTY_MASK, FlowMask, quantise


@pytest.mark.parametrize(
    ("length", "step"), [(0, 0), (1, 8), (8, 8), (9, 16), (23, 24), (25, 32), (32, 32)]
)
def test_ipv4_steps(length: int, step: int) -> None:
    full = (1 << 32) - 1
    mask = FlowMask(0, 0, ip_src=full << (32 - length) & full)
    assert quantise(mask).ip_src == full << (32 - step) & full


@pytest.mark.parametrize(
    ("length", "step"), [(0, 0), (1, 32), (33, 48), (49, 56), (57, 64), (65, 96), (97, 128)]
)
def test_ipv6_steps(length: int, step: int) -> None:
    full = (1 << 128) - 1
    mask = FlowMask(0, 0, ip_dst=full << (128 - length) & full)
    assert quantise(mask).ip_dst == full << (128 - step) & full


def test_other_fields() -> None:
    mask = FlowMask(1, 2, 4, 0x1000, 1, 4, 1, 0, 0, 0x8000, 1, 0xFF00)
    full = (1 << 48) - 1
    assert quantise(mask) == FlowMask(
        full, full, 0xFFFF, 0x1FFF, 0xFF, 0xFF, 0xFF, 0, 0, 0xFF00, 0xFFFF, 0xFF00
    )
    assert quantise(FlowMask(0, 0, vlan_tci=0xE000)).vlan_tci == 0xFFFF
    assert quantise(EMPTY_MASK) == EMPTY_MASK


def test_what_is_no_prefix_becomes_the_whole_address() -> None:
    assert quantise(FlowMask(0, 0, ip_src=0x00FF0000)).ip_src == 0xFFFFFFFF
    assert quantise(FlowMask(0, 0, ip_src=5 << 100)).ip_src == (1 << 128) - 1
