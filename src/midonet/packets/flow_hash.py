"""The flow hash: keyed, direction-symmetric, computed alike here and in the kernel program.

Both directions of a connection hash to the same value, so that both meet the same choice
(ECMP next hop, pool member). ICMP and fragments hash on addresses and protocol only.

    half(address, port) = mix(mix(... mix(seed0 ^ w0) ^ w1 ...) ^ w3) ^ port)
    hash = mix((half(source) + half(destination)) mod 2^32 ^ seed1 ^ protocol)

`mix` is the finaliser of MurmurHash3 (32 bits). w0..w3 are the four big-endian words of the
address in its 16-byte form: an IPv4 address is word 0 and the others are zero.
"""

from __future__ import annotations

_WORD = 0xFFFF_FFFF


def mix(value: int) -> int:
    """Return a 32-bit value of which every bit depends on every bit of `value` (32 bits)."""
    value ^= value >> 16
    value = value * 0x85EBCA6B & _WORD
    value ^= value >> 13
    value = value * 0xC2B2AE35 & _WORD
    return value ^ value >> 16


def _half(seed: int, is_ipv6: bool, address: int, port: int) -> int:
    if is_ipv6:
        words = (address >> 96, address >> 64 & _WORD, address >> 32 & _WORD, address & _WORD)
    else:
        words = (address, 0, 0, 0)
    value = seed
    for word in words:
        value = mix(value ^ word)
    return mix(value ^ port)


def flow_hash(
    seed: int,
    *,
    is_ipv6: bool,
    protocol: int,
    source: tuple[int, int],
    destination: tuple[int, int],
) -> int:
    """Return the 32-bit hash of a tuple.

    seed: 64 bits; the high half keys the halves, the low half the result.
    source, destination: (address, port); port is 0 for ICMP, fragments and other protocols.
    """
    high = seed >> 32 & _WORD
    total = _half(high, is_ipv6, *source) + _half(high, is_ipv6, *destination)
    return mix((total & _WORD) ^ (seed & _WORD) ^ protocol)


def address_hash(seed: int, *, is_ipv6: bool, address: int) -> int:
    """Return the 32-bit hash of one address, keyed by both halves of `seed`.

        mix(half(address, 0) ^ seed1)

    For choices that must be the same for every connection of a client.
    """
    return mix(_half(seed >> 32 & _WORD, is_ipv6, address, 0) ^ (seed & _WORD))
