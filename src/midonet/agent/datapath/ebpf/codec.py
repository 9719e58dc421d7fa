"""Between values of the contract and the structures of the kernel ABI.

Only what needs no knowledge of slots and tables: keys, masks, rewrites, guards, addresses.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct

from midonet.agent.datapath.ebpf import abi
from midonet.agent.datapath.ebpf.abi import RewriteField
from midonet.agent.flows.mask import FlowMask
from midonet.agent.flows.program import NO_REWRITE, Guards, Rewrite
from midonet.errors import InternalError
from midonet.packets.addresses import IpAddress, IpVersion
from midonet.packets.flowkey import FlowKey
from midonet.packets.protocols import EtherType

_IPV6 = int(EtherType.IPV6)
_PLACE = Struct("=II")
_HEADER = Struct(">HIHIHHBBBxHHI4x")
_ADDRESSES = Struct(">IIIIIIII")
_WORD = 0xFFFF_FFFF
_PAD = bytes(12)
_REWRITE_HEAD = Struct("=I6s6s16s16s2s2s2sBB")
NO_REWRITE_BYTES = bytes(abi.REWRITE.size)


def pack_address(address: int, *, is_ipv6: bool) -> bytes:
    """Return the 16-byte form; of an IPv4 address (or mask) the low 32 bits count."""
    if is_ipv6:
        return address.to_bytes(16, "big")
    return (address & _WORD).to_bytes(4, "big") + _PAD


def unpack_address(data: bytes, *, is_ipv6: bool) -> int:
    """Return the plain number of a 16-byte form."""
    return int.from_bytes(data if is_ipv6 else data[:4], "big")


def pack_ip(address: IpAddress) -> bytes:
    """Return the 16-byte form of an address with its version."""
    return pack_address(address.value, is_ipv6=address.version == IpVersion.V6)


def unpack_ip(data: bytes, family: int) -> IpAddress:
    """Return the address of a 16-byte form. family: 4 or 6."""
    return IpAddress(IpVersion(family), unpack_address(data, is_ipv6=family == 6))


def pack_key(slot: int, mask_id: int, key: FlowKey, *, is_ipv6: bool | None = None) -> bytes:
    """Return a class key of 72 bytes. is_ipv6: form of the addresses, else by `key.eth_type`."""
    if is_ipv6 is None:
        is_ipv6 = key.eth_type == _IPV6
    header = _HEADER.pack(
        key.eth_dst >> 32, key.eth_dst & _WORD, key.eth_src >> 32, key.eth_src & _WORD,
        key.eth_type, key.vlan_tci, key.ip_proto, key.ip_tos, key.ip_frag,
        key.l4_src, key.l4_dst, key.flow_hash,
    )  # fmt: skip
    return (
        _PLACE.pack(slot, mask_id)
        + header
        + pack_address(key.ip_src, is_ipv6=is_ipv6)
        + pack_address(key.ip_dst, is_ipv6=is_ipv6)
    )


def unpack_key(data: bytes, *, is_ipv6: bool | None = None) -> FlowKey:
    """Return the header fields of a class key. is_ipv6: as in `pack_key`."""
    (
        dst_high, dst_low, src_high, src_low, eth_type, vlan_tci, ip_proto, ip_tos, ip_frag,
        l4_src, l4_dst, flow_hash,
    ) = _HEADER.unpack_from(data, 8)  # fmt: skip
    if is_ipv6 is None:
        is_ipv6 = eth_type == _IPV6
    return FlowKey(
        dst_high << 32 | dst_low, src_high << 32 | src_low, eth_type, vlan_tci, ip_proto, ip_tos,
        ip_frag, unpack_address(data[40:56], is_ipv6=is_ipv6),
        unpack_address(data[56:72], is_ipv6=is_ipv6), l4_src, l4_dst, flow_hash,
    )  # fmt: skip


def key_place(data: bytes) -> tuple[int, int]:
    """Return (port slot, mask id) of a class key."""
    slot, mask_id = _PLACE.unpack_from(data)
    return slot, mask_id


def pack_masks(mask: FlowMask) -> tuple[bytes, bytes]:
    """Return both kernel forms of a mask: for other packets and for IPv6.

    A mask is plain numbers; against an IPv4 address its low 32 bits count.
    """
    return pack_key(0, 0, mask, is_ipv6=False), pack_key(0, 0, mask, is_ipv6=True)


def unpack_mask(ipv6_form: bytes) -> FlowMask:
    """Return a mask from its IPv6 form, which holds all of it."""
    return unpack_key(ipv6_form, is_ipv6=True)


def _optional(value: int | None, size: int) -> bytes:
    return (value or 0).to_bytes(size, "big")


@lru_cache(maxsize=1024)
def pack_rewrite(rewrite: Rewrite, *, is_ipv6: bool) -> bytes:
    """Return a rewrite template. is_ipv6: version of the packets it is for.

    Many programs share a few templates (one a next hop), so they are kept.
    Raises InternalError for what no program can do (`Rewrite.deep`).
    """
    if rewrite == NO_REWRITE:
        return NO_REWRITE_BYTES
    if rewrite.deep is not None:
        raise InternalError("a rewrite that the agent has to do itself")
    fields = RewriteField(0)
    for present, field in (
        (rewrite.eth_dst is not None, RewriteField.ETH_DST),
        (rewrite.eth_src is not None, RewriteField.ETH_SRC),
        (rewrite.pop_vlan, RewriteField.POP_VLAN),
        (rewrite.push_vlan is not None, RewriteField.PUSH_VLAN),
        (rewrite.ip_src is not None, RewriteField.IP_SRC),
        (rewrite.ip_dst is not None, RewriteField.IP_DST),
        (rewrite.ip_tos is not None, RewriteField.IP_TOS),
        (rewrite.l4_src is not None, RewriteField.L4_SRC),
        (rewrite.l4_dst is not None, RewriteField.L4_DST),
        (rewrite.ttl_decrement > 0, RewriteField.TTL),
    ):
        if present:
            fields |= field
    return _REWRITE_HEAD.pack(
        fields,
        _optional(rewrite.eth_dst, 6),
        _optional(rewrite.eth_src, 6),
        pack_address(rewrite.ip_src or 0, is_ipv6=is_ipv6),
        pack_address(rewrite.ip_dst or 0, is_ipv6=is_ipv6),
        _optional(rewrite.l4_src, 2),
        _optional(rewrite.l4_dst, 2),
        _optional(rewrite.push_vlan, 2),
        rewrite.ip_tos or 0,
        rewrite.ttl_decrement,
    )


@lru_cache(maxsize=1024)
def unpack_rewrite(data: bytes, *, is_ipv6: bool) -> Rewrite:
    """Return a rewrite template read back. is_ipv6: as it was packed."""
    if data == NO_REWRITE_BYTES:
        return NO_REWRITE
    fields, eth_dst, eth_src, ip_src, ip_dst, l4_src, l4_dst, push_vlan, ip_tos, ttl = (
        _REWRITE_HEAD.unpack(data)
    )

    def number(field: RewriteField, value: bytes) -> int | None:
        return int.from_bytes(value, "big") if fields & field else None

    def address(field: RewriteField, value: bytes) -> int | None:
        return unpack_address(value, is_ipv6=is_ipv6) if fields & field else None

    return Rewrite(
        eth_dst=number(RewriteField.ETH_DST, eth_dst),
        eth_src=number(RewriteField.ETH_SRC, eth_src),
        pop_vlan=bool(fields & RewriteField.POP_VLAN),
        push_vlan=number(RewriteField.PUSH_VLAN, push_vlan),
        ip_src=address(RewriteField.IP_SRC, ip_src),
        ip_dst=address(RewriteField.IP_DST, ip_dst),
        ip_tos=ip_tos if fields & RewriteField.IP_TOS else None,
        l4_src=number(RewriteField.L4_SRC, l4_src),
        l4_dst=number(RewriteField.L4_DST, l4_dst),
        ttl_decrement=ttl,
    )


def pack_guards(guards: Guards) -> bytes:
    """Return guards. A limit of zero bytes lets no packet pass, as does one byte."""
    limit = guards.max_length
    return abi.GUARDS.struct.pack(
        0 if limit is None else max(limit, 1), guards.ttl_above, 0, guards.tcp_flags_clear, 0
    )


@lru_cache(maxsize=64)
def unpack_guards(data: bytes) -> Guards:
    """Return guards read back."""
    limit, ttl_above, _, tcp_flags_clear, _ = abi.GUARDS.struct.unpack(data)
    return Guards(ttl_above, limit or None, tcp_flags_clear)
