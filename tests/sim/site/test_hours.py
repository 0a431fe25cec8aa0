"""What live nodes lose on bad lines they lose for seconds: nothing is made anew for it. A part of the day that
`python -m tests.sim.site.hours` lives through."""

from __future__ import annotations

from edgestore.catalog.memory import OPERATION_MEMORY_MS
from edgestore.config import RepairConfig
from tests.sim.site.hours import LongWorld, Weathered


def test_at_thirty_percent_loss_nobody_goes_down_and_nothing_is_made_anew() -> None:
    world = LongWorld(1, 3, Weathered(0.25))
    world.run()
    assert (world.downs, world.made_anew) == (0, 0)


def test_who_stalls_for_ten_seconds_goes_down_and_nothing_is_made_anew() -> None:
    world = LongWorld(2, 3, Weathered(0.25, stall_every_s=20))
    world.run()
    assert world.stalls > 10
    assert world.downs > 0
    assert world.made_anew == 0


def test_what_a_node_holds_that_is_away_for_longer_is_made_anew() -> None:
    world = LongWorld(3, 3, Weathered(0.01, away_s=RepairConfig().critical_wait_s + 60))
    world.run()
    assert world.downs == 1
    assert world.made_anew > 0


def test_who_was_away_for_longer_than_a_resting_site_remembers_operations_comes_back() -> None:
    """Its clock begins at the last entry that anybody wrote, so its first operation is too old to be taken."""
    world = LongWorld(4, 3, Weathered(0.01, away_s=OPERATION_MEMORY_MS / 1000 + 60))
    world.run()
    assert world.downs == 1
