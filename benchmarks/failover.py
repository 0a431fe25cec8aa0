"""From kill -9 of the leader to the first acknowledged write, against etcd in the same run.

Rule: in turn, several rounds, medians; the clock starts before the signal. The client asks the members that are left,
one after the other, and gives each the same short time. The killed member is back and has caught up before the next
round begins.
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks import etcd, report, servers, sites
from benchmarks.load import Request
from benchmarks.requests import presigned
from tests.faults.site import Site

ROUNDS = 7
TRY_S = 0.2
LIMIT_S = 30.0


def first_write_after(addresses: list[tuple[str, int]], request: Request, begun: float) -> float:
    """Seconds from `begun` (time.monotonic) to the first acknowledged PUT through any of the nodes."""
    while time.monotonic() - begun < LIMIT_S:
        for address in addresses:
            try:
                with socket.create_connection(address, timeout=TRY_S) as link:
                    link.sendall(request.head + request.body)
                    if link.recv(4096).startswith(b"HTTP/1.1 200"):
                        return time.monotonic() - begun
            except OSError:
                continue
    raise TimeoutError("the site acknowledges nothing")


def ours(site: Site, request: Request) -> float:
    """One round of a site."""
    leads = sites.leader(site)
    left = [sites.address(node) for node in site.nodes if node is not leads]
    begun = time.monotonic()
    leads.kill()
    took_s = first_write_after(left, request, begun)
    leads.start()
    sites.settle(site)
    return took_s


def theirs(peer: etcd.Etcd) -> float:
    """One round of etcd."""
    position = peer.leader()
    command = [str(word) for word in peer.processes[position].args]  # type: ignore[union-attr]
    begun = time.monotonic()
    peer.kill(position)
    took_s = etcd.first_put_after([port for number, port in enumerate(peer.ports) if number != position], begun)
    peer.processes[position] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    servers.wait_for_port(peer.ports[position], peer.processes[position])
    time.sleep(1.0)
    return took_s


def measure() -> list[report.Row]:
    """In turn."""
    own: list[float] = []
    peers: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / name for name in ("site", "etcd")]
        for folder in folders:
            folder.mkdir()
        with sites.site(folders[0], 3) as site, etcd.cluster(folders[1]) as peer:
            s3 = sites.client(site.nodes[0])
            s3.create_bucket(Bucket="failover")
            (request,) = presigned(s3, "PUT", "failover", ["first"], b"x")
            for _ in range(ROUNDS):
                own.append(ours(site, request))
                peers.append(theirs(peer))
    median, peer_median = statistics.median(own), statistics.median(peers)
    worst = f"worst of {ROUNDS}: {max(own):.2f} s"
    return [
        report.Row(f"kill -9 of the leader to the first write, median ({worst})", median, "s", "<= 1"),
        report.Row("... against etcd", median / peer_median, "x", "<= 0.7", "etcd, s", peer_median),
    ]


if __name__ == "__main__":
    report.run(measure, __doc__.splitlines()[0])
