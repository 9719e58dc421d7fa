"""DHCP clients that come to be served, and are not any more."""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from tests.scenario.dhcp import (
    BROADCAST,
    GATEWAY,
    LEASE,
    MASK,
    MTU,
    NET,
    NET6,
    OWN,
    OWN6,
    PLAIN,
    PREFERRED,
    answered,
    offered,
    served,
    spoken,
)
from tests.scenario.dhcp_messages import (
    ADVERTISE,
    DISCOVER,
    OFFER,
    SOLICIT,
    association,
    from_client,
    given,
    ip,
    to_client,
)
from tests.scenario.frames import A
from tests.scenario.running import at, dropped, sent, taken
from tests.scenario.sequences import Sequence, pair, state
from tests.worlds import World, rule

_DISCOVERY = from_client(DISCOVER, A)
_NOBODY_SERVES = sent("p1", _DISCOVERY, at("p2", _DISCOVERY))
_CLOSED = dropped("p1", _DISCOVERY, DropReason.FILTERED)


def _closed() -> World:
    return pair(inbound="c").chain("c", rule("drop"))


CLIENTS = Sequence(
    "a client comes to be served, and does not",
    (
        state("nothing is served", pair, _NOBODY_SERVES),
        state("a subnet", lambda: pair().dhcp_subnet("b", NET, gateway=GATEWAY), _NOBODY_SERVES),
        state("its client", lambda: served(pair),
              taken("p1", _DISCOVERY, at("p1", offered(*PLAIN)))),
        state("not enabled", lambda: served(pair, enabled=False), _NOBODY_SERVES),
        state("another gateway", lambda: served(pair, gateway="10.0.1.2"),
              taken("p1", _DISCOVERY, at("p1", to_client(
                  OFFER, A, ("10.0.1.2", OWN), (54, ip("10.0.1.2")), LEASE, MASK, BROADCAST, MTU,
                  (3, ip("10.0.1.2")), yiaddr=OWN)))),
        state("a filter that lets nothing pass", _closed, _CLOSED),
        state("a subnet behind it", lambda: _closed().dhcp_subnet("b", NET, gateway=GATEWAY),
              _CLOSED),
        state("its client behind it", lambda: served(_closed),
              taken("p1", _DISCOVERY, at("p1", offered(*PLAIN)))),
        state("DHCPv6", lambda: pair().dhcp_v6_subnet("b", NET6).dhcp_v6_client("b", NET6, A, OWN6),
              _NOBODY_SERVES,
              taken("p1", spoken(SOLICIT, association()),
                    at("p1", answered(ADVERTISE, PREFERRED, given(OWN6))))),
        state("no DHCPv6", pair, _NOBODY_SERVES,
              sent("p1", spoken(SOLICIT, association()), at("p2", spoken(SOLICIT, association())))),
    ),
)  # fmt: skip

SEQUENCES = (CLIENTS,)
