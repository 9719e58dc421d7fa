"""Debian 12's stock kernel has no TCX: the object loads there and forwards with clsact."""

from __future__ import annotations

import os

import pytest

from tests.qemu.machine import missing_tools, run_in_guest

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.privileged,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to read all of the guest's root"),
    pytest.mark.skipif(bool(missing_tools()), reason=f"missing: {', '.join(missing_tools())}"),
]

_CASES = " or ".join(
    (
        "a_packet_without_a_program_comes_up",
        "an_installed_program_forwards",
        "(encapsulates and 4-vxlan)",
        "(encapsulates and 6-gre)",
        # What is inside is of both IP versions, which kernels before 6.3 do not tell apart.
        "(delivered_by_its_key and 4-vxlan)",
        "(delivered_by_its_key and 6-gre)",
    )
)
"""Few: the verifier takes ten seconds a load where every instruction is emulated."""


def test_datapath_contract_holds_on_the_stock_kernel() -> None:
    command = (
        "uname -r && export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 && .venv/bin/python -m pytest -q"
        " -p pytest_asyncio.plugin -p pytest_timeout -p no:cacheprovider --color=no"
        f" -o timeout=0 tests/contract -k 'ebpf and ({_CASES})'"
    )
    outcome = run_in_guest(command, timeout_s=1200)
    assert outcome.status == 0, outcome.output[-8000:]
    assert "6.1." in outcome.output
    assert " passed" in outcome.output
    assert " skipped" not in outcome.output
