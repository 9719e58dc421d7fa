"""The Python mirror of the kernel ABI equals the types of the built object."""

from __future__ import annotations

import re
from enum import IntEnum, IntFlag
from pathlib import Path

import pytest

from midonet.agent.datapath.ebpf import abi
from midonet.agent.datapath.ebpf.loader import OBJECT_PATH
from midonet.agent.datapath.protocol import (
    MASKS_PER_PORT,
    STATE_FRAME_BYTES,
    STATE_KEY,
    UpcallReason,
)
from midonet.agent.flows.drop_reason import DropReason
from tests.bpf.btf import Btf

HEADER = Path(__file__).parents[2] / "bpf" / "include" / "midonet_abi.h"


@pytest.fixture(scope="module")
def btf() -> Btf:
    return Btf(OBJECT_PATH)


@pytest.mark.parametrize("layout", abi.KERNEL_LAYOUTS, ids=lambda layout: layout.name)
def test_layout_has_the_fields_of_the_kernel_structure(btf: Btf, layout: abi.Layout) -> None:
    size, fields = btf.struct_fields(layout.name)
    assert layout.offsets == fields
    assert layout.size == size


def test_every_structure_of_the_header_has_a_mirror() -> None:
    declared = re.findall(r"^struct (midonet_\w+) {", HEADER.read_text(), re.MULTILINE)
    mirrored = [layout.name for layout in abi.KERNEL_LAYOUTS]
    assert sorted(declared) == sorted(mirrored)


def header_enum(name: str, prefix: str) -> dict[str, int]:
    """Return the members of an enumeration of the header, without its prefix."""
    body = re.search(rf"enum {name} {{(.*?)}};", HEADER.read_text(), re.DOTALL)
    assert body is not None
    text = re.sub(r"/\*.*?\*/", "", body[1], flags=re.DOTALL)
    return {
        member: int(eval(value, {}))
        for member, value in re.findall(rf"{prefix}(\w+) = ([^,]+),", text)
    }


@pytest.mark.parametrize(
    ("name", "prefix", "mirror"),
    [
        ("midonet_drop_reason", "MIDONET_DROP_", DropReason),
        ("midonet_upcall_reason", "MIDONET_UPCALL_", UpcallReason),
        ("midonet_rewrite_field", "MIDONET_REWRITE_", abi.RewriteField),
        ("midonet_output_kind", "MIDONET_OUTPUT_", abi.OutputKind),
        ("midonet_program_flag", "MIDONET_PROGRAM_", abi.ProgramFlag),
        ("midonet_port_flag", "MIDONET_PORT_", abi.PortFlag),
        ("midonet_peer_role", "MIDONET_PEER_", abi.PeerRole),
        ("midonet_output_flag", "MIDONET_OUTPUT_", abi.OutputFlag),
        ("midonet_config_flag", "MIDONET_CONFIG_", abi.ConfigFlag),
    ],
)
def test_enumeration_has_the_numbers_of_the_header(
    name: str, prefix: str, mirror: type[IntEnum] | type[IntFlag]
) -> None:
    assert header_enum(name, prefix) == {member.name: member.value for member in mirror}


def test_limits_equal_those_of_the_header() -> None:
    limits = header_enum("midonet_limits", "MIDONET_")
    assert limits["ABI_VERSION"] == abi.ABI_VERSION
    assert limits["MASKS_PER_PORT"] == MASKS_PER_PORT
    assert limits["OUTPUTS_MAX"] == abi.OUTPUTS_MAX
    assert limits["UPCALL_BYTES"] == abi.UPCALL_BYTES == STATE_FRAME_BYTES
    assert limits["STATE_KEY"] == STATE_KEY
    assert limits["DROP_REASONS"] == abi.DROP_REASONS > max(DropReason)
    assert limits["OVERLAY_SLOT"] == abi.OVERLAY_SLOT
    assert limits["TUNNELS_MAX"] == abi.TUNNELS_MAX


def test_swapped_fields_are_noticed(btf: Btf) -> None:
    name, *fields = "midonet_interface", ("incarnation", "I"), ("slot", "I")
    assert abi.Layout(name, *fields).offsets != btf.struct_fields(name)[1]
