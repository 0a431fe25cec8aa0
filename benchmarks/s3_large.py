"""One object of 1 GiB: PUT against the lower of hashlib's MD5 and a raw disk write, GET from the page cache.

Rule: the limits are measured in the same run, in turn with the transfers; the client is a plain socket that does no
work.
"""

from __future__ import annotations

import hashlib
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import report, servers
from benchmarks.load import Request
from benchmarks.requests import client, presigned

OBJECT_BYTES = 1 << 30
PIECE_BYTES = 1 << 20
ROUNDS = 3


def exchange(address: tuple[str, int], request: Request, piece: bytes, pieces: int) -> tuple[float, int]:
    """Sends the head and `pieces` times `piece`; returns (seconds until the answer is whole, body bytes of the
    answer)."""
    with socket.create_connection(address) as link:
        started = time.perf_counter()
        link.sendall(request.head)
        for _ in range(pieces):
            link.sendall(piece)
        received = b""
        while b"\r\n\r\n" not in received:
            more = link.recv(65_536)
            if not more:
                raise ConnectionError("the server closed the connection without an answer")
            received += more
        head, _, rest = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(received.decode("latin-1"))
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        got, buffer = len(rest), bytearray(PIECE_BYTES)
        while got < length:
            taken = link.recv_into(buffer)
            if not taken:
                raise ConnectionError(f"the answer ended after {got} of {length} bytes")
            got += taken
        return time.perf_counter() - started, got


def md5_bytes_per_s(piece: bytes) -> float:
    """hashlib's MD5, one thread."""
    digest, started = hashlib.md5(usedforsecurity=False), time.perf_counter()
    for _ in range(OBJECT_BYTES // 4 // len(piece)):
        digest.update(piece)
    return OBJECT_BYTES / 4 / (time.perf_counter() - started)


def raw_write_bytes_per_s(folder: Path, piece: bytes) -> float:
    """Sequential write of the same amount, fdatasync at the end."""
    descriptor = os.open(folder / "raw", os.O_CREAT | os.O_WRONLY)
    started = time.perf_counter()
    for _ in range(OBJECT_BYTES // len(piece)):
        os.write(descriptor, piece)
    os.fdatasync(descriptor)
    elapsed = time.perf_counter() - started
    os.close(descriptor)
    (folder / "raw").unlink()
    return OBJECT_BYTES / elapsed


def measure() -> list[report.Row]:
    """Rounds of limit, PUT, GET."""
    piece = os.urandom(PIECE_BYTES)
    md5, raw, put, get = [], [], [], []
    with tempfile.TemporaryDirectory() as temporary, servers.edgestore(Path(temporary)) as server:
        s3 = client(server.endpoint, servers.ACCESS_KEY, servers.SECRET_KEY)
        s3.create_bucket(Bucket="large")
        for number in range(ROUNDS):
            md5.append(md5_bytes_per_s(piece))
            raw.append(raw_write_bytes_per_s(Path(temporary), piece))
            (upload,) = presigned(s3, "PUT", "large", [f"object-{number}"])
            head = upload.head.replace(b"Content-Length: 0", b"Content-Length: %d" % OBJECT_BYTES)
            seconds, _ = exchange(server.address, Request(head), piece, OBJECT_BYTES // PIECE_BYTES)
            put.append(OBJECT_BYTES / seconds)
            (download,) = presigned(s3, "GET", "large", [f"object-{number}"])
            for _ in range(2):
                seconds, got = exchange(server.address, download, b"", 0)
                if got != OBJECT_BYTES:
                    raise RuntimeError(f"{got} bytes came back")
            get.append(OBJECT_BYTES / seconds)
            s3.delete_object(Bucket="large", Key=f"object-{number}")
    limit = min(statistics.median(md5), statistics.median(raw))
    name = "hashlib MD5" if statistics.median(md5) < statistics.median(raw) else "raw disk write"
    return [
        report.Row(
            "PUT 1 GiB, ratio to the lower of MD5 and raw disk write",
            statistics.median(put) / limit,
            "x",
            ">= 0.7",
            name,
            limit / 1e9,
        ),
        report.Row("GET 1 GiB from page cache", statistics.median(get) / 1e9, "GB/s", ">= 1.8"),
    ]


if __name__ == "__main__":
    report.run(measure, __doc__.splitlines()[0])
