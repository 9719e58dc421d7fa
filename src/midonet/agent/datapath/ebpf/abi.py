"""The Python mirror of `bpf/include/midonet_abi.h`: layouts, enumerations and limits.

The header documents every field. A test compares name, offset and size of each field, and each
enumeration, with the BTF of the built object, so the two cannot part.

Header fields are in network byte order and therefore bytes here; all other integers are in the
byte order of the host. Nested structures are bytes of their own layout.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final, Literal

ABI_VERSION: Final = 4
OUTPUTS_MAX: Final = 1024
UPCALL_BYTES: Final = 2048
DROP_REASONS: Final = 128
OVERLAY_SLOT: Final = 0
TUNNELS_MAX: Final = 4096

MARK_OUTPUT: Final = 0x8000_0000
MARK_OUTPUT_MASK: Final = 0x1FFF_FFFF
MARK_INCARNATION_SHIFT: Final = 16
MARK_INCARNATION_MASK: Final = 0x3FFF


class RewriteField(IntFlag):
    """What a rewrite sets (`enum midonet_rewrite_field`)."""

    ETH_DST = 1 << 0
    ETH_SRC = 1 << 1
    POP_VLAN = 1 << 2
    PUSH_VLAN = 1 << 3
    IP_SRC = 1 << 4
    IP_DST = 1 << 5
    IP_TOS = 1 << 6
    L4_SRC = 1 << 7
    L4_DST = 1 << 8
    TTL = 1 << 9


class OutputKind(IntEnum):
    """Kinds of ways out (`enum midonet_output_kind`)."""

    NONE = 0
    LOCAL = 1
    VXLAN = 2
    GRE = 3


class ProgramFlag(IntFlag):
    """Verbs of a program (`enum midonet_program_flag`)."""

    UPCALL = 1 << 0


class OutputFlag(IntFlag):
    """What is to be known of a way out (`enum midonet_output_flag`)."""

    UPLINK = 1 << 0


class PortFlag(IntFlag):
    """State of a port slot (`enum midonet_port_flag`)."""

    ATTACHED = 1 << 0
    REDIRECT_PEER = 1 << 1
    GONE = 1 << 3
    IN_USE = 1 << 4


class PeerRole(IntEnum):
    """What an entry of the peers map says (`enum midonet_peer_role`)."""

    SENDER = 0
    OWN = 1
    ADDRESS = 2


class ConfigFlag(IntFlag):
    """Switches of the whole host (`enum midonet_config_flag`)."""

    COPY_TOS = 1 << 0
    SHARED_COUNTERS = 1 << 1
    COPY_EARLIER = 1 << 2


class Layout:
    """A structure without implicit padding: field names with `struct` format codes."""

    def __init__(self, name: str, *fields: tuple[str, str]) -> None:
        self.name = name
        self.struct = struct.Struct("=" + "".join(code for _, code in fields))
        self.size = self.struct.size
        self.fields = tuple(field for field, _ in fields)
        self._codes = tuple(code for _, code in fields)
        sizes = [struct.calcsize("=" + code) for code in self._codes]
        self.offsets = {
            field: (sum(sizes[:index]), sizes[index]) for index, field in enumerate(self.fields)
        }
        """Field to (offset, size) in bytes."""

    def pack(self, **values: int | bytes) -> bytes:
        """Return the bytes; fields that are not given are zero. Raises KeyError for others."""
        if not values.keys() <= self.offsets.keys():
            raise KeyError(f"{self.name} has no {sorted(values.keys() - self.offsets.keys())}")
        return self.struct.pack(
            *(
                values.get(field, b"" if code.endswith("s") else 0)
                for field, code in zip(self.fields, self._codes, strict=True)
            )
        )

    def unpack(self, data: bytes | memoryview) -> tuple[int | bytes, ...]:
        """Return the fields in order. Nested structures are bytes."""
        return self.struct.unpack_from(data)

    def integer(self, data: bytes | memoryview, field: str) -> int:
        """Return one integer field in host byte order."""
        offset, size = self.offsets[field]
        return int.from_bytes(data[offset : offset + size], HOST_ORDER)

    def part(self, data: bytes | memoryview, field: str) -> bytes:
        """Return the bytes of one field."""
        offset, size = self.offsets[field]
        return bytes(data[offset : offset + size])


HOST_ORDER: Final[Literal["little", "big"]] = "little" if struct.pack("=H", 1) == b"\1\0" else "big"

CLASS_KEY = Layout(
    "midonet_class_key",
    ("port", "I"),
    ("mask_id", "I"),
    ("eth_dst", "6s"),
    ("eth_src", "6s"),
    ("eth_type", "2s"),
    ("vlan_tci", "2s"),
    ("ip_proto", "B"),
    ("ip_tos", "B"),
    ("ip_frag", "B"),
    ("reserved0", "B"),
    ("l4_src", "2s"),
    ("l4_dst", "2s"),
    ("flow_hash", "4s"),
    ("reserved1", "I"),
    ("ip_src", "16s"),
    ("ip_dst", "16s"),
)
REWRITE = Layout(
    "midonet_rewrite",
    ("fields", "I"),
    ("eth_dst", "6s"),
    ("eth_src", "6s"),
    ("ip_src", "16s"),
    ("ip_dst", "16s"),
    ("l4_src", "2s"),
    ("l4_dst", "2s"),
    ("push_vlan", "2s"),
    ("ip_tos", "B"),
    ("ttl_decrement", "B"),
)
OUTPUT = Layout(
    "midonet_output",
    ("kind", "B"),
    ("reserved0", "B"),
    ("flags", "H"),
    ("target", "I"),
    ("incarnation", "I"),
    ("tunnel", "I"),
    ("rewrite", "56s"),
)
OUTPUT_RECORD = Layout(
    "midonet_output_record",
    ("sequence", "I"),
    ("identifier", "I"),
    ("output", "72s"),
)
TUNNEL = Layout(
    "midonet_tunnel",
    ("sequence", "I"),
    ("identifier", "I"),
    ("local", "16s"),
    ("remote", "16s"),
    ("family", "I"),
    ("ifindex", "I"),
    ("next_hop_family", "I"),
    ("next_hop", "16s"),
    ("reserved0", "I"),
)
GUARDS = Layout(
    "midonet_guards",
    ("max_length", "I"),
    ("ttl_above", "B"),
    ("flags", "B"),
    ("tcp_flags_clear", "B"),
    ("reserved0", "B"),
)
ACTION = Layout(
    "midonet_action",
    ("program_id", "I"),
    ("flags", "I"),
    ("guards", "8s"),
    ("drop_reason", "H"),
    ("output_count", "H"),
    ("first_output", "I"),
    ("output", "72s"),
)
PROGRAM = Layout(
    "midonet_program",
    ("sequence", "I"),
    ("reserved0", "I"),
    ("key", "72s"),
    ("mask", "72s"),
    ("action", "96s"),
    ("reserved1", "Q"),
)
PROGRAM_NOTE = Layout(
    "midonet_program_note",
    ("installed_ns", "Q"),
    ("expires_ns", "Q"),
    ("sample_key", "72s"),
    ("facts", "40s"),
)
PORT_MASKS = Layout(
    "midonet_port_masks",
    ("valid", "I"),
    ("uses_hash", "I"),
    ("generation", "Q"),
    ("other", f"{32 * 72}s"),
    ("ipv6", f"{32 * 72}s"),
)
STATISTICS = Layout(
    "midonet_statistics",
    ("packets", "Q"),
    ("bytes", "Q"),
    ("last_used_ns", "Q"),
    ("reserved0", "Q"),
)
PORT = Layout(
    "midonet_port",
    ("port_id", "16s"),
    ("flags", "I"),
    ("ifindex", "I"),
    ("incarnation", "I"),
    ("reserved0", "I"),
    ("upcall_interval_ns", "Q"),
    ("upcall_burst_ns", "Q"),
    ("copy_interval_ns", "Q"),
    ("copy_burst_ns", "Q"),
    ("interface_name", "16s"),
    ("mac", "6s"),
    ("reserved1", "H"),
)
PORT_STATE = Layout("midonet_port_state", ("upcall_tat_ns", "Q"), ("copy_tat_ns", "Q"))
INTERFACE = Layout("midonet_interface", ("slot", "I"), ("incarnation", "I"))
UPCALL = Layout(
    "midonet_upcall",
    ("received_ns", "Q"),
    ("port", "I"),
    ("incarnation", "I"),
    ("length", "I"),
    ("captured", "I"),
    ("gso_size", "I"),
    ("gso_segments", "I"),
    ("program_id", "I"),
    ("flow_hash", "I"),
    ("vlan_tci", "2s"),
    ("vlan_proto", "2s"),
    ("reason", "B"),
    ("reserved0", "B"),
    ("reserved1", "H"),
)
DELIVERY = Layout(
    "midonet_delivery",
    ("sequence", "I"),
    ("tunnel_key", "I"),
    ("port", "I"),
    ("incarnation", "I"),
    ("first_output", "I"),
    ("output_count", "I"),
)
PEER_KEY = Layout(
    "midonet_peer_key",
    ("local", "16s"),
    ("remote", "16s"),
    ("family", "I"),
    ("role", "I"),
)
PEER = Layout("midonet_peer", ("reserved0", "Q"))
CONFIG = Layout(
    "midonet_config",
    ("abi_version", "I"),
    ("flags", "I"),
    ("hash_seed", "Q"),
    ("vxlan_port", "2s"),
    ("reserved0", "H"),
    ("inject_ifindex", "I"),
    ("statistics_width", "I"),
    ("statistics_stride", "I"),
    ("output_slots", "I"),
    ("segment_ifindex", "I"),
    ("boot_offset_ns", "Q"),
)
KERNEL_LAYOUTS: Final = (
    CLASS_KEY, REWRITE, OUTPUT, OUTPUT_RECORD, TUNNEL, GUARDS, ACTION, PROGRAM, PROGRAM_NOTE,
    PORT_MASKS, STATISTICS, PORT, PORT_STATE, INTERFACE, UPCALL, DELIVERY, PEER_KEY, PEER, CONFIG,
)  # fmt: skip
"""All layouts, each of which a map or the ring holds."""
