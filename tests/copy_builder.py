"""Mirrors, QoS policies and L2 insertions of the networks of tests. Objects go by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self
from uuid import UUID

from midonet.agent.topology.assembly import rule_view
from midonet.agent.topology.view import (
    BridgeView,
    ChainView,
    MirrorView,
    PortView,
    QosPolicyView,
    RouterView,
)
from midonet.model.chains import Condition
from midonet.model.ids import ChainId, L2InsertionId, MirrorId, PortId, QosPolicyId
from midonet.model.insertions import (
    L2Insertion,
    chains_of,
    inbound_chain_id,
    outbound_chain_id,
)


class CopyBuilder:
    """The part of a world that is about mirrors, marks and services."""

    def __init__(self) -> None:
        super().__init__()
        self._ports: dict[str, PortView] = {}
        self._bridges: dict[str, BridgeView] = {}
        self._routers: dict[str, RouterView] = {}
        self._chains: dict[ChainId, ChainView] = {}
        self._mirrors: dict[MirrorId, MirrorView] = {}
        self._insertions: list[L2Insertion] = []
        self._qos_policies: dict[QosPolicyId, QosPolicyView] = {}

    def id(self, name: str) -> UUID:
        """Return the identifier of the object with a name."""
        raise NotImplementedError

    def port_id(self, name: str) -> PortId:
        """Return the identifier of a port."""
        return PortId(self.id(name))

    def _condition(self, fields: dict[str, object]) -> Condition:
        raise NotImplementedError

    def mirror(self, name: str, to: str, *conditions: dict[str, object], **at: str) -> Self:
        """Add a mirror to the port `to`, at hooks of devices that are there.

        conditions: fields of Condition, {} for every packet. at: hook to device, such as
        `inbound="p1"`; the hooks are inbound, post_in_filter, pre_out_filter and outbound.
        """
        mirror_id = MirrorId(self.id(name))
        tests = tuple(self._condition(fields) for fields in conditions)
        self._mirrors[mirror_id] = MirrorView(mirror_id, self.port_id(to), tests)
        for hook, device in at.items():
            self._change(device, f"{hook}_mirror_ids", lambda ids: (*ids, mirror_id))
        return self

    def unwatched(self) -> Self:
        """Take all mirrors away."""
        for name in [*self._ports, *self._bridges, *self._routers]:
            for hook in ("inbound", "post_in_filter", "pre_out_filter", "outbound"):
                self._change(name, f"{hook}_mirror_ids", lambda _: ())
        self._mirrors.clear()
        return self

    def insert(
        self,
        port: str,
        service: str,
        mac: str,
        *,
        vlan: int = 0,
        position: int = 0,
        fail_open: bool = False,
    ) -> Self:
        """Let frames from and to a MAC at a port pass the service behind another port."""
        self._insertions.append(
            L2Insertion(
                id=L2InsertionId(self.id(f"{port} through {service} {mac}")),
                port_id=self.port_id(port),
                service_port_id=self.port_id(service),
                mac=mac,
                vlan=vlan,
                position=position,
                fail_open=fail_open,
            )
        )
        for name in (port, service):
            self._protect(name)
        return self

    def _protect(self, name: str) -> None:
        """Give a port the chains that its insertions come to."""
        port_id = self.port_id(name)
        protecting = [one for one in self._insertions if one.port_id == port_id]
        serving = [one for one in self._insertions if one.service_port_id == port_id]
        chains = chains_of(port_id, protecting, serving)
        inbound, outbound = inbound_chain_id(port_id), outbound_chain_id(port_id)
        for chain_id, rules in ((inbound, chains.inbound), (outbound, chains.outbound)):
            if rules:
                self._chains[chain_id] = ChainView(chain_id, tuple(map(rule_view, rules)))
        self._ports[name] = replace(
            self._ports[name],
            insertion_inbound_filter_id=inbound if chains.inbound else None,
            insertion_outbound_filter_id=outbound if chains.outbound else None,
            is_service=bool(serving),
        )

    def unmirror(self, name: str) -> Self:
        """Take a mirror away that no device names."""
        del self._mirrors[MirrorId(self.id(name))]
        return self

    def qos_policy(self, name: str, dscp: int | None, *devices: str) -> Self:
        """Add a QoS policy of ports or bridges that are there. dscp: 6 bits; None marks nothing."""
        policy_id = QosPolicyId(self.id(name))
        self._qos_policies[policy_id] = QosPolicyView(policy_id, dscp)
        for device in devices:
            self._change(device, "qos_policy_id", lambda _: policy_id)
        return self

    def unpolice(self, name: str) -> Self:
        """Take a QoS policy away that no device names."""
        del self._qos_policies[QosPolicyId(self.id(name))]
        return self

    def _change(self, name: str, field: str, new: Callable[[Any], object]) -> None:
        """Change a field of a port or device that has it."""
        for objects in (self._ports, self._bridges, self._routers):
            if name in objects and hasattr(objects[name], field):
                value = new(getattr(objects[name], field))
                objects[name] = replace(objects[name], **{field: value})  # type: ignore[arg-type,index]
