"""The hash of a client's address alone."""

from __future__ import annotations

from collections import Counter

from midonet.packets.addresses import parse_ip
from midonet.packets.flow_hash import address_hash

SEED = 0x0123_4567_89AB_CDEF


def hash_of(text: str, seed: int = SEED) -> int:
    address = parse_ip(text)
    return address_hash(seed, is_ipv6=address.version.bits == 128, address=address.value)


def test_known_values_that_every_host_must_agree_on() -> None:
    assert [hash_of(one) for one in ("10.0.0.1", "10.0.0.2", "2001:db8::1")] == [
        339049963,
        284077253,
        3885573888,
    ]


def test_both_halves_of_the_seed_key_it() -> None:
    keyed = {hash_of("10.0.0.1", seed) for seed in (SEED, SEED ^ 1, SEED ^ 1 << 32)}
    assert len(keyed) == 3


def test_neighbouring_addresses_spread_over_the_buckets() -> None:
    buckets = Counter(hash_of(f"10.0.{high}.{low}") & 15 for high in range(4) for low in range(256))
    # 64 in each on the average, with a deviation of 8.
    assert len(buckets) == 16
    assert all(24 <= count <= 104 for count in buckets.values())
