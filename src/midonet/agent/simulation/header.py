"""The header of the packet on its way: a working copy, and the record of what was read.

Devices read the header through `read` and its relatives, which enter the bits that mattered in
the mask, and change it through `write`. A field that was written holds a value that follows
from bits already recorded, so reading it afterwards records nothing more.

Copies (one for each branch of a flood) share the mask: what mattered to any branch matters.
"""

from __future__ import annotations

from midonet.agent.flows.mask import MAC_BITS
from midonet.agent.flows.program import NO_REWRITE, DeepRewrite, Rewrite
from midonet.errors import InternalError
from midonet.packets.address_kinds import AddressKind, classified
from midonet.packets.addresses import IpVersion
from midonet.packets.flowkey import VLAN_PRESENT, FlowKey, FragmentKind
from midonet.packets.protocols import EtherType, IpProtocol

ETH_DST = 0
ETH_SRC = 1
ETH_TYPE = 2
VLAN_TCI = 3
IP_PROTO = 4
IP_TOS = 5
IP_FRAG = 6
IP_SRC = 7
IP_DST = 8
L4_SRC = 9
L4_DST = 10
FLOW_HASH = 11

# Plain ints: comparing with a member of an enum costs twice as much, for each field of each packet.
ETH_TYPE_IPV4 = int(EtherType.IPV4)
ETH_TYPE_ARP = int(EtherType.ARP)
ETH_TYPE_IPV6 = int(EtherType.IPV6)

IP_PROTO_ICMP = int(IpProtocol.ICMP)
IP_PROTO_TCP = int(IpProtocol.TCP)
IP_PROTO_UDP = int(IpProtocol.UDP)
IP_PROTO_ICMPV6 = int(IpProtocol.ICMPV6)
IP_PROTO_SCTP = int(IpProtocol.SCTP)

PORT_PROTOCOLS = {
    ETH_TYPE_IPV4: frozenset((IP_PROTO_TCP, IP_PROTO_UDP, IP_PROTO_SCTP, IP_PROTO_ICMP)),
    ETH_TYPE_IPV6: frozenset((IP_PROTO_TCP, IP_PROTO_UDP, IP_PROTO_SCTP, IP_PROTO_ICMPV6)),
}
"""Protocols with ports, or a type and a code in their place, by the type of the frame."""

_IPV4_BITS = (1 << 32) - 1
_IPV6_BITS = (1 << 128) - 1
_FULL_IPV4 = [
    MAC_BITS,
    MAC_BITS,
    0xFFFF,
    0xFFFF,
    0xFF,
    0xFF,
    0xFF,
    _IPV4_BITS,
    _IPV4_BITS,
    0xFFFF,
    0xFFFF,
    0xFFFF_FFFF,
]
_FULL_IPV6 = [*_FULL_IPV4[:7], _IPV6_BITS, _IPV6_BITS, *_FULL_IPV4[9:]]
_VERSIONS = {
    ETH_TYPE_IPV4: IpVersion.V4,
    ETH_TYPE_ARP: IpVersion.V4,
    ETH_TYPE_IPV6: IpVersion.V6,
}
_ADDRESS_BITS = {IpVersion.V4: 32, IpVersion.V6: 128}


class Header:
    """Working copy of the header of one packet, on one branch of its way.

    Tags are a stack: the field VLAN_TCI is the outermost one, and a tag that is pushed keeps what
    was there beneath it, so that popping it gives back the very field, recorded or not.
    """

    __slots__ = (
        "_beneath",
        "deep",
        "is_popped",
        "length_change",
        "live",
        "mask",
        "ports",
        "ttl_decrement",
        "values",
    )

    def __init__(self, values: list[int], live: list[int], mask: list[int]) -> None:
        """Make a header of 12 `values` in the order of the key.

        live: the bits of each field that still are those of the packet as it entered.
        deep: what was changed behind these fields; it makes the outcome one for this packet only.
        length_change: bytes by which the IP packet is longer than when it entered.
        ports: those that stand in no field (`rewriting.tuple_now`), once they were changed.
        """
        self.values = values
        self.live = live
        self.mask = mask
        self.ttl_decrement = 0
        self.is_popped = False
        self.deep: DeepRewrite | None = None
        self.ports: tuple[int, int] | None = None
        self.length_change = 0
        self._beneath: tuple[tuple[int, int], ...] = ()

    @classmethod
    def from_key(cls, key: FlowKey) -> Header:
        """Return the header of a packet that has just entered."""
        full = _FULL_IPV6 if key.eth_type == ETH_TYPE_IPV6 else _FULL_IPV4
        return cls(list(key), full[:], [0] * 12)

    def copy(self) -> Header:
        """Return a copy for another branch; it records in the same mask."""
        other = Header(self.values[:], self.live[:], self.mask)
        other.ttl_decrement = self.ttl_decrement
        other.is_popped = self.is_popped
        other.deep = self.deep
        other.ports = self.ports
        other.length_change = self.length_change
        other._beneath = self._beneath
        return other

    def read(self, field: int) -> int:
        """Return a field; all of it mattered."""
        self.mask[field] |= self.live[field]
        return self.values[field]

    def read_bits(self, field: int, bits: int) -> int:
        """Return those bits of a field; only they mattered."""
        self.mask[field] |= self.live[field] & bits
        return self.values[field] & bits

    def record(self, field: int, bits: int) -> None:
        """Enter bits of a field that was looked at through `values`."""
        self.mask[field] |= self.live[field] & bits

    def record_prefix(self, field: int, length: int, width: int) -> None:
        """Enter the `length` leading bits of an address of `width` bits."""
        self.mask[field] |= self.live[field] & (((1 << length) - 1) << (width - length))

    def write(self, field: int, value: int) -> None:
        """Change a field."""
        self.values[field] = value
        self.live[field] = 0

    def written(self) -> tuple[int, ...]:
        """Return what distinguishes this header from others of the same packet.

        That are the values of the fields that were written, -1 for the others, and the TTL's
        decrement. Equality of two follows from bits already recorded.
        """
        fields = (*zip(self.values, self.live, strict=True), *self._beneath)
        return (self.ttl_decrement, *(-1 if live else value for value, live in fields))

    def ip_version(self) -> IpVersion | None:
        """Return the version of the addresses in the header (ARP has IPv4's), or None."""
        return _VERSIONS.get(self.read(ETH_TYPE))

    def address_kind(self, field: int, version: IpVersion) -> AddressKind:
        """Return the kind of the address in a field of a packet of that version."""
        kind, proof = classified(version, self.values[field])
        self.record_prefix(field, proof, version.bits)
        return kind

    def within(self, field: int, value: int, length: int, width: int) -> bool:
        """Tell whether an address is in a prefix; the shortest proof either way is recorded.

        value: any address of the prefix. width: of the address, 32 or 128 bits. The packet is
        known to be of that version.
        """
        difference = (self.values[field] ^ value) >> (width - length)
        if difference:
            length = length - difference.bit_length() + 1
        self.mask[field] |= self.live[field] & (((1 << length) - 1) << (width - length))
        return not difference

    def vlan_id(self) -> int:
        """Return the VLAN id of the outermost tag; 0 for none."""
        self.mask[VLAN_TCI] |= self.live[VLAN_TCI] & 0x1FFF
        return self.values[VLAN_TCI] & 0xFFF

    def pop_vlan(self) -> None:
        """Remove the outermost tag, which the caller has read."""
        if self._beneath:
            *rest, (self.values[VLAN_TCI], self.live[VLAN_TCI]) = self._beneath
            self._beneath = tuple(rest)
            return
        self.is_popped = self.is_popped or bool(self.live[VLAN_TCI])
        self.write(VLAN_TCI, 0)

    def push_vlan(self, vlan_id: int) -> None:
        """Put a tag on the frame, on top of those that it has.

        A rewrite has room for one: `rewrite` refuses more, so callers must.
        """
        self._beneath = (*self._beneath, (self.values[VLAN_TCI], self.live[VLAN_TCI]))
        self.write(VLAN_TCI, VLAN_PRESENT | vlan_id)

    def has_pushed_tag(self) -> bool:
        """Tell whether a tag is on the frame that it did not come with."""
        tags = ((self.values[VLAN_TCI], self.live[VLAN_TCI]), *self._beneath)
        return any(tci & VLAN_PRESENT and not live for tci, live in tags)

    def tag_count(self) -> int:
        """Return the number of tags on the frame, the one it came with included."""
        tags = ((self.values[VLAN_TCI], self.live[VLAN_TCI]), *self._beneath)
        for _, live in tags:
            self.mask[VLAN_TCI] |= live & VLAN_PRESENT
        return sum(1 for tag, _ in tags if tag & VLAN_PRESENT)

    def is_icmpv6_discovery(self) -> bool:
        """Tell whether this is discovery that bridges look into (RFC 4861 section 4): solicitation
        of routers, solicitation or advertisement of neighbours."""
        return (
            self.read(ETH_TYPE) == ETH_TYPE_IPV6
            and self.read(IP_PROTO) == IP_PROTO_ICMPV6
            and self.read(L4_SRC) in (133, 135, 136)
            and self.read(IP_FRAG) == FragmentKind.NONE
        )

    def rewrite(self) -> Rewrite:
        """Return the template that turns the packet as it entered into this one.

        Raises InternalError when two tags were pushed.
        """
        values, live = self.values, self.live
        if all(live) and not self.ttl_decrement and self.deep is None:
            return NO_REWRITE
        stack = (*self._beneath, (values[VLAN_TCI], live[VLAN_TCI]))
        pushed = [tci & ~VLAN_PRESENT for tci, kept in stack if tci & VLAN_PRESENT and not kept]
        if len(pushed) > 1:
            raise InternalError("a rewrite pushes one tag")
        push = pushed[0] if pushed else None
        return Rewrite(
            eth_dst=None if live[ETH_DST] else values[ETH_DST],
            eth_src=None if live[ETH_SRC] else values[ETH_SRC],
            pop_vlan=self.is_popped,
            push_vlan=push,
            ip_src=None if live[IP_SRC] else values[IP_SRC],
            ip_dst=None if live[IP_DST] else values[IP_DST],
            ip_tos=None if live[IP_TOS] else values[IP_TOS],
            l4_src=None if live[L4_SRC] else values[L4_SRC],
            l4_dst=None if live[L4_DST] else values[L4_DST],
            ttl_decrement=self.ttl_decrement,
            deep=self.deep,
        )
