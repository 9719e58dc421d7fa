"""Apply a rewrite template to a frame: what the kernel program does to a packet, on bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from midonet.agent.flows.program import NO_REWRITE, DeepRewrite, Output, Rewrite
from midonet.packets.edit import FrameEditor
from midonet.packets.frame import parse_frame
from midonet.packets.nat64 import change_family

_MAX_LENGTH = 18 + 40 + 0xFFFF
"""No frame that states its IP length is longer, so a cut copy is parsed too."""


def apply_rewrite(frame: bytes, rewrite: Rewrite) -> bytes:
    """Return `frame` with the changes of `rewrite`, checksums included.

    Fields are found by the headers as the frame has them now; then a tag is popped, one is
    pushed, and the rest is written. A field the frame does not have is left out.
    Raises DecodeError when the frame is malformed, InternalError when its TTL is too low.
    """
    if rewrite == NO_REWRITE:
        return frame
    if rewrite.deep is not None and rewrite.deep.family is not None:
        packet = parse_frame(frame, length=max(_MAX_LENGTH, len(frame)))
        frame = change_family(packet, rewrite.deep.family)
        rewrite = replace(rewrite, deep=replace(rewrite.deep, family=None))
    editor = FrameEditor(parse_frame(frame, length=max(_MAX_LENGTH, len(frame))))
    if rewrite.pop_vlan:
        editor.pop_vlan()
    if rewrite.push_vlan is not None:
        editor.push_vlan(rewrite.push_vlan)
    if rewrite.eth_dst is not None:
        editor.set_eth_dst(rewrite.eth_dst)
    if rewrite.eth_src is not None:
        editor.set_eth_src(rewrite.eth_src)
    _rewrite_packet(editor, rewrite)
    if rewrite.deep is not None:
        _rewrite_deep(editor, rewrite.deep)
    return editor.frame()


def prepared(frame: bytes, outputs: Iterable[Output]) -> list[tuple[bytes, list[Output]]]:
    """Return what to give a datapath for these outputs: frames, each with outputs for it.

    What no program can do is done to the frame here, and the rest of the rewrite left to the
    datapath, so that all datapaths send out the same bytes.
    """
    parts: list[tuple[bytes, list[Output]]] = []
    made: dict[DeepRewrite | None, list[Output]] = {}
    for output in outputs:
        deep = output.rewrite.deep
        if deep not in made:
            made[deep] = []
            edited = frame if deep is None else apply_rewrite(frame, Rewrite(deep=deep))
            parts.append((edited, made[deep]))
        rest = output.rewrite if deep is None else replace(output.rewrite, deep=None)
        made[deep].append(replace(output, rewrite=rest))
    return parts


def _rewrite_deep(editor: FrameEditor, deep: DeepRewrite) -> None:
    if deep.icmp_id is not None:
        editor.set_icmp_id(deep.icmp_id)
    if deep.quoted_src is not None:
        editor.set_quoted_src(deep.quoted_src)
    if deep.quoted_dst is not None:
        editor.set_quoted_dst(deep.quoted_dst)
    if deep.quoted_l4_src is not None:
        editor.set_quoted_l4_src(deep.quoted_l4_src)
    if deep.quoted_l4_dst is not None:
        editor.set_quoted_l4_dst(deep.quoted_l4_dst)


def _rewrite_packet(editor: FrameEditor, rewrite: Rewrite) -> None:
    if rewrite.ip_src is not None:
        editor.set_ip_src(rewrite.ip_src)
    if rewrite.ip_dst is not None:
        editor.set_ip_dst(rewrite.ip_dst)
    if rewrite.ip_tos is not None:
        editor.set_ip_tos(rewrite.ip_tos)
    if rewrite.l4_src is not None:
        editor.set_l4_src(rewrite.l4_src)
    if rewrite.l4_dst is not None:
        editor.set_l4_dst(rewrite.l4_dst)
    if rewrite.ttl_decrement:
        editor.decrement_ttl(rewrite.ttl_decrement)
