"""Latency as the store grows: p50 of PUT and GET of 4 KiB at 1 million objects against that at 10,000.

Rule: the same node binary, two data folders, measured in turn with one connection, so that queueing hides nothing;
within a round every request is for a key of its own, so that what was read a moment ago does not answer for all.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import report, servers
from benchmarks.listing import fill
from benchmarks.load import drive_elsewhere
from benchmarks.requests import client, presigned

SIZES = {"small": 10_000, "large": 1_000_000}
ROUNDS = 5
KEYS_A_ROUND = 8000
OBJECT_BYTES = 4096


def measure() -> list[report.Row]:
    """Fills both folders, then measures in turn."""
    figures: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        running = {}
        for name, count in SIZES.items():
            folder = Path(temporary) / name
            folder.mkdir()
            fill(folder, "growth", [f"key-{number:07d}" for number in range(count)], os.urandom(OBJECT_BYTES))
            running[name] = stack.enter_context(servers.edgestore(folder))
        for _ in range(ROUNDS):
            for name, server in running.items():
                s3 = client(server.endpoint, servers.ACCESS_KEY, servers.SECRET_KEY)
                keys = [f"key-{number:07d}" for number in random.sample(range(SIZES[name]), KEYS_A_ROUND)]
                for method, body in (("GET", b""), ("PUT", os.urandom(OBJECT_BYTES))):
                    outcome = drive_elsewhere(
                        server.address,
                        presigned(s3, method, "growth", keys, body),
                        Path(temporary),
                        connections=1,
                        seconds=30,
                        turns_max=1,
                    )
                    if outcome.failures:
                        raise RuntimeError(f"{outcome.failures} {method} failed")
                    figures.setdefault((method, name), []).append(outcome.percentile_ms(0.5))
        start_s = servers.start_after_kill(running["large"], Path(temporary) / "large")
    rows = []
    for method in ("GET", "PUT"):
        small, large = (statistics.median(figures[method, name]) for name in ("small", "large"))
        rows.append(
            report.Row(
                f"p50 of {method} at 1 million objects / at 10,000",
                large / small,
                "x",
                "<= 1.3",
                "p50 ms at 10,000",
                small,
            )
        )
    rows.append(report.Row("start-up after kill -9 with 1 million objects", start_s, "s", "<= 3"))
    return rows


if __name__ == "__main__":
    report.run(measure, __doc__.splitlines()[0])
