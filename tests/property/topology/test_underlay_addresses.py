"""What shows that an address is, or is not, one of the hosts'."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from midonet.agent.topology.underlay_addresses import UnderlayAddresses
from midonet.packets.addresses import IpAddress, IpVersion

WIDTHS = {IpVersion.V4: 32, IpVersion.V6: 128}


@st.composite
def addresses(draw: st.DrawFn, version: IpVersion) -> IpAddress:
    """Draw addresses that often are near each other."""
    width = WIDTHS[version]
    base = draw(st.sampled_from((0, (1 << width) - 1, 0xC0 << (width - 8))))
    return IpAddress(version, base ^ draw(st.integers(0, (1 << draw(st.integers(0, width))) - 1)))


@given(st.data(), st.sampled_from(list(IpVersion)))
def test_all_that_share_the_proof_share_the_answer(data: st.DataObject, version: IpVersion) -> None:
    width = WIDTHS[version]
    hosts = data.draw(st.sets(addresses(version), max_size=8))
    known = UnderlayAddresses.of(hosts)
    assert known.all() == hosts
    value = data.draw(addresses(version)).value
    length = known.proof_length(version, value)
    assert 0 <= length <= width
    free = width - length
    other = value ^ data.draw(st.integers(0, (1 << free) - 1))
    is_host = IpAddress(version, value) in known
    assert is_host == (IpAddress(version, value) in hosts)
    assert (IpAddress(version, other) in hosts) == is_host
    if length and not is_host:
        shorter = (value >> (free + 1)) << (free + 1)
        covered = range(shorter, shorter + (1 << (free + 1)))
        assert any(host.value in covered for host in hosts), "no shorter prefix shows it"
