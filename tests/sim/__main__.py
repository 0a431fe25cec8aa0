"""`python -m tests.sim [--seeds N] [--seed S]`: N new seeds, or one again."""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time

from tests.sim.world import run_seed


def main() -> None:
    """Runs seeds until one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many new seeds")
    parser.add_argument("--seed", type=int, help="this seed only")
    arguments = parser.parse_args()
    seeds = (
        [arguments.seed] if arguments.seed is not None else [random.randrange(1 << 31) for _ in range(arguments.seeds)]
    )
    if arguments.seed is None:
        logging.disable()  # planned faults are logged by the hundred; a seed that is run again tells what it met
    started, acknowledged, steps = time.monotonic(), 0, 0
    for seed in seeds:
        try:
            world = run_seed(seed)
        except AssertionError as error:
            print(f"{error}\nAgain: python -m tests.sim --seed {seed}", file=sys.stderr)
            raise
        acknowledged += sum(client.acknowledged for client in world.clients)
        steps += world.steps
    print(
        f"{len(seeds)} seeds, {acknowledged} acknowledged operations, {steps} steps, "
        f"{time.monotonic() - started:.0f} s: nothing lost"
    )


if __name__ == "__main__":
    main()
