"""ARP and neighbour discovery at routers and on bridges."""

from __future__ import annotations

from midonet.agent.flows.drop_reason import DropReason
from midonet.packets.addresses import parse_ip
from midonet.packets.arp import ArpMessage
from midonet.packets.build import ethernet_frame
from midonet.packets.neighbour import (
    arp_reply,
    arp_request,
    neighbour_advertisement,
    neighbour_solicitation,
    unsolicited_advertisement,
)
from tests.scenario.frames import EVERYONE, R1, R2, V4, V6, A, B, C, echo, icmp, mac, raw, udp
from tests.scenario.routed_networks import IN, edge, networks
from tests.scenario.running import Scenario, at, dropped, scenario, sent, taken, waits


def value(text: str) -> int:
    return parse_ip(text).value


def _scenarios() -> list[Scenario]:
    own4, own6 = V4.host(1, 1), V6.host(1, 1)
    asker4, asker6 = V4.host(1, 7), V6.host(1, 7)
    link_local = "fe80::bb:ff:fe00:1"
    unsolicited = unsolicited_advertisement(mac(C), value(V6.host(1, 7)))
    request = arp_request(mac(C), value(asker4), value(own4))
    answer = arp_reply(mac(R1), value(own4), mac(C), value(asker4))
    reply = arp_reply(mac(C), value(asker4), mac(R1), value(own4))

    def solicit(target: str) -> bytes:
        return neighbour_solicitation(mac(C), value(asker6), value(target))

    def advertise(target: str, *, is_router: bool, from_mac: str = R1) -> bytes:
        return neighbour_advertisement(
            mac(from_mac), value(target), mac(C), value(asker6), is_router=is_router
        )

    def probe6(target: str) -> bytes:
        return neighbour_solicitation(mac(C), 0, value(target))

    ask6 = neighbour_solicitation(mac(A), value(V6.host(1, 5)), value(asker6))
    gratuitous = arp_request(mac(C), value(asker4), value(asker4))
    return [
        scenario(
            "a router port answers ARP for its address and learns who asks",
            edge,
            waits("b", udp((V4.host(2, 5), asker4), (B, R2)), f"a {asker4}"),
            taken("a", request, at("a", answer)),
            sent("b", udp((V4.host(2, 5), asker4), (B, R2)),
                 at("a", udp((V4.host(2, 5), asker4), (R1, C), ttl=63))),
        ),
        scenario(
            "a router port answers solicitations for its addresses and learns who asks",
            edge,
            taken("a", solicit(own6), at("a", advertise(own6, is_router=True))),
            taken("a", solicit(link_local), at("a", advertise(link_local, is_router=True))),
            sent("b", udp((V6.host(2, 5), asker6), (B, R2)),
                 at("a", udp((V6.host(2, 5), asker6), (R1, C), ttl=63))),
        ),
        scenario(
            "a router answers an echo to its link-local address",
            edge,
            taken("a", echo(("fe80::7", link_local), (C, R1)),
                  at("a", echo((link_local, "fe80::7"), (R1, C), reply=True))),
        ),
        scenario(
            "a router learns from replies and announcements",
            edge,
            taken("a", reply),
            sent("b", udp((V4.host(2, 5), asker4), (B, R2)),
                 at("a", udp((V4.host(2, 5), asker4), (R1, C), ttl=63))),
            taken("a", unsolicited),
            sent("b", udp((V6.host(2, 5), asker6), (B, R2)),
                 at("a", udp((V6.host(2, 5), asker6), (R1, C), ttl=63))),
        ),
        scenario(
            "a router does not answer for others, nor for another network",
            edge,
            dropped("a", arp_request(mac(C), value(asker4), value(V4.host(1, 9))),
                    DropReason.NOT_FOR_ROUTER),
            dropped("a", arp_request(mac(C), value(V4.host(3, 7)), value(own4)),
                    DropReason.NOT_FOR_ROUTER),
            dropped("a", solicit(V6.host(1, 9)), DropReason.NOT_FOR_ROUTER),
        ),
        scenario(
            "what a router cannot read is malformed",
            edge,
            dropped("a", raw(0x0806, (C, EVERYONE)), DropReason.MALFORMED),
            dropped("a", icmp((asker6, own6), (C, R1), 135, rest=0, payload=bytes(16), ttl=255),
                    DropReason.NOT_FOR_ROUTER),
            dropped("a", icmp((asker6, own6), (C, R1), 135, payload=bytes(16), ttl=64),
                    DropReason.MALFORMED),
        ),
        scenario(
            "a router does not serve router solicitations",
            edge,
            dropped("a", icmp((asker6, "ff02::2"), (C, "33:33:00:00:00:02"), 133, ttl=255),
                    DropReason.LOCAL_NOT_HANDLED),
        ),
        scenario(
            "other protocols are not for routers",
            edge,
            dropped("a", raw(0x88CC, IN), DropReason.UNSUPPORTED_ETHERTYPE),
        ),
        scenario(
            "a bridge answers for the routers attached to it",
            networks,
            taken("vm1", request, at("vm1", answer)),
            taken("vm1", solicit(own6), at("vm1", advertise(own6, is_router=True))),
            taken("vm1", solicit(link_local), at("vm1", advertise(link_local, is_router=True))),
        ),
        scenario(
            "a bridge answers from its table, and passes the question to the owner",
            networks,
            sent("vm3", arp_request(mac(C), value(asker4), value(V4.host(1, 5))),
                 at("vm3", arp_reply(mac(A), value(V4.host(1, 5)), mac(C), value(asker4))),
                 at("vm1", arp_request(mac(C), value(asker4), value(V4.host(1, 5))))),
            sent("vm3", solicit(V6.host(1, 5)),
                 at("vm3", advertise(V6.host(1, 5), is_router=False, from_mac=A)),
                 at("vm1", solicit(V6.host(1, 5)))),
        ),
        scenario(
            "a bridge answers from its table alone where it does not know the owner's port",
            lambda: networks().bridge_neighbour("n1", V4.host(1, 8), B),
            taken("vm3", arp_request(mac(C), value(asker4), value(V4.host(1, 8))),
                  at("vm3", arp_reply(mac(B), value(V4.host(1, 8)), mac(C), value(asker4)))),
        ),
        scenario(
            "a bridge leaves the answer to a probe to the owner of the address",
            networks,
            sent("vm3", arp_request(mac(C), 0, value(V4.host(1, 5))),
                 at("vm1", arp_request(mac(C), 0, value(V4.host(1, 5))))),
            sent("vm3", probe6(V6.host(1, 5)), at("vm1", probe6(V6.host(1, 5)))),
            taken("vm3", arp_request(mac(C), 0, value(own4)),
                  at("vm3", arp_reply(mac(R1), value(own4), mac(C), 0))),
            taken("vm3", probe6(own6), at("vm3", neighbour_advertisement(
                mac(R1), value(own6), mac("33:33:00:00:00:01"), value("ff02::1"),
                is_router=True, is_solicited=False))),
        ),
        scenario(
            "a bridge floods questions it cannot answer",
            networks,
            sent("vm1", arp_request(mac(C), value(asker4), value(V4.host(1, 9))),
                 at("vm3", arp_request(mac(C), value(asker4), value(V4.host(1, 9))))),
            sent("vm1", solicit(V6.host(1, 9)), at("vm3", solicit(V6.host(1, 9)))),
        ),
        scenario(
            "an announcement moves an entry of the bridge's table",
            lambda: networks().bridge_neighbour("n1", asker4, B).bridge_neighbour("n1", asker6, B),
            sent("vm3", gratuitous, at("vm1", gratuitous)),
            sent("vm1", arp_request(mac(A), value(V4.host(1, 5)), value(asker4)),
                 at("vm1", arp_reply(mac(C), value(asker4), mac(A), value(V4.host(1, 5)))),
                 at("vm3", arp_request(mac(A), value(V4.host(1, 5)), value(asker4)))),
            sent("vm3", unsolicited, at("vm1", unsolicited)),
            sent("vm1", ask6, at("vm3", ask6), at("vm1", neighbour_advertisement(
                mac(C), value(asker6), mac(A), value(V6.host(1, 5))))),
        ),
        scenario(
            "a tagged question is nobody's on a bridge without VLANs",
            networks,
            sent("vm1", ethernet_frame(mac(EVERYONE), mac(C), 0x0806, ArpMessage(
                1, mac(C), value(asker4), 0, value(own4)).serialise(), vlan_tci=9),
                at("vm3", ethernet_frame(mac(EVERYONE), mac(C), 0x0806, ArpMessage(
                    1, mac(C), value(asker4), 0, value(own4)).serialise(), vlan_tci=9))),
        ),
    ]  # fmt: skip


SCENARIOS: list[Scenario] = _scenarios()
