"""The power of a whole site fails: every node is killed at once, and finds of its disk what had reached the block
device by then."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.disks import Mounted
from tests.faults.site import Site
from tests.faults.trial import ROUNDS, Outcome, Trial, rounds_of

IMAGE_BYTES = 2 * 1024**3

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(300 + 40 * ROUNDS)]


@pytest.mark.parametrize(("count", "share"), [(3, 2), (5, 2)])
def test_acknowledged_operations_survive_power_cuts_of_the_site(tmp_path: Path, count: int, share: int) -> None:
    disks: list[Mounted] = []

    def cut_power(site: Site, rng: random.Random) -> None:
        site.kill(site.nodes)
        for disk in disks:
            disk.keep()
        for disk in disks:
            disk.restore()
        site.restart(site.nodes)

    try:
        with Site(tmp_path, count) as site:
            for node in site.nodes:
                disks.append(Mounted(tmp_path / f"disk-{node.number}", IMAGE_BYTES))
                node.data = disks[-1].mount / "data"
            site.found()
            trial, rounds = Trial(site), rounds_of(share)
            trial.run(rounds, (cut_power,))
            trial.finish()
            assert trial.outcome() == Outcome(rounds)
    finally:
        for disk in disks:
            disk.detach()
