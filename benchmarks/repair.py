"""From a node's death to full redundancy, unthrottled, against the speed at which the machine copies the same bytes.

Rule: four nodes keep the bucket as 2+1, so that three can take over; the clock runs from kill -9 until the survivors
report that nothing is left, the seconds until the death is noticed included. What counts as repaired is what the dead
node held; what had to be read, sent and checked for it (twice as much) is not counted.

The copy is of the dead node's own segments, just before it dies: as many bytes as repair has to write, of the same age
in the page cache, into new files of the same disk, synced when all are written. The size matters: memory and blocks
that a virtual machine was never given before cost both sides three times as much as those it has used a moment ago, so
a small file copied twice says nothing of ten gigabytes. Both begin after the disk has been idle for some seconds, in
which freed memory goes back to the host.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import report, sites
from benchmarks.load import Request
from benchmarks.requests import presigned
from benchmarks.s3_large import PIECE_BYTES, exchange
from tests.faults.site import Site, SiteNode

NODES = 4
SCHEME = "2+1"
GIGABYTES = 10.0
OBJECT_BYTES = 64 << 20
SETTLE_S = 5.0
LIMIT_S = 3600.0
QUIET_S = 2.0
POLL_S = 0.2
BUCKET = "repair"
UNTHROTTLED = {
    "EDGESTORE_REPAIR_LAZY_WAIT_S": "0",
    "EDGESTORE_REPAIR_CRITICAL_WAIT_S": "0",
    "EDGESTORE_REPAIR_BYTES_PER_S": "10000000000",
}


def copy_speeds(sources: Sequence[Path], folder: Path) -> tuple[float, float]:
    """Bytes a second of a copy, and of another one at once, into memory and blocks that were just used."""
    os.sync()
    time.sleep(SETTLE_S)
    speeds = _copied_per_s(sources, folder), _copied_per_s(sources, folder)
    os.sync()
    time.sleep(SETTLE_S)
    return speeds


def _copied_per_s(sources: Sequence[Path], folder: Path) -> float:
    """Reads files and writes others, all synced at the end."""
    targets = [folder / f"copy-{number}" for number in range(len(sources))]
    copied, started = 0, time.perf_counter()
    for source, target in zip(sources, targets, strict=True):
        with source.open("rb") as read, target.open("wb") as written:
            while data := read.read(PIECE_BYTES):
                copied += written.write(data)
    for target in targets:
        with target.open("rb+") as written:
            os.fdatasync(written.fileno())
    elapsed = time.perf_counter() - started
    for target in targets:
        target.unlink()
    return copied / elapsed


def fill(site: Site, size_bytes: int, object_bytes: int = OBJECT_BYTES) -> None:
    """Objects of random bytes, through all nodes in turn."""
    piece = os.urandom(PIECE_BYTES)
    for number in range(max(1, size_bytes // object_bytes)):
        node = site.nodes[number % len(site.nodes)]
        (upload,) = presigned(sites.client(node), "PUT", BUCKET, [f"object-{number:06d}"])
        head = upload.head.replace(b"Content-Length: 0", b"Content-Length: %d" % object_bytes)
        exchange(sites.address(node), Request(head), piece, object_bytes // PIECE_BYTES)


def held_bytes(node: SiteNode) -> int:
    """What its segments take."""
    return sum(path.stat().st_blocks * 512 for path in segments_of(node))


def segments_of(node: SiteNode) -> list[Path]:
    """The files of its fragments."""
    return sorted(path for path in (node.data / "segments").rglob("*") if path.is_file())


def seconds_to_whole(site: Site, victim: SiteNode) -> float:
    """Kills the node; returns when the others say that all is whole without it. Raises TimeoutError."""
    number = next(row["number"] for row in sites.nodes_of(site) if row["address"] == victim.advertised)
    begun = time.monotonic()
    victim.kill()
    whole_s = 0.0
    while time.monotonic() - begun < LIMIT_S:
        found: dict[str, Any] = site.running()[0].status()["site"]
        now_s = time.monotonic() - begun
        is_down = any(row["number"] == number and row["state"] != "up" for row in found["nodes"])
        if not is_down or found["repair_left"]:
            whole_s = 0.0
        elif not whole_s:
            whole_s = now_s
        elif now_s - whole_s > QUIET_S:
            return whole_s
        time.sleep(POLL_S)
    raise TimeoutError(f"after {LIMIT_S} s: {found}")


def prepared(folder: Path, nodes: int) -> Site:
    """A site whose repair waits for nothing and knows no limit, not started."""
    site = Site(folder, nodes)
    for node in site.nodes:
        node.environment.update(UNTHROTTLED)
    return site


def measure(gigabytes: float) -> list[report.Row]:
    """One death."""
    with tempfile.TemporaryDirectory() as temporary, prepared(Path(temporary), NODES) as site:
        sites.start(site)
        site.nodes[0].command("bucket", "create", BUCKET, "--scheme", SCHEME)
        fill(site, int(gigabytes * 1e9))
        victim = sites.followers(site)[0]
        copy, again = copy_speeds(segments_of(victim), Path(temporary))
        lost = held_bytes(victim)
        took_s = seconds_to_whole(site, victim)
    speed = lost / took_s
    claim = (
        f"repair of {lost / 1e9:.2f} GB in {took_s:.1f} s ({gigabytes:g} GB site, {SCHEME}; "
        f"a second copy at once: {again / 1e6:,.0f} MB/s)"
    )
    return [report.Row(claim, speed / copy, "x", ">= 0.6", "copy of the same bytes, MB/s", copy / 1e6)]


if __name__ == "__main__":
    report.run_sized(measure, __doc__.splitlines()[0], GIGABYTES)
