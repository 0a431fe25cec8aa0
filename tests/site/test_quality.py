"""A node whose disk is slow or flips bits loses quality, and so new data, within a minute; its peers do not."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.disks import flip_bits
from tests.site.nodes import SiteNode, make_site, rows, stop_all

LIMIT_S = 60.0
BODY = os.urandom(300_000)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[SiteNode]]:
    """Three of them; the sync of one can be made slow by a file of the name `slow`."""
    library = tmp_path / "sync.so"
    source = Path(__file__).parents[1] / "faults" / "fail_sync.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    site = make_site(tmp_path, 3)
    try:
        site[2].kill()
        site[2].environment |= {"LD_PRELOAD": str(library), "SLOW_SYNC": str(tmp_path / "slow")}
        site[2].start()
        yield site
    finally:
        stop_all(site)


def fallen(nodes: list[SiteNode], work: Callable[[], None]) -> dict[int, int]:
    """The qualities when the third node has lost nine tenths of its own, or the time is up."""
    end_s = time.monotonic() + LIMIT_S
    while True:
        work()
        found = {number: row["quality"] for number, row in rows(nodes[0]).items()}
        if found[3] <= 10 or time.monotonic() > end_s:
            return found


def test_a_slow_disk_costs_quality(nodes: list[SiteNode], tmp_path: Path) -> None:
    client = nodes[0].client()
    client.create_bucket(Bucket="photos")

    def write() -> None:
        for number in range(10):
            client.put_object(Bucket="photos", Key=f"{time.monotonic()}/{number}", Body=BODY)

    for _ in range(3):
        write()
    assert {row["quality"] for row in rows(nodes[0]).values()} == {100}
    (tmp_path / "slow").touch()
    found = fallen(nodes, write)
    assert (found[1], found[2]) == (100, 100)
    assert found[3] <= 10


def test_flipped_bits_cost_quality(nodes: list[SiteNode]) -> None:
    client, chance = nodes[0].client(), random.Random(7)
    client.create_bucket(Bucket="photos")
    keys = [f"{number}" for number in range(60)]
    for key in keys:
        client.put_object(Bucket="photos", Key=key, Body=BODY)

    def read() -> None:
        flip_bits(nodes[2].data, chance, 60)
        for key in keys:
            assert client.get_object(Bucket="photos", Key=key)["Body"].read() == BODY

    found = fallen(nodes, read)
    assert (found[1], found[2]) == (100, 100)
    assert found[3] <= 10
