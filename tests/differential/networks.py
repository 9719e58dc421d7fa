"""Random virtual networks, seen from one host with a fixed set of ports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from midonet.model.chains import FragmentPolicy, PortRange, RuleAction
from midonet.model.devices import NextHopKind
from midonet.model.hosts import TunnelKind
from midonet.packets.addresses import IpVersion, format_mac
from tests.differential.features import FEATURES, DrawCondition
from tests.differential.packets import (
    HOST_MACS,
    HOSTS,
    ICMP,
    NETWORKS,
    PORTS,
    ROUTER_MACS,
    SCTP,
    TCP,
    UDP,
    host_address,
)
from tests.worlds import World, rule

LOCAL_PORTS = tuple(f"l{index}" for index in range(6))
"""Names of the ports bound at the local host, in every network."""

_REMOTE_PORTS = tuple(f"m{index}" for index in range(5))
_ACTIONS = ("accept", "drop", "reject", "return")
_RULES = tuple(one for feature in FEATURES for one in feature.rules)
_CONDITIONS = tuple(one for feature in FEATURES for one in feature.conditions)


class NetworkSource:
    """Draws networks."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def draw(self) -> World:
        """Return a network whose local ports are all bound."""
        return Drawing(self._random).world


class Drawing:
    """One network in the making. `tests.differential.features` adds to it."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.world = World("h1")
        self.chains = [f"c{index}" for index in range(random.randrange(5))]
        self.bridges = [f"b{index}" for index in range(random.randint(1, 3))]
        self.routers = [f"r{index}" for index in range(random.randint(0, 3))]
        self.router_ports: list[str] = []
        self._draw_devices()
        self._draw_ports()
        self._draw_links()
        self._draw_routes()
        for feature in FEATURES:
            if feature.prepare is not None:
                feature.prepare(self)
        self._draw_chains()
        self._draw_placement()
        self._draw_soft_state()
        for feature in FEATURES:
            if feature.extend is not None:
                feature.extend(self)

    def _maybe(self, chance: float) -> bool:
        return self.random.random() < chance

    def _filters(self, chance: float) -> dict[str, Any]:
        return {
            hook: self.random.choice(self.chains) if self.chains and self._maybe(chance) else None
            for hook in ("inbound", "outbound")
        }

    def _is_up(self) -> bool:
        return not self._maybe(0.04)

    def _draw_devices(self) -> None:
        for name in self.bridges:
            self.world.bridge(name, up=self._is_up(), **self._filters(0.3))
        for name in self.routers:
            self.world.router(name, up=self._is_up(), **self._filters(0.3))

    def _draw_ports(self) -> None:
        for name in (*LOCAL_PORTS, *_REMOTE_PORTS):
            host = "h1" if name in LOCAL_PORTS else self.random.choice(("h2", "h3"))
            located = not self._maybe(0.05)
            if self.routers and self._maybe(0.25):
                self._router_port(name, self.random.choice(self.routers), host, located)
            else:
                self.world.port(
                    name,
                    on=self.random.choice(self.bridges),
                    host=host,
                    up=self._is_up(),
                    located=located,
                    vlan=self.random.choice((10, 20)) if self._maybe(0.06) else 0,
                    **self._filters(0.15),
                )

    def _router_port(
        self, name: str, router: str, host: str | None = None, located: bool = True
    ) -> None:
        network = self.random.randrange(NETWORKS)
        addresses = [f"{host_address(IpVersion.V4, network, 1)}/24"]
        if self._maybe(0.85):
            addresses.append(f"{host_address(IpVersion.V6, network, 1)}/64")
        if self._maybe(0.1):
            addresses.pop(0)
        self.world.port(
            name,
            on=router,
            host=host,
            mac=format_mac(self.random.choice(ROUTER_MACS)),
            addresses=tuple(addresses),
            up=self._is_up(),
            located=located,
            routes=not self._maybe(0.1),
            **self._filters(0.15),
        )
        self.router_ports.append(name)

    def _draw_links(self) -> None:
        if len(self.bridges) > 1 and self._maybe(0.4):
            self._link_vlans()
        for index in range(self.random.randrange(4) if self.routers else 0):
            self._router_port(f"i{index}", self.random.choice(self.routers))
            vlan = self.random.choice((0, 0, 0, 0, 0, 10, 20))
            self.world.attach(f"i{index}", self.random.choice(self.bridges), vlan=vlan)
        if len(self.routers) > 1 and self._maybe(0.7):
            first, second = self.random.sample(self.routers, 2)
            self._router_port("x0", first)
            self._router_port("x1", second)
            self.world.link("x0", "x1")

    def _link_vlans(self) -> None:
        """Make the first bridge aware of VLANs; sometimes join bridges by a plain link."""
        trunk, *others = self.bridges
        for vlan, bridge in zip((10, 20), others, strict=False):
            self.world.port(f"v{vlan}", on=trunk, vlan=0 if self._maybe(0.2) else vlan)
            self.world.port(f"u{vlan}", on=bridge).link(f"v{vlan}", f"u{vlan}")

    def _draw_routes(self) -> None:
        views = self.world.view().ports
        for router in self.routers:
            ports = [
                name
                for name in self.router_ports
                if views[self.world.port_id(name)].router_id == self.world.id(router)
            ]
            for _ in range(self.random.randrange(2, 9)):
                self._draw_route(router, ports)

    def _draw_route(self, router: str, ports: list[str]) -> None:
        version = self.random.choice(tuple(IpVersion))
        network = self.random.randrange(NETWORKS)
        subnet = host_address(version, network, 0)
        v4 = version is IpVersion.V4
        destination = self.random.choice(
            (
                "0.0.0.0/0" if v4 else "::/0",
                "0.0.0.0/0" if v4 else "::/0",
                "172.16.0.0/12" if v4 else "2001:db8::/32",
                f"{subnet}/{24 if v4 else 64}",
                f"{host_address(version, network, 4)}/{30 if v4 else 126}",
                f"{host_address(version, network, 3)}/{32 if v4 else 128}",
            )
        )
        source = None
        if self._maybe(0.4):
            other = host_address(version, self.random.randrange(NETWORKS), 0)
            lengths = (24, 24, 23, 25, 10) if v4 else (64, 64, 31, 65, 33)
            source = f"{other}/{self.random.choice(lengths)}"
        kind = self.random.choices(
            (NextHopKind.NORMAL, NextHopKind.BLACKHOLE, NextHopKind.REJECT), (8, 1, 1)
        )[0]
        via = self.random.choice(ports) if ports and kind is NextHopKind.NORMAL else None
        if via is None and kind is NextHopKind.NORMAL:
            return
        gateway = None
        if self._maybe(0.7):
            gateway = str(
                host_address(
                    version, self.random.randrange(NETWORKS), self.random.randrange(1, HOSTS)
                )
            )
        self.world.route(
            router,
            destination,
            via=via,
            gateway=gateway,
            source=source,
            weight=self.random.choice((0, 0, 0, 5)),
            kind=kind,
        )

    # Chains.

    def _draw_chains(self) -> None:
        for name in self.chains:
            rules = []
            for _ in range(self.random.randrange(5)):
                if _RULES and self._maybe(0.3):
                    rules.append(self.random.choice(_RULES)(self))
                elif self._maybe(0.25):
                    target = self.random.choice(self.chains)
                    rules.append(rule(RuleAction.JUMP.value, jump=target, **self.condition()))
                else:
                    action = self.random.choice(_ACTIONS)
                    rules.append(rule(action, **self.condition()))
            self.world.chain(name, *rules)

    def own_condition(self) -> dict[str, Any]:
        """Return fields of a condition that no part adds to."""
        return self.condition(())

    def condition(self, features: Sequence[DrawCondition] = _CONDITIONS) -> dict[str, Any]:
        """Return fields of the condition of a rule. features: generators beside the own ones."""
        fields: dict[str, Any] = {}
        for _ in range(self.random.choice((1, 1, 2, 2, 3))):
            if features and self._maybe(0.2):
                fields.update(self.random.choice(features)(self))
            else:
                fields.update(self.random.choice(self._tests())())
        if self._maybe(0.15):
            fields["inverted"] = True
        if self._maybe(0.25):
            fields["fragment_policy"] = self.random.choice(tuple(FragmentPolicy))
        return fields

    def _tests(self) -> tuple[Callable[[], dict[str, Any]], ...]:
        return (
            self._network_test, self._network_test, self._network_test, self._l4_test,
            self._l4_test, self._mac_test, self._place_test, self._vlan_test, self._type_test,
            self._flow_test,
        )  # fmt: skip

    def _network_test(self) -> dict[str, Any]:
        random = self.random
        inverted = self._maybe(0.2)
        side = random.choice(("src", "dst"))
        version = random.choice(tuple(IpVersion))
        network = host_address(version, random.randrange(NETWORKS), 0)
        host = host_address(version, random.randrange(NETWORKS), random.randrange(1, HOSTS))
        lengths = (24, 30, 8, 17, 23) if version is IpVersion.V4 else (64, 126, 16, 33, 49, 65)
        prefix = random.choice((str(host), f"{network}/{random.choice(lengths)}"))
        return random.choice(
            (
                {f"ip_{side}": prefix, f"ip_{side}_inverted": inverted},
                {f"ip_{side}": prefix, f"ip_{side}_inverted": inverted},
                {"ip_proto": random.choice((TCP, UDP, ICMP, SCTP)), "ip_proto_inverted": inverted},
                {"ip_tos": random.choice((0, 0x20, 0xB8)), "ip_tos_inverted": inverted},
            )
        )

    def _l4_test(self) -> dict[str, Any]:
        side = self.random.choice(("src", "dst"))
        first, last = sorted(
            (self.random.choice((*PORTS, 512, 3)), self.random.choice((*PORTS, 0xFFFF)))
        )
        return {f"l4_{side}": PortRange(first, last), f"l4_{side}_inverted": self._maybe(0.2)}

    def _mac_test(self) -> dict[str, Any]:
        side = self.random.choice(("src", "dst"))
        mac = self.random.choice((*HOST_MACS, *ROUTER_MACS))
        mask = self.random.choice((0xFFFF_FFFF_FFFF, 0xFFFF_0000_0000, 0x1))
        return {
            f"eth_{side}": format_mac(mac),
            f"eth_{side}_mask": mask,
            f"eth_{side}_inverted": self._maybe(0.2),
        }

    def _place_test(self) -> dict[str, Any]:
        side = self.random.choice(("in", "out"))
        ports = tuple(self.random.sample((*LOCAL_PORTS, *_REMOTE_PORTS), 2))
        return {f"{side}_port_ids": ports, f"{side}_ports_inverted": self._maybe(0.2)}

    def _vlan_test(self) -> dict[str, Any]:
        return self.random.choice(({"no_vlan": True}, {"vlan": 10}))

    def _type_test(self) -> dict[str, Any]:
        eth_type = self.random.choice((0x0800, 0x86DD, 0x0806, 0x88CC))
        return {"eth_type": eth_type, "eth_type_inverted": self._maybe(0.3)}

    def _flow_test(self) -> dict[str, Any]:
        device = self.random.choice((*self.bridges, *self.routers))
        return self.random.choice(
            (
                {"match_forward_flow": True},
                {"match_return_flow": True},
                {
                    "traversed_device_id": self.world.id(device),
                    "traversed_device_inverted": self._maybe(0.3),
                },
            )
        )

    # Places and learnt state.

    def _draw_placement(self) -> None:
        for host in ("h2", "h3"):
            if self._maybe(0.05):
                self.world.no_tunnel(host)
            else:
                self.world.tunnel(
                    host,
                    kind=self.random.choice((TunnelKind.VXLAN, TunnelKind.GRE)),
                    max_inner_length=self.random.choice((1280, 1400, 1450)),
                )
            for bridge in self.bridges:
                if self._maybe(0.4):
                    key = 5000 + 10 * int(host[1]) + int(bridge[1])
                    self.world.flood_group(host, bridge, key)
        if self._maybe(0.1):
            self.world.absent("gone")

    def _draw_soft_state(self) -> None:
        world = self.world
        ports = world.view().ports
        bridge_ports = {
            name: port.bridge_id
            for name in (*LOCAL_PORTS, *_REMOTE_PORTS)
            if (port := ports[world.port_id(name)]).bridge_id
        }
        for mac in HOST_MACS:
            for name, bridge_id in bridge_ports.items():
                if self._maybe(0.3):
                    bridge = next(b for b in self.bridges if world.id(b) == bridge_id)
                    vlan = self.random.choice((0, 0, 10, 20))
                    world.mac_at(bridge, format_mac(mac), name, vlan=vlan)
        for version in IpVersion:
            for network in range(NETWORKS):
                for host in range(2, HOSTS):
                    self._draw_neighbour(str(host_address(version, network, host)))

    def _draw_neighbour(self, address: str) -> None:
        mac = format_mac(self.random.choice(HOST_MACS))
        if self._maybe(0.1):
            self.world.bridge_neighbour(self.random.choice(self.bridges), address, mac)
        for router in self.routers:
            if self._maybe(0.9):
                known = None if self._maybe(0.1) else mac
                self.world.neighbour(router, address, known, stale=self._maybe(0.1))
