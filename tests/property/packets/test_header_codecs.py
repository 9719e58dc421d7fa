"""Every registered codec against arbitrary bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midonet.errors import DecodeError
from midonet.packets.registry import HEADER_CODECS, HeaderCodec

PREFIXES = (
    b"",
    b"\x45",
    b"\x4f",
    b"\x60",
    b"\x81\x00",
    b"\x85\x00",
    b"\x86\x00",
    b"\x87\x00",
    b"\x88\x00",
    b"\x08\x00\x00\x00",
    b"\x20\x00",
    b"\xb0\x00",
    b"\x00\x01\x08\x00\x06\x04",
    b"\x02\x00\x00\x00\x00\x01" * 2 + b"\x81\x00",
)
"""Starts that bring arbitrary bytes past the first check of some codec."""


@pytest.mark.parametrize("codec", HEADER_CODECS, ids=lambda codec: codec.__name__)
@given(prefix=st.sampled_from(PREFIXES), body=st.binary(max_size=128))
def test_any_bytes_are_a_stable_header_or_a_decode_error(
    codec: type[HeaderCodec], prefix: bytes, body: bytes
) -> None:
    try:
        header = codec.parse(prefix + body)
    except DecodeError:
        return
    data = header.serialise()
    again = codec.parse(data)
    assert again == header
    assert again.serialise() == data
    assert hash(again) == hash(header)
    assert repr(again) == repr(header)
