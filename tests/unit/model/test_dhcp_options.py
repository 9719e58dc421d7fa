"""Extra DHCP options: names, numbers and the formats of their values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midonet.errors import DecodeError
from midonet.model.dhcp_options import MAX_OPTION_BYTES, NEXT_SERVER, encode_option


@pytest.mark.parametrize(
    ("name", "value", "code", "encoded"),
    [
        ("router", "10.0.0.1", 3, "0a000001"),
        ("6", "10.0.0.1, 10.0.0.2", 6, "0a0000010a000002"),
        ("DNS-Server", "10.0.0.1 10.0.0.2", 6, "0a0000010a000002"),
        ("mtu", "1400", 26, "0578"),
        ("default-ttl", "64", 23, "40"),
        ("arp-timeout", "60", 35, "0000003c"),
        ("time-offset", "-3600", 2, "fffff1f0"),
        ("ip-forward-enable", "true", 19, "01"),
        ("all-subnets-local", "0", 27, "00"),
        ("domain-name", "example.org", 15, b"example.org".hex()),
        ("bootfile-name", "pxelinux.0", 67, b"pxelinux.0".hex()),
        ("tftp-server", "boot.example.org", 66, b"boot.example.org".hex()),
        ("tftp-server-address", "192.0.2.1", 150, "c0000201"),
        # RFC 3397 without compression: each name with its root label.
        (
            "domain-search",
            "eng.Apple.com., x.org",
            119,
            "03656e67056170706c6503636f6d000178036f726700",
        ),
        ("sip-server", "192.0.2.1", 120, "01c0000201"),
        ("sip-server", "a.b", 120, "000161016200"),
        # RFC 3442 section "Classless Route Option Format": its table of examples.
        ("classless-static-route", "0.0.0.0/0,10.0.0.1", 121, "000a000001"),
        ("121", "10.0.0.0/8,10.0.0.1", 121, "080a0a000001"),
        ("121", "10.17.0.0/16,10.0.0.1", 121, "100a110a000001"),
        ("121", "10.27.129.0/24,10.0.0.1", 121, "180a1b810a000001"),
        ("121", "10.229.0.128/25,10.0.0.1", 121, "190ae500800a000001"),
        ("121", "10.198.122.47/32 10.0.0.1", 121, "200ac67a2f0a000001"),
        ("static-route", "10.1.0.1 10.0.0.1", 33, "0a0100010a000001"),
        ("policy-filter", "10.1.0.0/16", 21, "0a010000ffff0000"),
        ("server-ip-address", "192.0.2.9", NEXT_SERVER, "c0000209"),
        ("224", "0x0102ff", 224, "0102ff"),
        ("224", "01:02:FF", 224, "0102ff"),
        ("224", "plain", 224, b"plain".hex()),
    ],
)
def test_an_option_is_encoded_in_its_format(name: str, value: str, code: int, encoded: str) -> None:
    assert encode_option(name, value) == (code, bytes.fromhex(encoded))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("router", ""),
        ("router", "10.0.0"),
        ("router", "fd00::1"),
        ("mtu", "65536"),
        ("mtu", "-1"),
        ("mtu", "x"),
        ("mtu", "\u0661"),
        ("ip-forward-enable", "maybe"),
        ("domain-name", ""),
        ("domain-name", "a\x00b"),
        ("domain-search", "a..b"),
        ("domain-search", "x" * 64 + ".org"),
        ("classless-static-route", "10.0.0.0/8"),
        ("classless-static-route", "10.0.0.0/8,fd00::1"),
        ("classless-static-route", "fd00::/8,10.0.0.1"),
        ("static-route", "10.1.0.1"),
        ("subnet-mask", "255.255.255.0 255.255.0.0"),
        ("0", "1"),
        ("255", "1"),
        ("999999999999", "1"),
        ("\u0663", "10.0.0.1"),
        ("unheard-of", "1"),
        ("224", "x" * (MAX_OPTION_BYTES + 1)),
        # The server decides these anew for each message.
        *((name, "1") for name in ("51", "lease-time", "53", "54", "overload", "agent-id", "T1")),
    ],
)
def test_what_has_no_such_format_is_refused(name: str, value: str) -> None:
    with pytest.raises(DecodeError):
        encode_option(name, value)


@given(name=st.text(max_size=8) | st.integers(0, 300).map(str), value=st.text(max_size=40))
def test_any_text_is_an_option_or_a_decode_error(name: str, value: str) -> None:
    try:
        code, encoded = encode_option(name, value)
    except DecodeError:
        return
    assert 0 <= code < 255
    assert 0 < len(encoded) <= MAX_OPTION_BYTES
