from __future__ import annotations

import subprocess
import sys
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from midonet.agent.flows.fact_filter import FILTER_BYTES, filter_of, holds_any, tag_bits
from midonet.agent.flows.tags import (
    FlowTag,
    RouteRegion,
    TagKind,
    device_tag,
    flood_group_tag,
    mac_tag,
    neighbour_tag,
)
from midonet.packets.addresses import IpVersion
from tests.unit.agent.flows.flow_samples import program

NUMBERS = st.integers(1, 1 << 64).map(lambda number: UUID(int=number))
TAGS = st.one_of(
    NUMBERS.map(device_tag),
    st.builds(mac_tag, NUMBERS, st.integers(0, 4095), st.integers(0, 1 << 47)),
    st.builds(flood_group_tag, NUMBERS, NUMBERS),
    st.builds(neighbour_tag, NUMBERS, st.just(IpVersion.V6), st.integers(0, 1 << 127)),
)


@given(st.frozensets(TAGS, max_size=30))
def test_what_a_program_depends_on_is_always_in_its_filter(tags: frozenset[FlowTag]) -> None:
    facts = filter_of(program(tags=tags))
    assert all(holds_any(facts, (tag,)) for tag in tags)
    assert facts < 1 << FILTER_BYTES * 8


def test_the_router_of_a_region_is_in_it() -> None:
    region = RouteRegion(UUID(int=9), IpVersion.V4, 0, 0)
    assert holds_any(filter_of(program(regions=frozenset({region}))), (device_tag(UUID(int=9)),))


def test_few_others_seem_to_be_in_it() -> None:
    facts = filter_of(program(tags=frozenset(device_tag(UUID(int=i)) for i in range(16))))
    others = [device_tag(UUID(int=1000 + number)) for number in range(10_000)]
    assert sum(holds_any(facts, (tag,)) for tag in others) < 200
    assert not holds_any(0, others)


def test_bits_are_the_same_in_another_process() -> None:
    tag = FlowTag(TagKind.MAC, UUID(int=5), (7, 8))
    code = (
        "from uuid import UUID; from midonet.agent.flows.fact_filter import tag_bits;"
        "from midonet.agent.flows.tags import FlowTag, TagKind;"
        "print(tag_bits(FlowTag(TagKind.MAC, UUID(int=5), (7, 8))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert int(done.stdout) == tag_bits(tag)
