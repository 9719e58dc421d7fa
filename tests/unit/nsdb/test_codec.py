"""The stored form of objects."""

from __future__ import annotations

from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midonet.errors import DecodeError, InternalError
from midonet.model.chains import Chain, Condition, PortRange, Rule, RuleAction
from midonet.model.devices import Bridge
from midonet.model.ids import BridgeId, ChainId, RuleId
from midonet.model.references import KINDS
from midonet.nsdb import codec


class Unstored(msgspec.Struct):
    """No kind of the model."""


def test_a_nested_object_survives() -> None:
    rule = Rule(
        id=RuleId(uuid4()),
        chain_id=ChainId(uuid4()),
        action=RuleAction.ACCEPT,
        condition=Condition(l4_dst=PortRange(1, 65535), eth_src="02:00:00:00:00:01"),
    )
    assert codec.decode(Rule, codec.encode(rule)) == rule


def test_chain_cannot_be_read_by_who_looks_for_rule_ids_in_it() -> None:
    class OldChain(msgspec.Struct):
        id: ChainId
        rule_ids: tuple[RuleId, ...] = ()

    chain = Chain(id=ChainId(uuid4()))
    body = codec.encode(chain)
    assert codec.decode(Chain, body) == chain
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=OldChain)
    with pytest.raises(DecodeError):
        codec.decode(Chain, msgspec.json.encode(OldChain(chain.id, (RuleId(uuid4()),))))


def test_unknown_fields_are_skipped() -> None:
    blue = Bridge(id=BridgeId(uuid4()), name="blue")
    body = codec.encode(blue)[:-1] + b',"later":{"x":[1,null]}}'
    assert codec.decode(Bridge, body) == blue


@pytest.mark.parametrize("kind", KINDS)
@given(body=st.binary(max_size=80))
def test_rubbish_is_a_decode_error(kind: type[msgspec.Struct], body: bytes) -> None:
    with pytest.raises(DecodeError):
        codec.decode(kind, body)


def test_types_outside_the_model_are_our_own_bug() -> None:
    with pytest.raises(InternalError):
        codec.encode(Unstored())
    with pytest.raises(InternalError):
        codec.decode(Unstored, b"{}")
    with pytest.raises(InternalError):
        codec.target_kind_name(Bridge, "name")


def test_names_lead_back_to_kinds() -> None:
    assert [codec.kind_named(codec.kind_name(kind)) for kind in KINDS] == list(KINDS)
    assert codec.kind_named("Hologram") is None
