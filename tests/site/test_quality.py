"""A node whose disk is slow or cannot be read, that flips bits or that flaps loses quality, and so new data, within a
minute; its peers do not, and it earns its own back."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.disks import flip_bits
from tests.site.nodes import SiteNode, make_site, rows, stop_all, until

LIMIT_S = 60.0
BODY = os.urandom(300_000)
FORGIVING = """
[cluster]
observation_half_life_ms = 3000
quality_proof_ms = 3000
quality_rise_per_minute = 1200
quality_flap_window_ms = 40000
"""
"""Seconds of good behaviour where a site asks for minutes."""


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[SiteNode]]:
    """Three of them; files of the names `slow` and `unreadable` make the syncs of one slow, and its reads fail."""
    library = tmp_path / "sync.so"
    source = Path(__file__).parents[1] / "faults" / "fail_sync.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    site = make_site(tmp_path, 3, configuration=FORGIVING)
    try:
        site[2].kill()
        site[2].environment |= {
            "LD_PRELOAD": str(library),
            "SLOW_SYNC": str(tmp_path / "slow"),
            "FAIL_READ": str(tmp_path / "unreadable"),
        }
        site[2].start()
        yield site
    finally:
        stop_all(site)


def qualities(node: SiteNode) -> dict[int, int]:
    """By number."""
    return {number: row["quality"] for number, row in rows(node).items()}


def fallen(nodes: list[SiteNode], work: Callable[[], None]) -> dict[int, int]:
    """The qualities when the third node has lost nine tenths of its own, or the time is up."""
    end_s = time.monotonic() + LIMIT_S
    while True:
        work()
        found = qualities(nodes[0])
        if found[3] <= 10 or time.monotonic() > end_s:
            return found


@pytest.mark.needs_program("cc")
def test_a_slow_disk_costs_quality_until_it_is_quick_again(nodes: list[SiteNode], tmp_path: Path) -> None:
    client = nodes[0].client()
    client.create_bucket(Bucket="photos")

    def write() -> None:
        for number in range(10):
            client.put_object(Bucket="photos", Key=f"{time.monotonic()}/{number}", Body=BODY)

    for _ in range(3):
        write()
    assert set(qualities(nodes[0]).values()) == {100}
    (tmp_path / "slow").touch()
    found = fallen(nodes, write)
    assert (found[1], found[2]) == (100, 100)
    assert found[3] <= 10
    (tmp_path / "slow").unlink()

    def is_trusted() -> bool:
        write()
        return qualities(nodes[0]) == {1: 100, 2: 100, 3: 100}

    until(is_trusted, LIMIT_S)


@pytest.mark.needs_program("cc")
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


@pytest.mark.needs_program("cc")
def test_what_a_disk_cannot_read_is_read_from_the_others_and_made_anew(nodes: list[SiteNode], tmp_path: Path) -> None:
    client = nodes[0].client()
    client.create_bucket(Bucket="photos")
    keys = [f"{number}" for number in range(60)]
    for key in keys:
        client.put_object(Bucket="photos", Key=key, Body=BODY)
    (tmp_path / "unreadable").touch()

    def read() -> None:
        for node in nodes:
            for key in keys:
                assert node.client().get_object(Bucket="photos", Key=key)["Body"].read() == BODY

    found = fallen(nodes, read)
    assert (found[1], found[2]) == (100, 100)
    assert found[3] <= 10
    assert "reason=cannot be read" in nodes[2].log.read_text()
    (tmp_path / "unreadable").unlink()
    until(lambda: nodes[2].ask("status")["damaged_fragments"] == 0, LIMIT_S)
    read()


@pytest.mark.needs_program("cc")
def test_flapping_costs_quality_until_it_stops(nodes: list[SiteNode]) -> None:
    """The last is down three times within the window; then it stays, and the window passes."""
    until(lambda: rows(nodes[0])[3]["state"] == "up")
    for _ in range(3):
        nodes[2].kill()
        until(lambda: rows(nodes[0])[3]["state"] == "down")
        nodes[2].start()
        until(lambda: rows(nodes[0])[3]["state"] == "up")
    found = fallen(nodes, lambda: time.sleep(0.5))
    assert (found[1], found[2]) == (100, 100)
    assert found[3] <= 10
    until(lambda: qualities(nodes[0]) == {1: 100, 2: 100, 3: 100}, LIMIT_S)
