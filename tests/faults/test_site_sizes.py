"""The smallest sites and the largest: two nodes, two and a witness, nine. What is not tolerated stops them, and costs
nothing that was acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.site import Site
from tests.faults.site_faults import CUTS, KILLS, PAUSES
from tests.faults.trial import ROUNDS, Outcome, Trial, rounds_of

pytestmark = pytest.mark.timeout(300 + 30 * ROUNDS)


@pytest.mark.parametrize(("nodes", "witnesses"), [(2, 0), (2, 1), (9, 0)], ids=["two", "two-and-a-witness", "nine"])
def test_a_site_of_any_size_keeps_what_it_acknowledged(tmp_path: Path, nodes: int, witnesses: int) -> None:
    with Site(tmp_path, nodes + witnesses, proxied=True) as site:
        for node in site.nodes[nodes:]:
            node.is_witness = True
        site.found()
        trial, rounds = Trial(site), rounds_of(1)
        trial.run(rounds, (*KILLS, *PAUSES, *CUTS))
        trial.finish()
        assert trial.outcome() == Outcome(rounds)
