"""The contract of `Datapath`: attaching and detaching ports."""

from __future__ import annotations

import pytest

from midonet.agent.datapath.protocol import PortAttachment, UpcallReason
from midonet.agent.flows.drop_reason import DropReason
from midonet.errors import DatapathError
from tests.contract.datapath_harness import DatapathHarness
from tests.contract.datapath_steps import (
    ABSENT,
    IN,
    OUT,
    THIRD,
    UDP_V4,
    expect_delivered,
    expect_drops,
    program_for,
    take_upcalls,
)


async def test_attached_ports_can_be_read_back(harness: DatapathHarness) -> None:
    assert set(harness.datapath.attached()) == {IN, OUT, THIRD}


async def test_attaching_again_changes_nothing(harness: DatapathHarness) -> None:
    harness.datapath.install([program_for(harness, UDP_V4)])
    before = dict(harness.datapath.attached())
    harness.datapath.attach(PortAttachment(IN, before[IN]))
    assert dict(harness.datapath.attached()) == before
    harness.send(IN, UDP_V4)
    await expect_delivered(harness, OUT, UDP_V4)


async def test_an_interface_belongs_to_one_port(harness: DatapathHarness) -> None:
    taken = harness.datapath.attached()[IN]
    with pytest.raises(DatapathError):
        harness.datapath.attach(PortAttachment(ABSENT, taken))
    assert ABSENT not in harness.datapath.attached()


async def test_a_detached_port_forgets_its_programs(harness: DatapathHarness) -> None:
    interface = harness.datapath.attached()[IN]
    harness.datapath.install([program_for(harness, UDP_V4)])
    harness.datapath.detach(IN)
    harness.datapath.detach(IN)
    harness.datapath.detach(ABSENT)
    assert IN not in harness.datapath.attached()
    assert list(harness.datapath.installed()) == []
    harness.datapath.attach(PortAttachment(IN, interface))
    harness.send(IN, UDP_V4)
    assert (await take_upcalls(harness.datapath, 1))[0].reason is UpcallReason.MISS
    assert harness.delivered(OUT) == []


async def test_a_program_to_a_detached_port_drops(harness: DatapathHarness) -> None:
    harness.datapath.install([program_for(harness, UDP_V4)])
    harness.datapath.detach(OUT)
    harness.send(IN, UDP_V4)
    await expect_drops(harness, IN, DropReason.PORT_NOT_ATTACHED)


async def test_uninstalling_twice_is_harmless(harness: DatapathHarness) -> None:
    harness.datapath.install([program_for(harness, UDP_V4)])
    await harness.datapath.uninstall()
    await harness.datapath.uninstall()
    assert dict(harness.datapath.attached()) == {}
    assert list(harness.datapath.installed()) == []
