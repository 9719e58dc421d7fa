"""How far a TCP conversation is after one more segment: the transitions, as data.

Each host sees the segments that enter there, which may be those of one direction only; the rest
it is told (`merged`). So every row holds for a conversation of which only one side is seen: a
forward segment with ACK says that the answer has come, since the sender would not send it else.

Sequence numbers are not looked at. A forged RST therefore closes a record; that costs nothing but
its longer lifetime, since packets of a closed connection still belong to it (RFC 6146 section
3.5.2.2 keeps such sessions for the transitory time as well).
"""

from __future__ import annotations

from typing import Final

from midonet.agent.flow_state.connection import Direction, TcpState
from midonet.packets.tcp import TcpFlag

_FIN, _SYN, _RST, _ACK = (
    int(flag) for flag in (TcpFlag.FIN, TcpFlag.SYN, TcpFlag.RST, TcpFlag.ACK)
)

WATCHED_FLAGS: Final = _FIN | _SYN | _RST
"""A segment with one of these begins or ends something; no program lets it by unseen."""

# Segments by what they say. SYN with FIN, and none of the four bits, say nothing.
NOTHING, OPEN, OPEN_ANSWER, GOES_ON, CLOSE, RESET = range(6)
"""Nothing; SYN; SYN and ACK; ACK; FIN; RST."""


def _kind(flags: int) -> int:
    if flags & _RST:
        return RESET
    if flags & _SYN:
        if flags & _FIN:
            return NOTHING
        return OPEN_ANSWER if flags & _ACK else OPEN
    if flags & _FIN:
        return CLOSE
    return GOES_ON if flags & _ACK else NOTHING


KINDS: Final = tuple(_kind(flags) for flags in range(256))
"""What a segment says, by its eight flag bits."""

_F, _R = Direction.FORWARD, Direction.RETURN
_NONE, _SYN_SENT, _SYN_RECEIVED, _ESTABLISHED = (
    TcpState.NONE,
    TcpState.SYN_SENT,
    TcpState.SYN_RECEIVED,
    TcpState.ESTABLISHED,
)
_FIN_FORWARD, _FIN_RETURN, _CLOSING, _CLOSED = (
    TcpState.FIN_FORWARD,
    TcpState.FIN_RETURN,
    TcpState.CLOSING,
    TcpState.CLOSED,
)

TRANSITIONS: Final[dict[tuple[TcpState, Direction, int], TcpState]] = {
    # Nothing seen yet, or begun in the middle.
    (_NONE, _F, OPEN): _SYN_SENT,
    (_NONE, _F, OPEN_ANSWER): _SYN_RECEIVED,
    (_NONE, _F, GOES_ON): _ESTABLISHED,
    (_NONE, _F, CLOSE): _FIN_FORWARD,
    (_NONE, _R, OPEN): _SYN_RECEIVED,
    (_NONE, _R, OPEN_ANSWER): _SYN_RECEIVED,
    (_NONE, _R, GOES_ON): _ESTABLISHED,
    (_NONE, _R, CLOSE): _FIN_RETURN,
    # A lone ACK from the other side answers an old connection (RFC 5961 section 4): no progress.
    (_SYN_SENT, _F, GOES_ON): _ESTABLISHED,
    (_SYN_SENT, _F, CLOSE): _FIN_FORWARD,
    (_SYN_SENT, _R, OPEN): _SYN_RECEIVED,
    (_SYN_SENT, _R, OPEN_ANSWER): _SYN_RECEIVED,
    (_SYN_SENT, _R, CLOSE): _FIN_RETURN,
    (_SYN_RECEIVED, _F, GOES_ON): _ESTABLISHED,
    (_SYN_RECEIVED, _F, CLOSE): _FIN_FORWARD,
    (_SYN_RECEIVED, _R, GOES_ON): _ESTABLISHED,
    (_SYN_RECEIVED, _R, CLOSE): _FIN_RETURN,
    (_ESTABLISHED, _F, CLOSE): _FIN_FORWARD,
    (_ESTABLISHED, _R, CLOSE): _FIN_RETURN,
    (_FIN_FORWARD, _R, CLOSE): _CLOSING,
    (_FIN_RETURN, _F, CLOSE): _CLOSING,
    # The last acknowledgement; what comes later is a repetition.
    (_CLOSING, _F, GOES_ON): _CLOSED,
    (_CLOSING, _R, GOES_ON): _CLOSED,
    **{(state, direction, RESET): _CLOSED for state in TcpState for direction in Direction},
}
"""Where a segment leads. What is not here leads nowhere: a state is never left backwards, and a
closed connection that is opened again is a new record (`tracking.py`)."""

_TABLE: Final = tuple(
    tuple(
        tuple(TRANSITIONS.get((state, direction, kind), state) for kind in KINDS)
        for direction in Direction
    )
    for state in TcpState
)


def advance(state: TcpState, direction: Direction, flags: int) -> TcpState:
    """Return the state after a segment in `direction` with the eight `flags`."""
    return _TABLE[state][direction][flags]


def merged(own: TcpState, told: TcpState) -> TcpState:
    """Return the state when this host has seen `own` and another `told` of one connection."""
    if {own, told} == {_FIN_FORWARD, _FIN_RETURN}:
        return _CLOSING
    return max(own, told)


def is_pure_syn(flags: int) -> bool:
    """Tell whether a segment opens a connection and does nothing else."""
    return KINDS[flags] == OPEN
