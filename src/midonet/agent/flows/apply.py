"""Apply a rewrite template to a frame: what the kernel program does to a packet, on bytes."""

from __future__ import annotations

from midonet.agent.flows.program import NO_REWRITE, Rewrite
from midonet.packets.edit import FrameEditor
from midonet.packets.frame import parse_frame

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
    return editor.frame()


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
