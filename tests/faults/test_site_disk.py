"""One node's disk is full, or gives back other bytes than it was given; the site goes on."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from edgestore.placement import QUALITY_POOR
from tests.faults.disks import SmallDisk, flip_bits
from tests.faults.site import Site
from tests.faults.trial import ROUNDS, Outcome, Trial, rounds_of

DISK_BYTES = 600 * 1024 * 1024
SMALL = {
    "EDGESTORE_DISK_RESERVE_BYTES": str(64 * 1024 * 1024),
    "EDGESTORE_DISK_JOURNAL_FILE_BYTES": str(8 * 1024 * 1024),
}
SCRUB = {"EDGESTORE_DISK_SCRUB_INTERVAL_MS": "1000", "EDGESTORE_DISK_SCRUB_BYTES_PER_S": str(1024**3)}
FLIPS = 20
DAMAGE = ("fragment-damaged", "fragment-corrupt", "fragments-unreadable", "scrub-ended")
FULL = ("journal-failed",)

pytestmark = pytest.mark.timeout(300 + 30 * ROUNDS)


@pytest.mark.needs_root
def test_a_node_with_a_full_disk_stops_nobody_else(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "small", DISK_BYTES)

    def fill_disk(site: Site, rng: random.Random) -> None:
        """To the reserve, to the last byte, or somewhere between. A node that cannot go on says so and stops."""
        disk.fill(rng.choice((0, 1, 32)) * 1024 * 1024)
        time.sleep(rng.uniform(1, 4))
        disk.empty()
        victim = site.nodes[-1]
        if not victim.is_running:
            assert victim.stop() == 1
            site.restart([victim])

    try:
        with Site(tmp_path, 3) as site:
            site.nodes[-1].data = disk.mount / "data"
            site.nodes[-1].environment.update(SMALL)
            site.found()
            trial, rounds = Trial(site, FULL), rounds_of(3)
            trial.run(rounds, (fill_disk,))
            trial.finish()
            assert trial.outcome() == Outcome(rounds)
    finally:
        disk.close()


@pytest.mark.needs_root
def test_a_full_node_takes_any_request_and_another_leads(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "small", DISK_BYTES)

    def put_and_delete(site: Site, about: str) -> None:
        for node in site.nodes:
            s3 = node.client()
            for size in (4096, 64 * 1024, 8 * 1024 * 1024):
                key, body = f"{about}-{node.number}-{size}", random.Random(size).randbytes(size)
                s3.put_object(Bucket="bucket", Key=key, Body=body)
                assert all(
                    other.client().get_object(Bucket="bucket", Key=key)["Body"].read() == body for other in site.nodes
                )
            s3.delete_object(Bucket="bucket", Key=f"{about}-{node.number}-4096")

    try:
        with Site(tmp_path, 3) as site:
            full = site.nodes[0]
            full.data = disk.mount / "data"
            full.environment.update(SMALL)
            site.found()
            site.wait_whole()
            full.client().create_bucket(Bucket="bucket")
            put_and_delete(site, "before")
            disk.fill(32 * 1024 * 1024)
            put_and_delete(site, "at-once")
            site.wait_until(
                lambda status: _leaders(status).isdisjoint({full.advertised}) and _poor(status) == [full.advertised]
            )
            assert site.leader() is not full
            put_and_delete(site, "later")
            held = sum(path.stat().st_blocks for path in (full.data / "segments").iterdir())
            put_and_delete(site, "after")
            assert sum(path.stat().st_blocks for path in (full.data / "segments").iterdir()) <= held
            disk.empty()
            put_and_delete(site, "room")
            site.wait_whole()
            assert [line for node in site.nodes for line in node.complaints()] == []
    finally:
        disk.close()


def _leaders(status: dict[str, Any]) -> set[str]:
    return {row["address"] for row in status["nodes"] if row["leader"]}


def _poor(status: dict[str, Any]) -> list[str]:
    return [row["address"] for row in status["nodes"] if row["quality"] <= QUALITY_POOR]


def test_flipped_bits_of_one_node_are_never_served_and_are_mended(tmp_path: Path) -> None:
    with Site(tmp_path, 3) as site:
        for node in site.nodes:
            node.environment.update(SCRUB)
        site.found()
        trial, rounds = Trial(site, DAMAGE), rounds_of(3)

        def damage(site: Site, rng: random.Random) -> None:
            """Of one node at a time: more would be more than the site tolerates."""
            flip_bits(rng.choice(site.nodes).data, rng, FLIPS)
            time.sleep(1)

        for _ in range(rounds):
            trial.round(damage)
            _wait_mended(site, time.time())
        trial.finish()
        assert trial.outcome() == Outcome(rounds)


def _wait_mended(site: Site, since_s: float) -> None:
    """Every node has searched its whole disk since then, and found nothing or mended it."""
    searched_ms = int(since_s * 1000)
    site.wait_until(lambda status: status["scrubbed_ms"] > searched_ms)
    site.wait_until(lambda status: status["damaged_fragments"] == 0 and status["repair_left"] == 0)
