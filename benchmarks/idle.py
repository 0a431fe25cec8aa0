"""What a node of a site of three costs while nothing is asked of it: CPU and resident memory over a minute.

Rule: nobody asks the nodes anything while the clock runs; the figure is the worst node's, the leader among them.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from benchmarks import report, sites

SECONDS = 60.0
SETTLE_S = 5.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, all its threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def measure() -> list[report.Row]:
    """One minute."""
    with tempfile.TemporaryDirectory() as temporary, sites.site(Path(temporary), 3) as site:
        time.sleep(SETTLE_S)
        servers = [sites.server(node) for node in site.nodes]
        before = [cpu_s(server.pid) for server in servers]
        started = time.monotonic()
        time.sleep(SECONDS)
        elapsed = time.monotonic() - started
        shares = [(cpu_s(server.pid) - used) / elapsed for server, used in zip(servers, before, strict=True)]
        memory = [server.rss_bytes() for server in servers]
    return [
        report.Row("idle node of three, CPU, worst", max(shares) * 100, "% of a core", "<= 1"),
        report.Row("idle node of three, resident, worst", max(memory) / 1e6, "MB", "<= 100"),
    ]


if __name__ == "__main__":
    report.run(measure, __doc__.splitlines()[0])
