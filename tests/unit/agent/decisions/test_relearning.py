"""What a packet would have taught is not lost when its program is judged again."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from midonet.agent.decisions.decisions import Decisions
from midonet.agent.decisions.upcalls import PacketLoop
from midonet.agent.flows.tags import device_tag
from midonet.agent.soft_state.replica import SoftStateReplica
from midonet.model.ids import PortId
from midonet.nsdb.store import StateEntry, StateTables, Table, TableChange
from midonet.packets.addresses import format_mac
from tests.unit.agent.decisions.test_decisions import BRIDGE, HERE, MAC_1, ME, THERE, Shell, frame


@pytest.fixture
async def shell() -> Shell:
    shell = await Shell().open()
    shell.show_bridge()
    await shell.send(frame())
    assert shell.decisions.soft_state.mac_port(BRIDGE, 0, MAC_1) == HERE
    return shell


async def come_up(shell: Shell, port_id: PortId = HERE) -> None:
    """Send a frame that no program may keep from coming up."""
    async with asyncio.timeout(5):
        await shell.send(frame(), port_id=port_id)


def place(shell: Shell) -> object:
    return shell.decisions.soft_state.mac_port(BRIDGE, 0, MAC_1)


async def test_station_that_moves_away_and_back_is_followed_at_once(shell: Shell) -> None:
    for port_id in (THERE, HERE, THERE, HERE, THERE):
        await come_up(shell, port_id)
        assert place(shell) == port_id


async def test_station_that_another_host_claimed_is_followed_when_it_is_back(
    shell: Shell,
) -> None:
    table = Table(StateTables.mac(BRIDGE, 0))
    key = format_mac(MAC_1)
    theirs = StateEntry(table.table, key, str(THERE), THERE, 1, 9, is_persistent=False)
    shell.decisions.soft_state.written(shell.written[-1])
    shell.decisions.facts_changed(
        shell.decisions.soft_state.apply(TableChange(table, ((key, theirs),)))
    )
    shell.work()
    assert place(shell) == THERE
    await come_up(shell)
    assert place(shell) == HERE


async def test_program_whose_source_was_forgotten_goes_when_it_is_judged_again(
    shell: Shell,
) -> None:
    shell.decisions.facts_changed(shell.decisions.soft_state.forget_mac(BRIDGE, 0, MAC_1))
    shell.work()
    await come_up(shell)
    assert place(shell) == HERE


async def test_program_that_would_teach_nothing_new_stays(shell: Shell) -> None:
    shell.decisions.programs.change(frozenset({device_tag(BRIDGE)}))
    shell.work()
    assert len(shell.decisions.programs.table) == 1
    assert shell.decisions.counters.rejudged == 1


async def test_program_of_before_a_restart_waits_for_the_tables(shell: Shell) -> None:
    [held] = shell.datapath.installed()
    again = Shell()
    again.datapath = shell.datapath
    again.decisions = Decisions(
        ME, shell.datapath, again.clock, SoftStateReplica(ME, again.clock, lambda _: None), list
    )
    again.loop = PacketLoop(shell.datapath, again.decisions, again.clock, lambda: None)
    again.decisions.view = shell.decisions.view
    adopted = replace(held, program=replace(held.program, tags=frozenset(), learned=()))
    shell.datapath.install([adopted])
    assert again.decisions.programs.adopt() == 1
    again.work()
    assert [one.program_id for one in shell.datapath.installed()] == [held.program_id]
    # The tables come, and say that another host has the MAC now.
    key = format_mac(MAC_1)
    table = Table(StateTables.mac(BRIDGE, 0))
    theirs = StateEntry(table.table, key, str(THERE), THERE, 1, 9, is_persistent=False)
    again.decisions.facts_changed(
        again.decisions.soft_state.apply(TableChange(table, ((key, theirs),)))
    )
    again.work()
    assert list(shell.datapath.installed()) == []
