"""What the kernel is told of a connection between nodes."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator

import pytest

from edgestore.config import NetConfig
from edgestore.net import tcp


@pytest.fixture
def connected() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        with server.accept()[0]:
            yield client
        client.close()


def test_what_is_lost_is_sent_again_within_the_waits_that_were_set(connected: socket.socket) -> None:
    tcp.prepare(connected, NetConfig(retransmit_min_ms=70, retransmit_max_ms=1500))
    assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if sys.platform != "linux":
        return
    assert connected.getsockopt(socket.IPPROTO_TCP, tcp.TCP_THIN_LINEAR_TIMEOUTS) == 1
    try:
        longest_ms = connected.getsockopt(socket.IPPROTO_TCP, tcp.TCP_RTO_MAX_MS)
    except OSError:
        return  # a kernel before 6.15
    assert longest_ms == 1500
    least_us = connected.getsockopt(socket.IPPROTO_TCP, tcp.TCP_RTO_MIN_US)
    assert 70_000 <= least_us < 85_000  # in ticks of the kernel


def test_a_kernel_that_knows_none_of_it_is_served(connected: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TCP_THIN_LINEAR_TIMEOUTS", "TCP_RTO_MAX_MS", "TCP_RTO_MIN_US"):
        monkeypatch.setattr(tcp, name, 9999)
    tcp.prepare(connected, NetConfig())
    assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
