"""Datagram ends of the first-packet rows, as small programs.

python -m bench.datagrams echo PORT COUNT           answer on COUNT ports from PORT on
python -m bench.datagrams ask HOST PORT COUNT HOW   ask, `same` port or the `next` each time
python -m bench.datagrams spray HOST SECONDS        datagrams to ports that change each time
python -m bench.datagrams first HOST PORT           ask every 2 ms until the first answer
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time


def _say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def echo(port: str, count: str) -> None:
    """Answer whatever comes, until ended."""
    sockets = []
    for number in range(int(count)):
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind(("0.0.0.0", int(port) + number))
        sockets.append(bound)
    poll = select.poll()
    by_fd = {bound.fileno(): bound for bound in sockets}
    for fd in by_fd:
        poll.register(fd, select.POLLIN)
    _say(ready=True)
    while True:
        for fd, _event in poll.poll():
            data, peer = by_fd[fd].recvfrom(64)
            by_fd[fd].sendto(data, peer)


def ask(host: str, port: str, count: str, how: str) -> None:
    """Ask `count` times, one at a time; say the milliseconds of each and which were lost."""
    times: list[float] = []
    lost: list[int] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(1)
        for number in range(int(count)):
            target = int(port) + (number if how == "next" else 0)
            started = time.perf_counter_ns()
            asking.sendto(b"x", (host, target))
            try:
                asking.recv(64)
            except TimeoutError:
                lost.append(target)
            else:
                times.append((time.perf_counter_ns() - started) / 1e6)
    _say(times=times, lost=lost)


def spray(host: str, seconds: str) -> None:
    """Send to every port of a block from every port of the same block, one pair at a time."""
    until = time.monotonic() + float(seconds)
    sent = 0
    for source in range(0x9002, 0x9100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("0.0.0.0", source))
            for port in range(0x9002, 0x9100):
                sender.sendto(b"x", (host, port))
                sent += 1
            if time.monotonic() > until:
                break
    _say(sent=sent)


def first(host: str, port: str) -> None:
    """Ask until there is an answer; say when it came, on the machine's monotonic clock."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.002)
        _say(ready=True)
        while True:
            try:
                asking.sendto(b"x", (host, int(port)))
                asking.recv(64)
            except OSError:
                continue
            _say(at=time.monotonic())
            return


if __name__ == "__main__":
    {"echo": echo, "ask": ask, "spray": spray, "first": first}[sys.argv[1]](*sys.argv[2:])
