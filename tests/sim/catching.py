"""How every planted bug is judged: some seed finds it, and the first that does finds it as what it is."""

from __future__ import annotations

from collections.abc import Callable

from tests.sim.model import Violation

SEEDS_FOR_A_BUG = 200


def check_caught(kinds: tuple[type[Violation], ...], run_seed: Callable[[int], object]) -> None:
    """Runs one seed after the other until one is caught; a bug that merely breaks the code is none."""
    caught: Violation | None = None
    for seed in range(SEEDS_FOR_A_BUG):
        try:
            run_seed(seed)
        except Violation as error:
            caught = error
            break
    assert caught is not None, f"not caught in {SEEDS_FOR_A_BUG} seeds"
    assert isinstance(caught, kinds), f"caught as {type(caught).__name__}: {caught}"
