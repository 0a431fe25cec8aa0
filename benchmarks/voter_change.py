"""How long writes pause while the voters of a site change under load: the longest time without an acknowledgement.

Rule: the site changes its voters by itself (1 to 2, 2 to 3, another in place of one that is removed, the leader among
them); writers go on through a node that stays, each connection with one PUT of 4 KiB outstanding. What a node that
starts takes of the processors is in the figure, since all nodes share this machine; so is what the load has without any
change, in the first row.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from itertools import cycle, pairwise
from pathlib import Path

from benchmarks import report, sites
from benchmarks.load import Request
from benchmarks.requests import presigned
from tests.faults.site import Site, SiteNode

CONNECTIONS = 8
OBJECT_BYTES = 4096
KEYS = 500
STILL_S = 5.0
BUCKET = "voters"


class Writers:
    """Writes through one node until stopped, and when each was acknowledged."""

    def __init__(self, node: SiteNode, requests: list[Request]) -> None:
        self.moments: list[float] = []
        self.refused = 0
        self.failed: list[Exception] = []
        self._address, self._stop = sites.address(node), threading.Event()
        self._threads = [
            threading.Thread(target=self._write_or_tell, args=(requests[number:] + requests[:number],))
            for number in range(CONNECTIONS)
        ]
        for thread in self._threads:
            thread.start()

    def _write_or_tell(self, requests: list[Request]) -> None:
        try:
            self._write(requests)
        except Exception as error:
            self.failed.append(error)

    def _write(self, requests: list[Request]) -> None:
        with socket.create_connection(self._address) as link:
            for request in cycle(requests):
                if self._stop.is_set():
                    return
                link.sendall(request.head + request.body)
                if link.recv(65536).startswith(b"HTTP/1.1 200"):
                    self.moments.append(time.monotonic())
                else:
                    self.refused += 1

    def stop(self) -> None:
        """Returns when all have ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()


def longest_gap_ms(site: Site, node: SiteNode, requests: list[Request], change: Callable[[], object]) -> float:
    """While `change` happens and until the site has settled. Raises RuntimeError where a write was refused."""
    writers = Writers(node, requests)
    begun = time.monotonic()
    try:
        time.sleep(1.0)
        change()
        sites.settle(site)
    finally:
        ended = time.monotonic()
        writers.stop()
    if writers.refused or writers.failed:
        raise RuntimeError(f"{writers.refused} writes were refused, and writers failed: {writers.failed}")
    return max(after - before for before, after in pairwise(sorted([begun, *writers.moments, ended]))) * 1000


def remove(site: Site, victim: SiteNode, asked: SiteNode) -> None:
    """For good, and its process ends."""
    number = next(row["number"] for row in sites.nodes_of(site) if row["address"] == victim.advertised)
    asked.command("node", "remove", str(number), "--yes")
    assert victim.process is not None
    victim.process.wait(60)


def measure() -> list[report.Row]:
    """One change after the other."""
    gaps: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as temporary, Site(Path(temporary), 5) as site:
        first = site.nodes[0]
        first.start()
        s3 = sites.client(first)
        s3.create_bucket(Bucket=BUCKET)
        keys = [f"key-{number:04d}" for number in range(KEYS)]

        def gap(node: SiteNode, change: Callable[[], object]) -> float:
            requests = presigned(sites.client(node), "PUT", BUCKET, keys, os.urandom(OBJECT_BYTES))
            return longest_gap_ms(site, node, requests, change)

        gaps["nothing changes, one voter"] = gap(first, lambda: time.sleep(STILL_S))
        gaps["1 to 2 voters: a node joins"] = gap(first, lambda: site.join(site.nodes[1]))
        gaps["2 to 3 voters: a node joins"] = gap(first, lambda: site.join(site.nodes[2]))
        gaps["nothing changes, three voters"] = gap(first, lambda: time.sleep(STILL_S))
        for spare in site.nodes[3:]:
            site.join(spare)
        sites.settle(site)
        stays, leaves = site.nodes[4], sites.leader(site)
        victim = next(node for node in site.nodes[:3] if node is not leaves)
        gaps["a follower is removed, another votes"] = gap(stays, lambda: remove(site, victim, stays))
        leads = sites.leader(site)
        stays = next(node for node in site.running() if node is not leads)
        gaps["the leader is removed"] = gap(stays, lambda: remove(site, leads, stays))
    return [report.Row(f"longest pause of writes, {name}", value, "ms", "<= 300") for name, value in gaps.items()]


if __name__ == "__main__":
    report.run(measure, __doc__.splitlines()[0])
