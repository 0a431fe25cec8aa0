"""A site of whole nodes holds its promises over seeds, replays a seed exactly, and every planted bug is caught."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.sim.catching import check_caught
from tests.sim.site.core_planted import BUGS, Planted
from tests.sim.site.core_world import CoreAim, CoreWorld, run_seed

LEFT_BEHIND = """
import gc, logging, weakref
from tests.sim.site.core_world import CoreWorld

logging.disable(logging.CRITICAL)
loops = []
for seed in (3, 4):
    world = CoreWorld(seed)
    world.run()
    loops.append(weakref.ref(world.site.loop))
    del world
gc.collect()
print([loop() is None for loop in loops])
"""


MET_BEFORE = (938347220,)
"""A reader on a node that was removed under it."""


@pytest.mark.parametrize("seed", [*range(12), *MET_BEFORE])
def test_nothing_acknowledged_is_lost_whatever_goes_wrong(seed: int) -> None:
    assert run_seed(seed).acknowledged > 0


@pytest.mark.parametrize("seed", range(500, 503))
def test_damage_is_made_good_and_a_start_goes_round_it(seed: int) -> None:
    """Whatever else goes wrong; of what operators do nothing."""
    assert run_seed(seed, CoreAim(turns=("flip",))).acknowledged > 0


def test_a_seed_replays_exactly() -> None:
    first, second = CoreWorld(4).run(), CoreWorld(4).run()
    assert first == second
    assert CoreWorld(6).run() != first


def test_nothing_of_a_run_is_left_when_it_is_over() -> None:
    """A thousand seeds fit into one process, and nodes may be opened and closed in one for ever. In a process of its
    own: what pytest keeps of errors and logs, it keeps with all that they name."""
    done = subprocess.run([sys.executable, "-c", LEFT_BEHIND], capture_output=True, text=True, check=True)
    assert done.stdout == "[True, True]\n", done.stdout


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_a_planted_bug_is_caught_as_what_it_is(bug: Planted) -> None:
    with bug.plant():
        check_caught(bug.kinds, lambda seed: run_seed(seed, bug.aim))
