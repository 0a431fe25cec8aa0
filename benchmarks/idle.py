"""What a node of a site of three costs while nothing is asked of it, and what a witness does: CPU and resident memory
over a minute.

Rule: nobody asks the nodes anything while the clock runs; the figure is the worst node's, the leader among them.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from benchmarks import report, sites
from tests.faults.site import Site

SECONDS = 60.0
SETTLE_S = 5.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, all its threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def idle(site: Site) -> tuple[list[float], list[int]]:
    """CPU of each node as a share of one core, and its resident bytes."""
    time.sleep(SETTLE_S)
    servers = [sites.server(node) for node in site.nodes]
    before = [cpu_s(server.pid) for server in servers]
    started = time.monotonic()
    time.sleep(SECONDS)
    elapsed = time.monotonic() - started
    shares = [(cpu_s(server.pid) - used) / elapsed for server, used in zip(servers, before, strict=True)]
    return shares, [server.rss_bytes() for server in servers]


def measure() -> list[report.Row]:
    """A minute each."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / name for name in ("nodes", "witness")]
        for folder in folders:
            folder.mkdir()
        with sites.site(folders[0], 3) as site:
            shares, memory = idle(site)
        with Site(folders[1], 3) as site:
            site.nodes[-1].is_witness = True
            sites.start(site)
            with_witness, memory_with_witness = idle(site)
    return [
        report.Row("idle node of three, CPU, worst", max(shares) * 100, "% of a core", "<= 1"),
        report.Row("idle node of three, resident, worst", max(memory) / 1e6, "MB", "<= 100"),
        report.Row("idle witness of two nodes, CPU", with_witness[-1] * 100, "% of a core", "<= 1"),
        report.Row("idle witness of two nodes, resident", memory_with_witness[-1] / 1e6, "MB", "<= 100"),
    ]


if __name__ == "__main__":
    report.run(measure, __doc__.splitlines()[0])
