"""Durable replicated commits of 200 bytes with 1, 16 and 128 outstanding, against etcd in the same run.

Rule: three members each, fsync on; the load is a process of its own that talks to the leader over the network, ours
over mutual TLS as between members, etcd's in the clear. Ours is the consensus, net and disk of a node under the
smallest state machine, a dictionary, as etcd's is a map; what the whole catalog adds is told by the S3 rows, whose
client speaks S3 to one node.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import commits, etcd, report, sites
from benchmarks.load import drive_elsewhere
from benchmarks.requests import presigned
from tests.faults.site import Site

VALUE_BYTES = 200
OUTSTANDING = {1: 1.0, 16: 2.0, 128: 3.0}
SECONDS = 3.0
ROUNDS = 3
KEYS = 1000

Drive = Callable[[int], float]
"""Commits a second with so many outstanding."""


def measure() -> list[report.Row]:
    """All three run; they are driven in turn."""
    figures: dict[tuple[str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary) / name for name in ("ours", "etcd", "s3")}
        for folder in folders.values():
            folder.mkdir()
        with (
            commits.members(folders["ours"]),
            etcd.cluster(folders["etcd"]) as peer,
            sites.site(folders["s3"], commits.MEMBERS) as site,
        ):
            drives = {"ours": _ours(folders["ours"]), "etcd": _etcd(peer), "s3": _s3(site, folders["s3"])}
            for _ in range(ROUNDS):
                for outstanding in OUTSTANDING:
                    for name, drive in drives.items():
                        figures.setdefault((name, outstanding), []).append(drive(outstanding))
    median = {key: statistics.median(values) for key, values in figures.items()}
    rows = []
    for name, what, reach in (("ours", "replicated commits", 1.0), ("s3", "the same by S3 PUT, whole catalog", 0.0)):
        for outstanding, bound in OUTSTANDING.items():
            ours, theirs = median[name, outstanding], median["etcd", outstanding]
            claim = f"{what}, {outstanding} outstanding ({ours:,.0f}/s)"
            rows.append(report.Row(claim, ours / theirs, "x", f">= {bound * reach:g}", "etcd, 1/s", theirs))
    return rows


def _ours(folder: Path) -> Drive:
    return lambda outstanding: (
        commits.drive_elsewhere(folder, outstanding=outstanding, seconds=SECONDS, value_bytes=VALUE_BYTES).per_second
    )


def _etcd(peer: etcd.Etcd) -> Drive:
    port = peer.ports[peer.leader()]
    return lambda outstanding: (
        etcd.drive_elsewhere(port, outstanding=outstanding, seconds=SECONDS, value_bytes=VALUE_BYTES).per_second
    )


def _s3(site: Site, folder: Path) -> Drive:
    node = sites.leader(site)
    s3 = sites.client(node)
    s3.create_bucket(Bucket="commits")
    keys = [f"key-{number}" for number in range(KEYS)]
    requests = presigned(s3, "PUT", "commits", keys, os.urandom(VALUE_BYTES))

    def drive(outstanding: int) -> float:
        outcome = drive_elsewhere(sites.address(node), requests, folder, connections=outstanding, seconds=SECONDS)
        if outcome.failures:
            raise RuntimeError(f"{outcome.failures} of {outcome.requests} PUT failed")
        return outcome.per_second

    return drive


if __name__ == "__main__":
    report.run(measure, __doc__.splitlines()[0])
