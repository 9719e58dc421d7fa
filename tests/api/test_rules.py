"""Chains and rules: order, conditions, what is refused."""

from __future__ import annotations

from uuid import uuid4

import pytest

from tests.api.conftest import Api


async def test_rule_is_inserted_at_its_position(api: Api) -> None:
    chain = await api.create("/chains", name="c")
    ids = {}
    for kind, position in (("accept", None), ("drop", 1), ("reject", 2), ("return", 4)):
        rule = await api.create(chain["rules"], type=kind, position=position)
        ids[kind] = rule["id"]
        assert rule["position"] == (position or 1)
    rules = await api.get(chain["rules"])
    assert [rule["type"] for rule in rules] == ["drop", "reject", "accept", "return"]
    assert [rule["position"] for rule in rules] == [1, 2, 3, 4]
    error = await api.refused(400, "POST", chain["rules"], type="drop", position=6)
    assert error["message"] == "Position exceeds number of rules in chain"
    assert (await api.http.delete(f"/rules/{ids['reject']}")).status_code == 204
    rules = await api.get(chain["rules"])
    assert [(rule["type"], rule["position"]) for rule in rules] == [
        ("drop", 1),
        ("accept", 2),
        ("return", 3),
    ]


async def test_deleting_a_chain_removes_its_rules_and_jumps_to_it(api: Api) -> None:
    target = await api.create("/chains", name="target")
    caller = await api.create("/chains", name="caller")
    own = await api.create(target["rules"], type="drop")
    jump = await api.create(caller["rules"], type="jump", jumpChainId=target["id"])
    assert (jump["jumpChainName"], jump["jumpChain"]) == ("target", target["uri"])
    last = await api.create(caller["rules"], type="accept", position=2)
    bridge = await api.create("/bridges", inboundFilterId=target["id"])
    assert (await api.http.delete(target["uri"])).status_code == 204
    for gone in (own, jump):
        await api.refused(404, "GET", gone["uri"])
    assert [rule["id"] for rule in await api.get(caller["rules"])] == [last["id"]]
    assert (await api.get(bridge["uri"]))["inboundFilterId"] is None


@pytest.mark.parametrize("kind", ["trace", "Drop", "bogus"])
@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_other_rule_types_say_what_is_supported(api: Api, kind: str) -> None:
    chain = await api.create("/chains")
    error = await api.refused(400, "POST", chain["rules"], type=kind)
    assert "accept, drop, reject, return, jump" in error["message"]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"type": "jump"}, "jumpChainId"),
        ({"type": "jump", "jumpChainId": str(uuid4())}, "jumpChainId"),
        ({"inPorts": [str(uuid4())]}, "inPorts"),
        ({"dlType": 0x5FF}, "dlType"),
        ({"dlSrc": "nonsense"}, "dlSrc"),
        ({"dlDstMask": "ffff"}, "dlDstMask"),
        ({"nwProto": 256}, "nwProto"),
        ({"nwSrcAddress": "10.0.0.0", "nwSrcLength": 33}, "nwSrcLength"),
        ({"nwSrcAddress": "10.0.0.0", "nwDstAddress": "fd00::"}, "nwDstAddress"),
        ({"tpSrc": {"start": 2, "end": 1}}, "tpSrc"),
        ({"tpSrc": {"start": 1, "end": 65536}}, "tpSrc.end"),
        ({"tpSrc": {"start": 1}}, "tpSrc"),
        ({"tpDst": {"start": 1, "end": 2}, "fragmentPolicy": "any"}, "fragmentPolicy"),
        ({"fragmentPolicy": "bogus"}, "fragmentPolicy"),
        ({"position": 0}, "position"),
    ],
)
@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_bad_condition_names_the_property(
    api: Api, body: dict[str, object], name: str
) -> None:
    chain = await api.create("/chains")
    error = await api.refused(400, "POST", chain["rules"], **{"type": "drop"} | body)
    assert error["violations"][0]["property"] == name
    assert await api.get(chain["rules"]) == []


@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_fragment_policy_defaults_by_the_match_on_ports(api: Api) -> None:
    chain = await api.create("/chains")
    plain = await api.create(chain["rules"], type="drop")
    assert plain["fragmentPolicy"] == "any"
    ports = await api.create(chain["rules"], type="drop", tpDst={"start": "80", "end": "80"})
    assert ports["fragmentPolicy"] == "header"
    assert ports["tpDst"] == {"start": 80, "end": 80}


@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_addresses_are_shown_as_given_with_full_length_by_default(api: Api) -> None:
    chain = await api.create("/chains")
    rule = await api.create(
        chain["rules"], type="drop", nwSrcAddress="2001:DB8:0::7", dlSrc="AA-BB-CC-00-00-01"
    )
    assert (rule["nwSrcAddress"], rule["nwSrcLength"]) == ("2001:db8::7", 128)
    assert (rule["dlSrc"], rule["dlSrcMask"]) == ("aa:bb:cc:00:00:01", "ffff.ffff.ffff")
    assert rule["nwDstAddress"] is None
