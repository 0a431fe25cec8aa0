"""Nodes of a site are killed, stopped and cut off under load: nothing acknowledged is lost, no wrong byte is read, and
the site repairs itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.site import Site
from tests.faults.site_faults import CUTS, KILLS, PAUSES, pause_long
from tests.faults.trial import ROUNDS, Trial, rounds_of

pytestmark = pytest.mark.timeout(300 + 30 * ROUNDS)


@pytest.mark.parametrize("count", [3, 5])
def test_a_site_keeps_what_it_acknowledged(tmp_path: Path, count: int) -> None:
    with Site(tmp_path, count, proxied=True) as site:
        site.found()
        trial = Trial(site)
        trial.run(rounds_of(12), (*KILLS, *PAUSES, *CUTS))
        trial.finish()


def test_a_node_that_hangs_for_half_a_minute_is_done_without(tmp_path: Path) -> None:
    with Site(tmp_path, 3) as site:
        site.found()
        trial = Trial(site)
        trial.run(rounds_of(1), (pause_long,))
        trial.finish()
