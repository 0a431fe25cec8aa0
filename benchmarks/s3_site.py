"""Small objects over three nodes: durable PUT of 4 KiB against puts of etcd, GET from a follower against one node.

Rule: the site, etcd and the lone node run side by side and are driven in turn, several rounds, medians. The PUTs go to
all three nodes, a third of the connections each; etcd is driven at its leader, which is its faster way. A follower
answers only what its leader has confirmed (linearizable).
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import etcd, report, servers, sites
from benchmarks.load import Request, drive_elsewhere
from benchmarks.requests import client, presigned
from tests.faults.site import Site

OBJECT_BYTES = 4096
CONNECTIONS = 64
NODES = 3
KEYS = 4000
FOLDERS = 100
SECONDS = 4.0
ROUNDS = 5
BUCKET = "benchmark"

Addresses = list[tuple[str, int]]


def prepare(s3: Any) -> dict[str, list[Request]]:
    """The bucket, and the requests of a run: every key is written before it is read."""
    s3.create_bucket(Bucket=BUCKET)
    keys = [f"folder-{number % FOLDERS:02d}/object-{number:06d}" for number in range(KEYS)]
    return {
        "PUT": presigned(s3, "PUT", BUCKET, keys, os.urandom(OBJECT_BYTES)),
        "GET": presigned(s3, "GET", BUCKET, keys),
    }


def per_second(
    addresses: Addresses, requests: list[Request], folder: Path, *, seconds: float = SECONDS, turns_max: float = 1e9
) -> float:
    """Answers a second; one that is an error stops the run."""
    outcome = drive_elsewhere(
        addresses, requests, folder, connections=CONNECTIONS, seconds=seconds, turns_max=turns_max
    )
    if outcome.failures:
        raise RuntimeError(f"{outcome.failures} of {outcome.requests} requests failed")
    return outcome.per_second


def measure() -> list[report.Row]:
    """Everything is filled, then measured in turn."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / name for name in ("site", "etcd", "one")]
        for folder in folders:
            folder.mkdir()
        with (
            sites.site(folders[0], NODES) as site,
            etcd.cluster(folders[1]) as peer,
            servers.edgestore(folders[2]) as one,
        ):
            return _rows(_figures(site, peer, one, Path(temporary)))


def _figures(site: Site, peer: etcd.Etcd, one: servers.Server, folder: Path) -> dict[str, float]:
    figures: dict[str, list[float]] = {name: [] for name in ("put", "etcd", "follower", "one")}
    of_site = prepare(sites.client(site.nodes[0]))
    of_one = prepare(client(one.endpoint, servers.ACCESS_KEY, servers.SECRET_KEY))
    everywhere = [sites.address(node) for node in site.nodes]
    per_second(everywhere, of_site["PUT"], folder, seconds=60, turns_max=1)
    per_second([one.address], of_one["PUT"], folder, seconds=60, turns_max=1)
    for _ in range(ROUNDS):
        figures["put"].append(per_second(everywhere, of_site["PUT"], folder))
        port = peer.ports[peer.leader()]
        puts = etcd.drive_elsewhere(port, outstanding=CONNECTIONS, seconds=SECONDS, value_bytes=OBJECT_BYTES)
        figures["etcd"].append(puts.per_second)
        figures["follower"].append(per_second([sites.address(sites.followers(site)[0])], of_site["GET"], folder))
        figures["one"].append(per_second([one.address], of_one["GET"], folder))
    return {name: statistics.median(values) for name, values in figures.items()}


def _rows(own: dict[str, float]) -> list[report.Row]:
    name = "etcd, puts of 4 KiB"
    return [
        report.Row("PUT 4 KiB over 3 nodes, ratio", own["put"] / own["etcd"], "x", ">= 1.5", name, own["etcd"]),
        report.Row("PUT 4 KiB over 3 nodes", own["put"], "1/s", ">= 4000", name, own["etcd"]),
        report.Row(
            "GET 4 KiB from a follower, linearizable, ratio",
            own["follower"] / own["one"],
            "x",
            ">= 0.5",
            "one node",
            own["one"],
        ),
    ]


if __name__ == "__main__":
    report.run(measure, __doc__.splitlines()[0])
