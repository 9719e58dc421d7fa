"""NAT rules: what is taken, how it is shown, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import Api

TARGET = {
    "addressFrom": "203.0.113.1",
    "addressTo": "203.0.113.9",
    "portFrom": 1024,
    "portTo": 2048,
}
SINGLE = {"addressFrom": "203.0.113.1", "addressTo": "203.0.113.1"}


@pytest.mark.parametrize("kind", ["dnat", "snat"])
@pytest.mark.parametrize("flow_action", ["accept", "continue", "return"])
async def test_forward_rule_keeps_its_targets_in_order(
    api: Api, kind: str, flow_action: str
) -> None:
    chain = await api.create("/chains")
    second = {
        "addressFrom": "198.51.100.7",
        "addressTo": "198.51.100.7",
        "portFrom": 5,
        "portTo": 5,
    }
    rule = await api.create(
        chain["rules"], type=kind, flowAction=flow_action, natTargets=[TARGET, second]
    )
    assert (rule["type"], rule["flowAction"]) == (kind, flow_action)
    assert rule["natTargets"] == [TARGET, second]
    assert rule["fragmentPolicy"] == "header"
    (listed,) = await api.get(chain["rules"])
    assert listed == rule


@pytest.mark.parametrize("kind", ["rev_dnat", "rev_snat"])
async def test_reverse_rule_has_no_targets(api: Api, kind: str) -> None:
    chain = await api.create("/chains")
    rule = await api.create(chain["rules"], type=kind, flowAction="return")
    assert (rule["flowAction"], rule["natTargets"]) == ("return", None)
    assert rule["fragmentPolicy"] == "any"


async def test_other_rules_show_no_translation(api: Api) -> None:
    chain = await api.create("/chains")
    rule = await api.create(chain["rules"], type="accept", natTargets=None, flowAction=None)
    assert (rule["flowAction"], rule["natTargets"]) == (None, None)


async def test_single_address_without_ports_takes_all_fragments(api: Api) -> None:
    chain = await api.create("/chains")
    v6 = {"addressFrom": "2001:DB8::1", "addressTo": "2001:db8:0::1"}
    rule = await api.create(chain["rules"], type="dnat", flowAction="accept", natTargets=[v6])
    assert rule["fragmentPolicy"] == "any"
    assert rule["natTargets"] == [
        {"addressFrom": "2001:db8::1", "addressTo": "2001:db8::1", "portFrom": 0, "portTo": 0}
    ]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"type": "snat", "natTargets": [TARGET]}, "flowAction: is required"),
        ({"type": "rev_snat"}, "flowAction: is required"),
        ({"type": "accept", "flowAction": "accept"}, "flowAction: must be null"),
        ({"type": "snat", "flowAction": "drop", "natTargets": [TARGET]}, "flowAction"),
        ({"type": "dnat", "flowAction": "accept"}, "natTargets: is required"),
        ({"type": "dnat", "flowAction": "accept", "natTargets": []}, "one target at least"),
        ({"type": "rev_dnat", "flowAction": "accept", "natTargets": [TARGET]}, "must be null"),
        ({"type": "drop", "natTargets": [TARGET]}, "must be null for type drop"),
        (
            {"type": "snat", "flowAction": "accept", "natTargets": [{**TARGET, "addressTo": "x"}]},
            "addressTo must be an IPv4 or IPv6 address",
        ),
        (
            {
                "type": "snat",
                "flowAction": "accept",
                "natTargets": [{**TARGET, "addressFrom": "203.0.113.99"}],
            },
            "addressFrom must not be above addressTo",
        ),
        (
            {"type": "dnat", "flowAction": "accept", "natTargets": [{**TARGET, "portTo": 7}]},
            "portFrom must not be above portTo",
        ),
        (
            {"type": "dnat", "flowAction": "accept", "natTargets": [{**TARGET, "portFrom": 0}]},
            "portFrom must be from 1",
        ),
        (
            {"type": "dnat", "flowAction": "accept", "natTargets": [{**TARGET, "portTo": 65536}]},
            "portTo",
        ),
        (
            {
                "type": "snat",
                "flowAction": "accept",
                "natTargets": [{"addressFrom": "203.0.113.1", "addressTo": "203.0.113.2"}],
            },
            "portFrom and portTo are needed",
        ),
        (
            {
                "type": "dnat",
                "flowAction": "accept",
                "natTargets": [TARGET, {"addressFrom": "2001:db8::1", "addressTo": "2001:db8::1"}],
            },
            "must be of one IP version",
        ),
        (
            {
                "type": "dnat",
                "flowAction": "accept",
                "natTargets": [{"addressFrom": "224.0.0.1", "addressTo": "224.0.0.1"}],
            },
            "must not be a multicast address",
        ),
        (
            {
                "type": "dnat",
                "flowAction": "accept",
                "natTargets": [SINGLE],
                "nwDstAddress": "2001:db8::5",
            },
            "must be of the IP version of nwDstAddress",
        ),
        (
            {"type": "dnat", "flowAction": "accept", "natTargets": [SINGLE], "dlType": 0x86DD},
            "never act on frames of dlType 0x86dd",
        ),
        (
            {"type": "snat", "flowAction": "accept", "natTargets": [TARGET] * 65},
            "at most 64 targets",
        ),
        (
            {
                "type": "snat",
                "flowAction": "accept",
                "natTargets": [TARGET],
                "fragmentPolicy": "any",
            },
            "fragmentPolicy: must be header or unfragmented",
        ),
    ],
)
@pytest.mark.parametrize("store", ["memory"], indirect=True)
async def test_rule_that_means_nothing_is_refused(
    api: Api, body: dict[str, Any], message: str
) -> None:
    chain = await api.create("/chains")
    error = await api.refused(400, "POST", chain["rules"], **body)
    assert message in error["message"]
    assert await api.get(chain["rules"]) == []
