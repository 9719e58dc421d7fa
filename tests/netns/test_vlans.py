"""A VLAN-aware bridge across two hosts: a trunk with real sub-interfaces, access ports, routers.

h1: `trunk` (VLANs 10 and 20 as sub-interfaces, nothing untagged), `near10` in VLAN 10
h2: `far10` in VLAN 10, `far20` in VLAN 20 with the addresses of far10 as well
red's router is in VLAN 10 and blue's in VLAN 20, both as host 1 of the same networks
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest

from midonet.demo.checks import check_stream, check_traceroute, ping
from midonet.demo.lab import VirtualMachine
from midonet.model.hosts import TunnelKind
from midonet.model.schema_ports import PortResource
from midonet.packets.addresses import format_mac, parse_ip
from midonet.packets.arp import ArpOperation
from midonet.packets.frame import parse_frame
from midonet.packets.nd import NdType
from midonet.packets.neighbour import neighbour_message
from tests.contract.ebpf_harness import Tap
from tests.netns.entering import entered
from tests.netns.labs import Network, answers, lab, neighbour_mac, own_mac, require_pings, until
from tests.netns.traffic_lab import ONE, SIX_ONE, SIX_TWO, TWO
from tests.scenario.frames import V4, V6, echo
from tests.scenario.vlans import asked

pytestmark = pytest.mark.timeout(400)

VERSIONS = pytest.mark.parametrize("version", [0, 1], ids=["ipv4", "ipv6"])
FAR = (f"{ONE}13", f"{SIX_ONE}13")
GATEWAY = (f"{ONE}1", f"{SIX_ONE}1")
BEHIND = (f"{TWO}14", f"{SIX_TWO}14")


class Vlans:
    """The lab; machines by name."""

    def __init__(self, network: Network) -> None:
        self.network = network
        red, blue = network.make_tenant("red"), network.make_tenant("blue")
        self.gateways = [tenant.segments[1].router_port for tenant in (red, blue)]
        first, second = network.lab.hosts
        segment = red.segments[1]
        for name, host, number in (
            ("trunk", first, 11), ("near10", first, 12), ("far10", second, 13),
            ("far20", second, 15),
        ):  # fmt: skip
            network.plug(name, host, segment, number)
        network.plug("behind", second, red.segments[2], 14)
        network.wait_active()
        self._set_vlan(network.ports["near10"], 10)
        self._set_vlan(network.ports["far10"], 10)
        self._set_vlan(network.ports["far20"], 20)
        self._set_vlan(segment.uplink, 10)
        # Blue's router comes to the same bridge, in the other VLAN.
        network.unlink(blue.segments[1])
        theirs = network.api.create(PortResource(kind="Bridge", vlan_id=20), parent=segment.bridge)
        network.api.link(theirs, self.gateways[1])
        self.vm("trunk").namespace.ip("address flush dev eth0")
        self.vm("far20").namespace.ip(
            f"address add {FAR[0]}/24 dev eth0",
            f"address add {FAR[1]}/64 dev eth0 nodad",
        )

    def vm(self, name: str) -> VirtualMachine:
        """Return a machine by name."""
        return self.network.lab.machines[name]

    def _set_vlan(self, port: PortResource, vlan: int) -> None:
        api = self.network.api
        present = api.get(PortResource, str(port.id))
        api.update(msgspec.structs.replace(present, vlan_id=vlan))


@pytest.fixture(scope="module")
def vlans(prefix: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vlans]:
    with lab(f"{prefix}v", tmp_path_factory.mktemp("vlans")) as made:
        network = Network(made)
        network.use_zone(TunnelKind.VXLAN)
        try:
            yield Vlans(network)
        finally:
            network.close()


class Trunk:
    """Speaks at the trunk's interface, as host 11 of the networks of VLAN 10 and 20."""

    def __init__(self, vlans: Vlans, version: int) -> None:
        machine = vlans.vm("trunk")
        with entered(machine.namespace):
            self._tap = Tap("eth0")
        self.mac = own_mac(machine)
        self.family = (V4, V6)[version]
        self.address = (f"{ONE}11", f"{SIX_ONE}11")[version]

    def __enter__(self) -> Trunk:
        return self

    def __exit__(self, *_: object) -> None:
        self._tap.close()

    def who_has(self, address: str, vlan: int) -> str:
        """Ask for an address in a VLAN (0: without tag) until somebody answers; return its MAC."""
        question = asked(self.family, address, by=self.mac, sender=self.address, vlan=vlan)
        return self._until_answered(question, lambda frame: self._said(frame, address, vlan))

    def reaches(self, address: str, by: str, vlan: int) -> None:
        """Send echo requests to a MAC in a VLAN until one is answered with that tag."""
        request = echo((self.address, address), (self.mac, by), vlan=vlan)
        source = parse_ip(address).value

        def is_reply(frame: bytes) -> str | None:
            key = parse_frame(frame).key
            is_echo = key.ip_src == source and key.l4_src in (0, 129) and key.ip_proto in (1, 58)
            return by if is_echo and key.vlan_tci & 0xFFF == vlan else None

        self._until_answered(request, is_reply)

    def heard(self, address: str, vlan: int) -> list[str]:
        """Return the MACs that have answered for an address in a VLAN so far."""
        said = (self._said(frame, address, vlan) for frame in self._tap.read())
        return [mac for mac in said if mac is not None]

    def ask(self, address: str, vlan: int) -> None:
        """Ask for an address once."""
        self._tap.send(asked(self.family, address, by=self.mac, sender=self.address, vlan=vlan))

    def _said(self, frame: bytes, address: str, vlan: int) -> str | None:
        packet = parse_frame(frame)
        if packet.key.vlan_tci & 0xFFF != vlan:
            return None
        wanted = parse_ip(address).value
        if packet.arp is not None and packet.arp.operation == ArpOperation.REPLY:
            return format_mac(packet.arp.sender_mac) if packet.arp.sender_ip == wanted else None
        message = neighbour_message(packet) if self.family is V6 else None
        if message is None or message.kind is not NdType.NEIGHBOUR_ADVERTISEMENT:
            return None
        return format_mac(message.link_address or 0) if message.target == wanted else None

    def _until_answered(self, question: bytes, answer: Callable[[bytes], str | None]) -> str:
        found: list[str] = []

        def is_answered() -> bool:
            self._tap.send(question)
            found.extend(mac for frame in self._tap.read() if (mac := answer(frame)))
            return bool(found)

        until(is_answered, "an answer at the trunk")
        return found[0]


@VERSIONS
def test_an_access_port_reaches_its_vlan_and_the_right_machine(vlans: Vlans, version: int) -> None:
    near, far = vlans.vm("near10"), vlans.vm("far10")
    answers(near, FAR[version])
    require_pings(near, FAR[version])
    assert neighbour_mac(near, FAR[version]) == own_mac(far)


@VERSIONS
def test_one_question_in_two_vlans_has_two_answers(vlans: Vlans, version: int) -> None:
    with Trunk(vlans, version) as trunk:
        for vlan, name in ((10, "far10"), (20, "far20")):
            mac = own_mac(vlans.vm(name))
            assert trunk.who_has(FAR[version], vlan) == mac
            trunk.reaches(FAR[version], mac, vlan)


@VERSIONS
def test_vlans_do_not_see_each_other(vlans: Vlans, version: int) -> None:
    """far20 has an address of VLAN 10, and nobody there hears it."""
    far20, near = vlans.vm("far20"), vlans.vm("near10")
    answers(near, FAR[version])
    own = (f"{ONE}12", f"{SIX_ONE}12")[version]
    assert ping(far20, own, count=3, wait_s=1).received == 0
    assert ping(near, (f"{ONE}15", f"{SIX_ONE}15")[version], count=3, wait_s=1).received == 0


@VERSIONS
def test_each_vlan_has_its_router_though_their_addresses_are_the_same(
    vlans: Vlans, version: int
) -> None:
    api, gateway = vlans.network.api, GATEWAY[version]
    red, blue = (api.get(PortResource, str(port.id)).mac for port in vlans.gateways)
    assert red != blue
    for name, mac in (("near10", red), ("far20", blue)):
        answers(vlans.vm(name), gateway)
        assert neighbour_mac(vlans.vm(name), gateway) == mac
    with Trunk(vlans, version) as trunk:
        for _ in range(3):
            trunk.ask(gateway, 0)
        assert trunk.who_has(gateway, 10) == red
        assert trunk.who_has(gateway, 20) == blue
        assert trunk.heard(gateway, 0) == []


@VERSIONS
def test_a_trunk_is_routed_out_of_its_vlan(vlans: Vlans, version: int) -> None:
    with Trunk(vlans, version) as trunk:
        red = trunk.who_has(GATEWAY[version], 10)
        trunk.reaches(GATEWAY[version], red, 10)
        trunk.reaches(BEHIND[version], red, 10)
    near, behind = vlans.vm("near10"), vlans.vm("behind")
    answers(near, BEHIND[version])
    found = check_traceroute("way", near, BEHIND[version], (GATEWAY[version], BEHIND[version]))
    assert found.ok, found.detail
    stream = check_stream("stream", near, behind, BEHIND[version], 10)
    assert stream.ok, stream.detail
    assert ping(vlans.vm("far20"), BEHIND[version], count=2, wait_s=1).received == 0


def test_a_port_that_changes_its_vlan_changes_its_company(vlans: Vlans) -> None:
    near, port = vlans.vm("near10"), vlans.network.ports["near10"]
    answers(near, FAR[0])
    api = vlans.network.api
    api.update(msgspec.structs.replace(api.get(PortResource, str(port.id)), vlan_id=20))
    try:
        answers(near, f"{ONE}15")
        assert neighbour_mac(near, f"{ONE}15") == own_mac(vlans.vm("far20"))
    finally:
        api.update(msgspec.structs.replace(api.get(PortResource, str(port.id)), vlan_id=10))
