"""The simulator holds the promises over seeds, replays a seed exactly, and catches every planted bug."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sim.catching import check_caught
from tests.sim.model import Violation
from tests.sim.planted import BUGS, proposed_twice
from tests.sim.world import World, run_seed


@pytest.mark.parametrize("seed", range(25))
def test_nothing_acknowledged_is_lost_over_crashes(seed: int) -> None:
    world = run_seed(seed)
    assert sum(client.acknowledged for client in world.clients) > 0


def test_a_seed_replays_exactly() -> None:
    first, second = World(7).run(), World(7).run()
    assert first == second
    assert World(8).run() != first


@pytest.mark.parametrize(("bug", "kinds"), BUGS.items(), ids=[bug.__name__ for bug in BUGS])
def test_a_planted_bug_is_caught_as_what_it_is(bug: Any, kinds: tuple[type[Violation], ...]) -> None:
    with bug():
        check_caught(kinds, run_seed)


def test_operations_that_are_proposed_twice_are_applied_once() -> None:
    with proposed_twice():
        for seed in range(3):
            assert run_seed(seed).acknowledged > 0
