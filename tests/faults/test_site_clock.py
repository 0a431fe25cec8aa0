"""Clocks of nodes jump: nothing but people and signatures goes by them (rules 9 and 14)."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.faults.site import Site, SiteNode
from tests.faults.site_faults import kill_leader
from tests.faults.trial import ROUNDS, Outcome, Trial, cannot_run, rounds_of

LIBRARIES = tuple(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
LITTLE_S = 240
"""A signature is still taken."""
MONTHS_S = 200 * 24 * 3600
"""More than a certificate lives."""

pytestmark = pytest.mark.timeout(300 + 30 * ROUNDS)


def _clock(node: SiteNode) -> Path:
    return node.data.with_suffix(".clock")


def _set_clock(node: SiteNode, ahead_s: int) -> None:
    """Wall clock only: the boot clock of a machine does not jump. The node sees it within a second."""
    fresh = node.data.with_suffix(".clock.new")
    fresh.write_text(f"{ahead_s:+d}\n")
    fresh.rename(_clock(node))
    node.clock_ahead_s = ahead_s


def jump(site: Site, rng: random.Random) -> None:
    """The clock of one node jumps a little, and back."""
    victim = rng.choice(site.nodes)
    _set_clock(victim, rng.choice((-LITTLE_S, LITTLE_S)))
    time.sleep(rng.uniform(2, 4))
    _set_clock(victim, 0)


def jump_far(site: Site, rng: random.Random) -> None:
    """The clock of the leader or of another jumps by months while it runs."""
    victim = rng.choice((site.leader(), rng.choice(site.nodes)))
    _set_clock(victim, rng.choice((-MONTHS_S, MONTHS_S)))
    time.sleep(rng.uniform(2, 4))
    _set_clock(victim, 0)


def start_with_a_wrong_clock(site: Site, rng: random.Random) -> None:
    """A node starts with a clock that is wrong by months, and is one of the site all the same."""
    victim = rng.choice(site.nodes)
    victim.kill()
    _set_clock(victim, rng.choice((-MONTHS_S, MONTHS_S)))
    site.restart([victim])
    time.sleep(1)
    site.wait_live()
    _set_clock(victim, 0)


def test_clocks_that_jump_change_nothing(tmp_path: Path) -> None:
    if not LIBRARIES:
        cannot_run("needs libfaketime")
    with Site(tmp_path, 3) as site:
        for node in site.nodes:
            _set_clock(node, 0)
            node.environment.update(
                LD_PRELOAD=str(LIBRARIES[0]),
                FAKETIME_TIMESTAMP_FILE=str(_clock(node)),
                FAKETIME_CACHE_DURATION="1",
                FAKETIME_DONT_FAKE_MONOTONIC="1",
                FAKETIME_DONT_RESET="1",
                FAKETIME_FORCE_MONOTONIC_FIX="0",  # else every wait of a thread is late by a third of a second
            )
        site.found()
        trial, rounds = Trial(site), rounds_of(4)
        for client in trial.clients:
            client.clocks_are_wrong = True
        trial.run(rounds, (jump, jump_far, start_with_a_wrong_clock, kill_leader))
        trial.finish()
        assert trial.outcome() == Outcome(rounds)
