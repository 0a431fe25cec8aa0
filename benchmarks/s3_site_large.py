"""One object of 256 MiB over six nodes, 4+2: PUT and GET against one node's speed times k / (k + m).

Rule: the lone node and the site are on the same machine and take turns; the client is a plain socket that does no work.
Six nodes share the cores, so what a node of its own machine would do is more.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import report, servers, sites
from benchmarks.load import Request
from benchmarks.requests import client, presigned
from benchmarks.s3_large import PIECE_BYTES, exchange

OBJECT_BYTES = 256 << 20
NODES = 6
K, M = 4, 2
ROUNDS = 3
BUCKET = "large"


def transfer(s3: Any, address: tuple[str, int], key: str, piece: bytes) -> tuple[float, float]:
    """Bytes a second of a PUT and of the GET after it."""
    (upload,) = presigned(s3, "PUT", BUCKET, [key])
    head = upload.head.replace(b"Content-Length: 0", b"Content-Length: %d" % OBJECT_BYTES)
    put_s, _ = exchange(address, Request(head), piece, OBJECT_BYTES // PIECE_BYTES)
    (download,) = presigned(s3, "GET", BUCKET, [key])
    get_s, got = exchange(address, download, b"", 0)
    if got != OBJECT_BYTES:
        raise RuntimeError(f"{got} bytes came back")
    s3.delete_object(Bucket=BUCKET, Key=key)
    return OBJECT_BYTES / put_s, OBJECT_BYTES / get_s


def measure() -> list[report.Row]:
    """Both in turn."""
    piece = os.urandom(PIECE_BYTES)
    figures: dict[str, list[tuple[float, float]]] = {"one": [], "site": []}
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / name for name in ("one", "site")]
        for folder in folders:
            folder.mkdir()
        with servers.edgestore(folders[0]) as one, sites.site(folders[1], NODES) as site:
            node = site.nodes[0]
            runs = {
                "one": (client(one.endpoint, servers.ACCESS_KEY, servers.SECRET_KEY), one.address),
                "site": (sites.client(node), sites.address(node)),
            }
            for s3, _ in runs.values():
                s3.create_bucket(Bucket=BUCKET)
            for number in range(ROUNDS):
                for name, (s3, address) in runs.items():
                    figures[name].append(transfer(s3, address, f"object-{number}", piece))
    rows = []
    for at, verb in enumerate(("PUT", "GET")):
        own, lone = (statistics.median(run[at] for run in figures[name]) for name in ("site", "one"))
        bound = lone * K / (K + M)
        claim = f"{verb} 256 MiB over 6 nodes {K}+{M}, ratio ({own / 1e6:,.0f} MB/s)"
        rows.append(report.Row(claim, own / bound, "x", ">= 0.5", "one node x k/(k+m), MB/s", bound / 1e6))
    return rows


if __name__ == "__main__":
    report.run(measure, __doc__.splitlines()[0])
