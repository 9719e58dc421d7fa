"""Who may send overlay packets to this host, and where the program listens for them."""

from __future__ import annotations

from collections.abc import Iterable

from midonet.agent.datapath.ebpf import abi, codec
from midonet.agent.datapath.ebpf.abi import PeerRole
from midonet.agent.datapath.ebpf.delivery_table import DeliveryGeneration
from midonet.agent.datapath.ebpf.hooks import UNDERLAY_PROGRAM, Hooks
from midonet.agent.datapath.ebpf.rtnetlink import RouteNetlink
from midonet.agent.datapath.ebpf.syscalls import BpfMap
from midonet.agent.datapath.protocol import OverlayConfig
from midonet.packets.addresses import IpAddress


def _sender(local: IpAddress, remote: IpAddress) -> bytes:
    return abi.PEER_KEY.pack(
        local=codec.pack_ip(local),
        remote=codec.pack_ip(remote),
        family=local.version,
        role=PeerRole.SENDER,
    )


def _address(remote: IpAddress) -> bytes:
    return abi.PEER_KEY.pack(
        remote=codec.pack_ip(remote), family=remote.version, role=PeerRole.ADDRESS
    )


def _own(local: IpAddress) -> bytes:
    return abi.PEER_KEY.pack(local=codec.pack_ip(local), family=local.version, role=PeerRole.OWN)


class UnderlayTable:
    """The peers map and the hooks on underlay interfaces."""

    def __init__(
        self,
        peers: BpfMap,
        generation: DeliveryGeneration,
        hooks: Hooks,
        netlink: RouteNetlink,
    ) -> None:
        self._peers = peers
        self._generation = generation
        self._hooks = hooks
        self._netlink = netlink

    def accept(self, config: OverlayConfig) -> None:
        """Accept overlay packets from the peers of `config` to its local addresses, no others.

        No port of a tenant reaches any of these addresses from now on.
        """
        wanted = {_own(local) for local in config.local_addresses}
        wanted |= {_address(each) for each in config.protected_addresses}
        wanted |= {
            _sender(local, peer)
            for local in config.local_addresses
            for peer in config.peers
            if peer.version == local.version
        }
        present = set(self._peers.keys())
        for key in present - wanted:
            self._peers.delete(key)
        self._generation.advance()
        for key in wanted - present:
            self._peers.update(key, abi.PEER.pack())

    def listen(self, interface_names: Iterable[str], others: set[int]) -> None:
        """Have the program at these interfaces and no others.

        others: interfaces that are no underlay ones: those of ports and the agent's own.
        Interfaces that do not exist are left out; call again when they appear.
        Raises DatapathError.
        """
        links = (self._netlink.link(name) for name in sorted(interface_names))
        interfaces = {link.ifindex for link in links if link is not None} - others
        for ifindex in self._hooks.attached(UNDERLAY_PROGRAM) - interfaces - others:
            self._hooks.detach(ifindex, UNDERLAY_PROGRAM)
        for ifindex in interfaces:
            self._hooks.attach(ifindex, UNDERLAY_PROGRAM)
