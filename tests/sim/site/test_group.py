"""A replicated log holds its promises over seeds, replays a seed exactly, and every planted bug is caught."""

from __future__ import annotations

import pytest

from tests.sim.catching import check_caught
from tests.sim.site.group_world import GroupWorld, run_seed
from tests.sim.site.planted import BUGS, Planted
from tests.sim.site.planted_hooks import HOOK_BUGS

MET_BEFORE = (496228319, 444005550, 680081769)
"""Faults that ended between a failed sync and its answer; an answer to a call of an earlier life; answers that were
held for ever."""


@pytest.mark.parametrize("seed", [*range(15), *MET_BEFORE])
def test_registers_are_linearizable_whatever_goes_wrong(seed: int) -> None:
    assert run_seed(seed).acknowledged > 0


def test_a_seed_replays_exactly() -> None:
    first, second = GroupWorld(3).run(), GroupWorld(3).run()
    assert first == second
    assert GroupWorld(4).run() != first


@pytest.mark.parametrize("bug", (BUGS | HOOK_BUGS).values(), ids=BUGS | HOOK_BUGS)
def test_a_planted_bug_is_caught_as_what_it_is(bug: Planted) -> None:
    with bug.plant():
        check_caught(bug.kinds, lambda seed: run_seed(seed, bug.aim))
