"""What clients feel of a repair: the 99th percentile of small GETs and PUTs while what a dead node held is made anew,
against the same while it is away and nothing is made anew; with the limits that a site has by default.

Rule: the load goes to one node that stays, so that it is the same throughout. The node is removed, so that repair
begins at once, and something is left to repair at the end of the last window. What a death costs by itself (reads that
have to be decoded) is told beside.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import report, sites
from benchmarks.load import Request, drive_elsewhere
from benchmarks.repair import BUCKET, NODES, SCHEME, fill
from benchmarks.requests import presigned
from tests.faults.site import Site, SiteNode

GIGABYTES = 6.0
CONNECTIONS = 8
OBJECT_BYTES = {"GET": 262_144, "PUT": 4096}
KEYS = 200
SECONDS = 3.0
WINDOWS = 5
LIMIT_S = 60.0
LOAD = "foreground"


def left(site: Site) -> int:
    """To repair."""
    return int(site.running()[0].status()["site"]["repair_left"])


def p99_ms(node: SiteNode, requests: dict[str, list[Request]], folder: Path) -> dict[str, float]:
    """One window of each kind of request."""
    found = {}
    for method, of_method in requests.items():
        outcome = drive_elsewhere(sites.address(node), of_method, folder, connections=CONNECTIONS, seconds=SECONDS)
        if outcome.failures:
            raise RuntimeError(f"{outcome.failures} of {outcome.requests} {method} failed")
        found[method] = outcome.percentile_ms(0.99)
    return found


def prepare(node: SiteNode, folder: Path) -> dict[str, list[Request]]:
    """Objects to read, and the requests."""
    s3 = sites.client(node)
    keys = [f"key-{number:04d}" for number in range(KEYS)]
    for key in keys:
        s3.put_object(Bucket=LOAD, Key=f"read/{key}", Body=os.urandom(OBJECT_BYTES["GET"]))
    return {
        "GET": presigned(s3, "GET", LOAD, [f"read/{key}" for key in keys]),
        "PUT": presigned(s3, "PUT", LOAD, keys, os.urandom(OBJECT_BYTES["PUT"])),
    }


def windows(node: SiteNode, requests: dict[str, list[Request]], folder: Path) -> dict[str, float]:
    """Medians of several."""
    found = [p99_ms(node, requests, folder) for _ in range(WINDOWS)]
    return {method: statistics.median(window[method] for window in found) for method in OBJECT_BYTES}


def lose(site: Site, gateway: SiteNode) -> int:
    """One node dies; returns its number when the others know that it is down."""
    victim = next(node for node in site.nodes if node is not gateway)
    number = next(row["number"] for row in sites.nodes_of(site) if row["address"] == victim.advertised)
    victim.kill()
    deadline_s = time.monotonic() + LIMIT_S
    while not any(row["number"] == number and row["state"] == "down" for row in sites.nodes_of(site)):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"node {number} is not down after {LIMIT_S} s")
        time.sleep(0.1)
    return int(number)


def measure(gigabytes: float) -> list[report.Row]:
    """Before, with a node away, and while what it held is made anew."""
    with tempfile.TemporaryDirectory() as temporary, Site(Path(temporary), NODES) as site:
        sites.start(site)
        site.nodes[0].command("bucket", "create", BUCKET, "--scheme", SCHEME)
        fill(site, int(gigabytes * 1e9))
        gateway, folder = sites.leader(site), Path(temporary)
        gateway.command("bucket", "create", LOAD, "--scheme", SCHEME)
        requests = prepare(gateway, folder)
        before = windows(gateway, requests, folder)
        number = lose(site, gateway)
        away = windows(gateway, requests, folder)
        gateway.command("node", "remove", str(number), "--yes")
        during = windows(gateway, requests, folder)
        if not left(site):
            raise RuntimeError("the repair was over too soon: --gigabytes")
    return [
        report.Row(
            f"p99 of {method} of {OBJECT_BYTES[method]} bytes during a repair ({before[method]:.1f} ms before a death)",
            during[method] / away[method],
            "x",
            "<= 1.3",
            "node away, no repair, ms",
            away[method],
        )
        for method in OBJECT_BYTES
    ]


if __name__ == "__main__":
    report.run_sized(measure, __doc__.splitlines()[0], GIGABYTES)
