"""The kernel datapath in a namespace of its own, with ports and underlay leading to another.

    host namespace                         outside namespace
    [ datapath ]  p1, p2, ...  ---veth---  w1, w2, ...   packet sockets of the suite
                  u0           ---veth---  u1            the underlay

The test's thread lives in the host namespace while a harness is open. Frames that the kernel
took apart (a tag beside the bytes) are put together again when they are read.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from midonet.agent.datapath.ebpf import AttachMode, EbpfDatapath, FilterAttacher
from midonet.agent.datapath.ebpf.offload import NO_OFFLOAD, prepare_super_packet
from midonet.agent.datapath.protocol import PortAttachment
from midonet.agent.underlay.clsact import Clsact
from midonet.demo.namespaces import Namespace, ip_batch
from midonet.model.ids import PortId
from midonet.packets.addresses import IpAddress, IpVersion, parse_ip
from tests.contract.datapath_harness import Endpoints
from tests.netns.entering import entered

HASH_SEED = 0x0123_4567_89AB_CDEF
HOST_MAC, OUTSIDE_MAC = "02:00:00:00:0f:01", "02:00:00:00:0f:02"
_SOL_PACKET, _AUXDATA, _VNET_HDR = 263, 8, 15
_OUTGOING = 4
_RCVBUFFORCE = 33
_VLAN_VALID, _VLAN_TPID_VALID = 0x10, 0x40
_numbers = itertools.count()


class Tap:
    """A packet socket at an interface: sends frames, collects those that arrive there."""

    def __init__(self, interface: str) -> None:
        self._out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._out.setsockopt(_SOL_PACKET, _VNET_HDR, 1)
        self._out.bind((interface, 0))
        self._in = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(3)
        )
        self._in.setsockopt(_SOL_PACKET, _AUXDATA, 1)
        # Else frames are lost here when the test does something else for a moment.
        self._in.setsockopt(socket.SOL_SOCKET, _RCVBUFFORCE, 1 << 26)
        self._in.bind((interface, 3))
        self.frames: list[bytes] = []

    @property
    def mac(self) -> str:
        """The address of the interface."""
        address: bytes = self._out.getsockname()[4]
        return address.hex(":")

    def close(self) -> None:
        self._out.close()
        self._in.close()

    def send(self, frame: bytes, gso_size: int = 0) -> None:
        offload = NO_OFFLOAD
        if gso_size:
            offload, frame = prepare_super_packet(frame, gso_size)
        self.send_raw(offload, frame)

    def send_raw(self, offload: bytes, frame: bytes) -> None:
        """Send a frame with a virtio_net_hdr, whatever that says."""
        self._out.sendmsg([offload, frame])

    def read(self) -> list[bytes]:
        """Return all frames that have arrived so far."""
        while True:
            try:
                frame, ancillary, _, sender = self._in.recvmsg(1 << 17, 256)
            except BlockingIOError:
                return self.frames
            if sender[2] != _OUTGOING:
                self.frames.append(_with_tag(frame, ancillary))


def _with_tag(frame: bytes, ancillary: list[tuple[int, int, bytes]]) -> bytes:
    for level, kind, data in ancillary:
        if (level, kind) != (_SOL_PACKET, _AUXDATA):
            continue
        status, _, _, _, _, tci, tpid = struct.unpack_from("=IIIHHHH", data)
        if status & _VLAN_VALID:
            proto = tpid if status & _VLAN_TPID_VALID else 0x8100
            return frame[:12] + struct.pack("!HH", proto, tci) + frame[12:]
    return frame


def _short(port_id: PortId) -> str:
    """Return a part of an id that fits an interface name."""
    return f"{port_id.int & 0xFFFF_FFFF:x}"


class EbpfHarness:
    """See `DatapathHarness`. Made inside the host namespace."""

    hash_seed = HASH_SEED
    sends_offloaded = True
    underlay_interfaces = frozenset({"u0"})

    def __init__(
        self,
        datapath: EbpfDatapath,
        state_dir: Path,
        host: Namespace,
        outside: Namespace,
        stack: ExitStack,
    ) -> None:
        self.datapath = datapath
        self.state_dir = state_dir
        self.host = host
        self.outside = outside
        self._stack = stack
        self._taps: dict[PortId, Tap] = {}
        self._wire("u0", "u1", host_ipv6=True)
        host.ip(
            f"link set u0 address {HOST_MAC}",
            "address add 192.0.2.1/24 dev u0",
            "address add 2001:db8::1/64 dev u0 nodad",
            *(
                f"neighbour add {address} lladdr {OUTSIDE_MAC} dev u0 nud permanent"
                for address in ("192.0.2.2", "2001:db8::2")
            ),
        )
        outside.ip(f"link set u1 address {OUTSIDE_MAC}")
        self._underlay = self._tap("u1")
        self._peers = (b"\xc0\x00\x02\x02", parse_ip("2001:db8::2").value.to_bytes(16, "big"))

    def _wire(self, near: str, far: str, *, host_ipv6: bool = False) -> None:
        ip_batch(
            [
                f"link add {near} netns {self.host.name} type veth"
                f" peer name {far} netns {self.outside.name}"
            ]
        )
        if not host_ipv6:
            self.host.sysctl(f"net.ipv6.conf.{near}.disable_ipv6", 1)
        self.outside.sysctl(f"net.ipv6.conf.{far}.disable_ipv6", 1)
        self.host.ip(f"link set {near} addrgenmode none", f"link set {near} mtu 9000 up")
        self.outside.ip(f"link set {far} mtu 9000 up arp off")

    def _tap(self, interface: str) -> Tap:
        with entered(self.outside):
            tap = Tap(interface)
        self._stack.callback(tap.close)
        return tap

    def interface_name(self, port_id: PortId) -> str:
        return f"p{_short(port_id)}"

    def ifindex(self, port_id: PortId) -> int:
        return socket.if_nametoindex(self.interface_name(port_id))

    def add_interface(self, port_id: PortId) -> str:
        """Make the interface of a port, with a tap at its far end; return its name."""
        name = self.interface_name(port_id)
        far = f"w{_short(port_id)}"
        self._wire(name, far)
        self._taps[port_id] = self._tap(far)
        return name

    def add_port(
        self, port_id: PortId, *, upcalls_per_second: int = 5000, upcall_burst: int = 1000
    ) -> PortAttachment:
        name = self.add_interface(port_id)
        attachment = PortAttachment(port_id, name, upcalls_per_second, upcall_burst)
        self.datapath.attach(attachment)
        return attachment

    def send(self, port_id: PortId, frame: bytes, *, gso_size: int = 0) -> None:
        self._taps[port_id].send(frame, gso_size)

    def tap(self, port_id: PortId) -> Tap:
        return self._taps[port_id]

    def delivered(self, port_id: PortId) -> list[bytes]:
        return self._taps[port_id].read()

    def endpoints(self, version: IpVersion) -> Endpoints:
        prefix = "192.0.2." if version is IpVersion.V4 else "2001:db8::"
        return Endpoints(*(parse_ip(prefix + str(host)) for host in (1, 2, 3)))

    def send_outer(self, packet: bytes) -> None:
        eth_type = b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd"
        macs = bytes.fromhex((HOST_MAC + OUTSIDE_MAC).replace(":", ""))
        self._underlay.send(macs + eth_type + packet)

    def sent_outer(self) -> list[bytes]:
        return [frame[14:] for frame in self._underlay.read() if self._is_for_peer(frame)]

    def next_hops(self, remote: IpAddress) -> set[bytes]:
        """Return the MACs that IPv4 packets to `remote` were sent to since the last call."""
        wanted = remote.value.to_bytes(4, "big")
        return {frame[:6] for frame in self._underlay.read() if frame[30:34] == wanted}

    def _is_for_peer(self, frame: bytes) -> bool:
        if frame[12:14] == b"\x08\x00":
            return frame[30:34] == self._peers[0]
        return frame[12:14] == b"\x86\xdd" and frame[38:54] == self._peers[1]


@asynccontextmanager
async def ebpf_harness(
    max_programs: int = 1024,
    attach_mode: AttachMode = AttachMode.AUTO,
    filters: FilterAttacher | None = None,
) -> AsyncIterator[EbpfHarness]:
    """Open an `EbpfHarness` in namespaces that go with it."""
    number = f"mnc{os.getpid() % 100000}-{next(_numbers)}"
    host, outside = Namespace(f"{number}h"), Namespace(f"{number}w")
    with ExitStack() as stack:
        for each in (host, outside):
            each.create()
            stack.callback(each.delete)
        state_dir = stack.enter_context(tempfile.TemporaryDirectory(prefix="midonet-"))
        stack.enter_context(entered(host))
        if filters is None:
            filters = clsact = Clsact()
            stack.callback(clsact.close)
        datapath = EbpfDatapath(
            Path(state_dir),
            hash_seed=HASH_SEED,
            max_programs=max_programs,
            max_ports=16,
            attach_mode=attach_mode,
            filters=filters,
        )
        try:
            await datapath.open()
            yield EbpfHarness(datapath, Path(state_dir), host, outside, stack)
        finally:
            await datapath.uninstall()
