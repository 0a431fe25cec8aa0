"""Nodes of a site are killed, stopped and cut off under load: nothing acknowledged is lost, no wrong byte is read, and
the site repairs itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.site import Site
from tests.faults.site_faults import CUTS, KILLS, NAMED, PAUSES, pause_long, replace_one
from tests.faults.trial import ROUNDS, Outcome, Trial, rounds_of

pytestmark = pytest.mark.timeout(300 + 30 * ROUNDS)


@pytest.mark.parametrize(("count", "share"), [(3, 11), (5, 9)])
def test_a_site_keeps_what_it_acknowledged(tmp_path: Path, count: int, share: int) -> None:
    with Site(tmp_path, count, proxied=True) as site:
        site.found()
        trial, rounds = Trial(site), rounds_of(share)
        trial.run(rounds, (*KILLS, *PAUSES, *CUTS), NAMED)
        trial.finish()
        assert trial.outcome() == Outcome(rounds)


def test_a_lost_machine_is_replaced_and_one_that_hangs_for_half_a_minute_is_done_without(tmp_path: Path) -> None:
    with Site(tmp_path, 3) as site:
        site.found()
        trial, rounds = Trial(site), rounds_of(2)
        trial.run(rounds, (replace_one, pause_long))
        trial.finish()
        assert trial.outcome() == Outcome(rounds)
