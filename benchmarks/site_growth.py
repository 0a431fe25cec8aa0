"""How cost grows: commits a second at 3, 5 and 9 nodes and at 10^4, 10^5 and 10^6 objects, and the time to full
redundancy at the same sizes, as a table with the slope.

Rule: commits are PUTs of 200 bytes over 64 connections to the leader. A site of so many objects is repaired after the
death of one node that held a fixed amount of data, so what grows is the cost of looking, not of moving. The slope is
that of log(cost) over log(size): 0 is constant, 1 is linear. With `--into FILE` a run adds its points to those of
earlier ones and shows all of them, so that the whole can be measured in pieces: `--nodes 3 --objects`, then
`--nodes --objects 10000`, and so on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import repair, report, sites
from benchmarks.load import drive_elsewhere
from benchmarks.requests import presigned
from tests.faults.site import Site

NODES = (3, 5, 9)
OBJECTS = (10_000, 100_000, 1_000_000)
NODES_OF_OBJECTS = 4
VALUE_BYTES = 200
HELD_BYTES = 256 << 20
OBJECT_BYTES = 16 << 20
CONNECTIONS = 64
SECONDS = 4.0
FILL_AT_ONCE = 20_000
FILL_LIMIT_S = 3600.0
BUCKET = "growth"


@dataclass(frozen=True)
class Point:
    """One size of the site."""

    nodes: int
    objects: int
    commits_per_s: float
    repair_s: float


def put_small(site: Site, folder: Path, first: int, count: int, *, seconds: float, turns_max: float = 1) -> float:
    """PUTs of keys `first` and so on; how many a second."""
    node = sites.leader(site)
    keys = [f"key-{number:08d}" for number in range(first, first + count)]
    requests = presigned(sites.client(node), "PUT", BUCKET, keys, os.urandom(VALUE_BYTES))
    outcome = drive_elsewhere(
        sites.address(node), requests, folder, connections=CONNECTIONS, seconds=seconds, turns_max=turns_max
    )
    if outcome.failures:
        raise RuntimeError(f"{outcome.failures} of {outcome.requests} PUT failed")
    return outcome.per_second


def point(nodes: int, objects: int) -> Point:
    """A site of its own."""
    with tempfile.TemporaryDirectory() as temporary, repair.prepared(Path(temporary), nodes) as site:
        sites.start(site)
        site.nodes[0].command("bucket", "create", BUCKET)
        site.nodes[0].command("bucket", "create", repair.BUCKET, "--scheme", "1+1")
        for first in range(0, objects, FILL_AT_ONCE):
            count = min(FILL_AT_ONCE, objects - first)
            put_small(site, Path(temporary), first, count, seconds=FILL_LIMIT_S)
        again = min(objects, FILL_AT_ONCE)
        commits_per_s = put_small(site, Path(temporary), 0, again, seconds=SECONDS, turns_max=math.inf)
        repair.fill(site, HELD_BYTES, OBJECT_BYTES)
        repair_s = repair.seconds_to_whole(site, sites.followers(site)[-1])
    return Point(nodes, objects, commits_per_s, repair_s)


def slope(sizes: list[int], costs: list[float]) -> float:
    """Of log(cost) over log(size), by least squares."""
    if len(sizes) < 2:
        return 0.0
    xs, ys = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def show(points: list[Point], name: str) -> None:
    """A table of the points that differ in `name`."""
    table = Table(title=f"cost over {name}; {report.machine()}")
    for column in ("nodes", "objects", "commits/s", "node death to whole, s"):
        table.add_column(column)
    for one in points:
        table.add_row(str(one.nodes), f"{one.objects:,}", f"{one.commits_per_s:,.0f}", f"{one.repair_s:.1f}")
    sizes = [int(getattr(one, name)) for one in points]
    commits = slope(sizes, [1 / one.commits_per_s for one in points])
    repaired = slope(sizes, [one.repair_s for one in points])
    table.add_row("slope", "", f"{commits:+.2f} (cost of a commit)", f"{repaired:+.2f}")
    Console(width=120).print(table)


def earlier(path: Path | None) -> dict[tuple[int, int], Point]:
    """The points of earlier runs, by their size."""
    if path is None or not path.exists():
        return {}
    found = [Point(**one) for one in json.loads(path.read_text())]
    return {(one.nodes, one.objects): one for one in found}


def as_json(points: dict[tuple[int, int], Point]) -> str:
    """All of them, smallest first."""
    return json.dumps([asdict(points[key]) for key in sorted(points)], indent=1)


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of the tables")
    parser.add_argument("--into", type=Path, help="a file of points that this run adds its own to")
    parser.add_argument("--nodes", type=int, nargs="*", default=list(NODES), help="numbers of nodes")
    parser.add_argument("--objects", type=int, nargs="*", default=list(OBJECTS), help="numbers of objects")
    arguments = parser.parse_args()
    points = earlier(arguments.into)
    wanted = [(nodes, OBJECTS[0]) for nodes in arguments.nodes]
    wanted += [(NODES_OF_OBJECTS, objects) for objects in arguments.objects]
    for nodes, objects in wanted:
        points[nodes, objects] = point(nodes, objects)
        if arguments.into:
            arguments.into.write_text(as_json(points))
    if arguments.json:
        print(as_json(points))
        return
    by_nodes = [points[key] for key in sorted(points) if key[0] != NODES_OF_OBJECTS and key[1] == OBJECTS[0]]
    by_objects = [points[key] for key in sorted(points) if key[0] == NODES_OF_OBJECTS]
    if by_nodes:
        show(by_nodes, "nodes")
    if by_objects:
        show(by_objects, "objects")


if __name__ == "__main__":
    main()
