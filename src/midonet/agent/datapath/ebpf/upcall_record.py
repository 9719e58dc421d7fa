"""From a record of the upcall ring to an `Upcall`."""

from __future__ import annotations

from midonet.agent.datapath.ebpf import abi
from midonet.agent.datapath.ebpf.offload import complete_checksum
from midonet.agent.datapath.ebpf.slots import PortSlots
from midonet.agent.datapath.protocol import Upcall, UpcallReason

_TAG_SIZE = 4


def state_frame(record: bytes) -> bytes | None:
    """Return the frame of a record that is no packet of a port but a state frame; else None."""
    if abi.UPCALL.integer(record, "reason") != UpcallReason.STATE:
        return None
    captured = abi.UPCALL.integer(record, "captured")
    return record[abi.UPCALL.size : abi.UPCALL.size + captured]


def parse_upcall(record: bytes, slots: PortSlots) -> Upcall | None:
    """Return the upcall; None when its port has gone since.

    The outermost tag, which the kernel keeps beside the bytes, is put in place.
    """
    (
        received_ns, port, incarnation, length, captured, gso_size, _, program_id, flow_hash,
        vlan_tci, vlan_proto, reason, _, _,
    ) = abi.UPCALL.struct.unpack_from(record)  # fmt: skip
    slot = slots.at(port)
    if slot is None or slot.incarnation != incarnation or not slot.is_attached:
        return None
    frame = record[abi.UPCALL.size : abi.UPCALL.size + captured]
    if vlan_proto != b"\0\0":
        frame = frame[:12] + vlan_proto + vlan_tci + frame[12:]
        length += _TAG_SIZE
    if not gso_size and length == len(frame):
        frame = complete_checksum(frame)
    return Upcall(
        slot.port_id,
        frame,
        length,
        UpcallReason(reason),
        gso_size=gso_size,
        program_id=program_id,
        flow_hash=flow_hash,
        received_ns=received_ns,
    )
