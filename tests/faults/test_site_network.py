"""Each node has a network namespace: packets between nodes are dropped by the kernel, as a switch that fails drops
them, and cables are taken out."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults.namespaces import Namespaces
from tests.faults.site import Site
from tests.faults.site_faults import CUTS, away_s
from tests.faults.trial import ROUNDS, Outcome, Trial, cannot_run, rounds_of

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_program("ip"),
    pytest.mark.needs_program("nft"),
    pytest.mark.timeout(300 + 30 * ROUNDS),
]


def test_a_site_survives_packets_that_are_dropped_and_cables_that_are_taken_out(tmp_path: Path) -> None:
    network = Namespaces(5)
    try:
        network.open()
    except subprocess.CalledProcessError as error:
        cannot_run(f"no network namespaces and filters here: {error.stderr.decode().strip()}")

    def unplug_one(site: Site, rng: random.Random) -> None:
        """Nobody reaches it, and it reaches nobody."""
        network.unplug(rng.choice(site.nodes).host)
        time.sleep(away_s(rng))
        network.heal()

    try:
        with Site(tmp_path, 5, cuts=network) as site:
            for node in site.nodes:
                network.place(node)
            site.found()
            trial, rounds = Trial(site), rounds_of(4)
            trial.run(rounds, (*CUTS, unplug_one))
            trial.finish()
            assert trial.outcome() == Outcome(rounds)
    finally:
        network.close()
