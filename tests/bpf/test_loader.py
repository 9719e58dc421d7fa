"""What is said when the kernel does not take the object."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from midonet.agent.datapath.ebpf.loader import LoadedObject, load_object
from midonet.agent.datapath.ebpf.syscalls import mount_bpffs, pin, unmount
from midonet.errors import DatapathError

REFUSED_PATH = Path(__file__).with_name("refused.bpf.o")
SMALL_RING = {"upcalls": 1 << 16}


@pytest.fixture
def pins(tmp_path: Path) -> Iterator[Path]:
    mount_bpffs(str(tmp_path))
    yield tmp_path
    unmount(str(tmp_path))


def test_the_log_of_the_verifier_is_shown() -> None:
    with pytest.raises(DatapathError, match="the verifier refused it") as caught:
        load_object(REFUSED_PATH)
    text = str(caught.value)
    assert caught.value.errno == errno.EACCES
    assert "invalid mem access 'scalar'" in text
    assert "refused" in text, "the program is named"
    assert len(text) < 16_000


def test_what_was_said_before_is_not_said_again(program: LoadedObject, tmp_path: Path) -> None:
    with pytest.raises(DatapathError):
        load_object(REFUSED_PATH)
    nothing = tmp_path / "empty.bpf.o"
    nothing.write_bytes(b"no object")
    with pytest.raises(DatapathError) as caught:
        load_object(nothing)
    assert "invalid mem access" not in str(caught.value)


def test_a_pinned_map_of_another_shape_is_named(probe: LoadedObject, pins: Path) -> None:
    pin(probe.maps["probe"].fd, str(pins / "ports"))
    with pytest.raises(DatapathError) as caught:
        load_object(pin_directory=pins, entries=SMALL_RING)
    assert caught.value.errno == errno.EINVAL
    assert str(pins / "ports") in str(caught.value)


def test_maps_that_cannot_be_pinned_are_no_success(tmp_path: Path) -> None:
    """The directory is on no BPF file system."""
    with pytest.raises(DatapathError, match="pin"):
        load_object(pin_directory=tmp_path, entries=SMALL_RING)
