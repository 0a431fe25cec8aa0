"""How TCP waits between nodes. Its own patience fits the internet: at least 200 ms until a lost packet is sent again,
then twice as long each time up to two minutes, while everything behind it on the connection waits too.

Rule: what a kernel does not know is left as it is; Linux takes the least and the longest wait from 6.15 on.
"""

from __future__ import annotations

import socket
import sys
from contextlib import suppress

from edgestore.config import NetConfig

TCP_THIN_LINEAR_TIMEOUTS = 16
TCP_RTO_MAX_MS = 44
TCP_RTO_MIN_US = 45
"""Of `linux/tcp.h`; `socket` does not name them."""


def prepare(connected: socket.socket, config: NetConfig) -> None:
    """A connection to or from another node: nothing waits for more to send, silence is noticed, and what was lost is
    soon sent again, on a connection with few packets under way without doubling the wait."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform != "linux":
        return
    for option, value in (
        (TCP_THIN_LINEAR_TIMEOUTS, 1),
        (TCP_RTO_MIN_US, config.retransmit_min_ms * 1000),
        (TCP_RTO_MAX_MS, config.retransmit_max_ms),
    ):
        with suppress(OSError):
            connected.setsockopt(socket.IPPROTO_TCP, option, value)
