"""Idle clients never take the descriptors that the disk will need."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SOFT, HARD = 200, 700


class Limited:
    """`edgestore serve` under a limit of open files."""

    def __init__(self, data: Path) -> None:
        self.log = data.parent / "node.log"
        limited = f'ulimit -Sn {SOFT}; ulimit -Hn {HARD}; exec "$0" -m edgestore serve --data {data} --s3 127.0.0.1:0'
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(["bash", "-c", limited, sys.executable], stdout=subprocess.PIPE, stderr=log)
        assert self.process.stdout is not None
        ready = self.process.stdout.readline().decode()
        self.port = int(ready.rsplit(":", 1)[1])

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(15)
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Limited]:
    """A node that may open few files."""
    limited = Limited(tmp_path / "data")
    yield limited
    if limited.process.poll() is None:
        limited.stop()


def test_soft_limit_is_raised_and_idle_clients_leave_the_rest_to_the_disk(node: Limited) -> None:
    pid = node.process.pid
    limits = re.search(r"Max open files +(\d+) +(\d+)", Path(f"/proc/{pid}/limits").read_text())
    assert limits is not None
    assert limits.groups() == (str(HARD), str(HARD))
    clamped = re.search(r"connections-clamped from=4096 to=(\d+)", node.log.read_text())
    assert clamped is not None
    idle = [socket.create_connection(("127.0.0.1", node.port), timeout=10) for _ in range(600)]
    deadline = time.monotonic() + 5
    while (refused := sum(is_closed(client) for client in idle)) < len(idle) - int(clamped.group(1)):
        assert time.monotonic() < deadline
    assert refused < len(idle)
    assert len(os.listdir(f"/proc/{pid}/fd")) < HARD - 400
    for client in idle:
        client.close()
    assert node.stop() == 0


def is_closed(client: socket.socket) -> bool:
    """Whether the node has ended the connection."""
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
