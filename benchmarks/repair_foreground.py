"""What clients feel of a repair: the 99th percentile of small GETs and PUTs before a node's death and while what it
held is made anew, at the limits that a site has by default.

Rule: the load goes to one node that stays, so that it is the same before and after; windows count while the site says
that something is left to repair at both of their ends. Only the waits before a repair are cut short.
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
WINDOWS = 3
LIMIT_S = 120.0
AT_ONCE = {"EDGESTORE_REPAIR_LAZY_WAIT_S": "0", "EDGESTORE_REPAIR_CRITICAL_WAIT_S": "0"}
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


def medians(windows: list[dict[str, float]]) -> dict[str, float]:
    """Over all windows."""
    return {method: statistics.median(window[method] for window in windows) for method in OBJECT_BYTES}


def prepare(node: SiteNode, folder: Path) -> dict[str, list[Request]]:
    """Objects to read, and the requests."""
    s3 = sites.client(node)
    s3.create_bucket(Bucket=LOAD)
    keys = [f"key-{number:04d}" for number in range(KEYS)]
    for key in keys:
        s3.put_object(Bucket=LOAD, Key=f"read/{key}", Body=os.urandom(OBJECT_BYTES["GET"]))
    return {
        "GET": presigned(s3, "GET", LOAD, [f"read/{key}" for key in keys]),
        "PUT": presigned(s3, "PUT", LOAD, keys, os.urandom(OBJECT_BYTES["PUT"])),
    }


def measure(gigabytes: float) -> list[report.Row]:
    """Before, and meanwhile."""
    with tempfile.TemporaryDirectory() as temporary, Site(Path(temporary), NODES) as site:
        for node in site.nodes:
            node.environment.update(AT_ONCE)
        sites.start(site)
        site.nodes[0].command("bucket", "create", BUCKET, "--scheme", SCHEME)
        fill(site, int(gigabytes * 1e9))
        gateway = sites.leader(site)
        requests = prepare(gateway, Path(temporary))
        before = medians([p99_ms(gateway, requests, Path(temporary)) for _ in range(WINDOWS)])
        next(node for node in site.nodes if node is not gateway).kill()
        windows: list[dict[str, float]] = []
        deadline_s = time.monotonic() + LIMIT_S
        while len(windows) < WINDOWS and time.monotonic() < deadline_s:
            if not left(site):
                if windows:
                    break
                time.sleep(0.2)
                continue
            window = p99_ms(gateway, requests, Path(temporary))
            if left(site):
                windows.append(window)
        if not windows:
            raise RuntimeError("the repair was over too soon: --gigabytes")
    during = medians(windows)
    return [
        report.Row(
            f"p99 of {method} of {OBJECT_BYTES[method]} bytes during a repair, {len(windows)} windows",
            during[method] / before[method],
            "x",
            "<= 1.3",
            "before, ms",
            before[method],
        )
        for method in OBJECT_BYTES
    ]


if __name__ == "__main__":
    report.run_sized(measure, __doc__.splitlines()[0], GIGABYTES)
