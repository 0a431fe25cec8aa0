"""Resident memory of a node: idle, and while 64 clients upload 100 MB each at once.

Rule: the highest value seen while the uploads run counts, read from the kernel every 20 ms.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from pathlib import Path

from benchmarks import report, servers
from benchmarks.load import Request
from benchmarks.requests import client, presigned

UPLOADS = 64
UPLOAD_BYTES = 100_000_000
PIECE = os.urandom(1_000_000)


def _upload(address: tuple[str, int], request: Request, failures: list[str]) -> None:
    with socket.create_connection(address) as link:
        link.settimeout(600)
        link.sendall(request.head.replace(b"Content-Length: 0", b"Content-Length: %d" % UPLOAD_BYTES))
        for _ in range(UPLOAD_BYTES // len(PIECE)):
            link.sendall(PIECE)
        answer = link.recv(65_536)
        if not answer.startswith(b"HTTP/1.1 200"):
            failures.append(answer.decode("latin-1"))


def measure() -> list[report.Row]:
    """Idle first, then the uploads."""
    with tempfile.TemporaryDirectory() as temporary, servers.edgestore(Path(temporary)) as server:
        time.sleep(2)
        idle = server.rss_bytes()
        s3 = client(server.endpoint, servers.ACCESS_KEY, servers.SECRET_KEY)
        s3.create_bucket(Bucket="memory")
        failures: list[str] = []
        requests = presigned(s3, "PUT", "memory", [f"upload-{number}" for number in range(UPLOADS)])
        threads = [threading.Thread(target=_upload, args=(server.address, request, failures)) for request in requests]
        for thread in threads:
            thread.start()
        peak = 0
        while any(thread.is_alive() for thread in threads):
            peak = max(peak, server.rss_bytes())
            time.sleep(0.02)
        if failures:
            raise RuntimeError(failures[0])
    return [
        report.Row("RSS idle", idle / 1e6, "MB", "<= 80"),
        report.Row("RSS with 64 uploads of 100 MB at once", peak / 1e6, "MB", "<= 250"),
    ]


if __name__ == "__main__":
    report.run(measure, __doc__.splitlines()[0])
