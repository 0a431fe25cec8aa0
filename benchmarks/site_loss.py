"""What a site does where its network loses packets: writes, leaders and nodes called down, with real TCP and the kernel
dropping a share of all packets between nodes at random. Needs root, iproute2 and nftables.

Rule: nobody is dead, so every *down* is a wrong one; the one client reaches its node without loss, asks for one write
after the other, and waits as long as each takes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.table import Table

from benchmarks import sites
from tests.faults.namespaces import Namespaces
from tests.faults.site import Site

LOSSES = (0, 1, 5, 10, 20, 30)
SECONDS = 120.0
SETTLE_S = 10.0
BUCKET = "lossy"
VALUE = b"v" * 4096
EVENTS = {"down": "state=<NodeState.DOWN", "stepped down": "stepped-down group="}


@dataclass(frozen=True)
class Seen:
    """At one loss. `longest_gap_s`: between two acknowledged writes."""

    loss: int
    written: int
    refused: int
    longest_gap_s: float
    events: dict[str, int]


def events(site: Site) -> dict[str, int]:
    """How often each has been noted, by all nodes together."""
    lines = [line for node in site.nodes for line in node.log.read_text(errors="replace").splitlines()]
    return {name: sum(mark in line for line in lines) for name, mark in EVENTS.items()}


def write_for(site: Site, seconds: float) -> tuple[int, int, float]:
    """Writes one after the other; (written, refused, the longest gap in seconds)."""
    client = site.nodes[0].client()
    written = refused = 0
    longest_s, last_s = 0.0, time.monotonic()
    end_s = last_s + seconds
    while time.monotonic() < end_s:
        try:
            client.put_object(Bucket=BUCKET, Key=f"key-{written % 100}", Body=VALUE)
        except (BotoCoreError, ClientError):
            refused += 1
            time.sleep(0.05)
            continue
        written += 1
        longest_s, last_s = max(longest_s, time.monotonic() - last_s), time.monotonic()
    return written, refused, max(longest_s, time.monotonic() - last_s)


def measure(nodes: int, losses: tuple[int, ...], seconds: float) -> list[Seen]:
    """One loss after the other, on one site."""
    network, found = Namespaces(nodes), []
    network.open()
    try:
        with tempfile.TemporaryDirectory() as folder, Site(Path(folder), nodes, cuts=network) as site:
            for node in site.nodes:
                network.place(node)
            sites.start(site)
            site.wait_whole()
            site.nodes[0].client(5).create_bucket(Bucket=BUCKET)
            for loss in losses:
                network.heal()
                site.wait_live()
                time.sleep(SETTLE_S)
                network.lose(loss)
                before = events(site)
                written, refused, gap_s = write_for(site, seconds)
                after = events(site)
                found.append(Seen(loss, written, refused, gap_s, {name: after[name] - before[name] for name in after}))
            network.heal()
    finally:
        network.close()
    return found


def show(nodes: int, seconds: float, found: list[Seen]) -> None:
    """As a table."""
    table = Table(title=f"{nodes} nodes, {seconds:.0f} s at each loss, one client")
    for name in ("packets lost", "writes/s", "refused", "longest gap", *EVENTS):
        table.add_column(name, justify="right")
    for seen in found:
        figures = [f"{seen.loss} %", f"{seen.written / seconds:.1f}", str(seen.refused), f"{seen.longest_gap_s:.1f} s"]
        table.add_row(*figures, *(str(count) for count in seen.events.values()))
    Console().print(table)


def main() -> None:
    """`python -m benchmarks.site_loss [--nodes N] [--loss PERCENT ...] [--seconds S]`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--loss", type=int, nargs="+", default=LOSSES)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    options = parser.parse_args()
    show(options.nodes, options.seconds, measure(options.nodes, tuple(options.loss), options.seconds))


if __name__ == "__main__":
    main()
