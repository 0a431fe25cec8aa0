"""Ports for the servers of tests and benchmarks."""

from __future__ import annotations

import socket

_given: set[tuple[str, int]] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """One that nobody has now, and that nobody was given before: whoever was may not listen yet."""
    while True:
        with socket.socket() as probe:
            probe.bind((host, 0))
            port = int(probe.getsockname()[1])
        if (host, port) not in _given:
            _given.add((host, port))
            return port
