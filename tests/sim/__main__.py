"""`python -m tests.sim [--site | --cores] [--seeds N] [--seed S]`: N new seeds of one node, of a replicated log, or of
a whole site; or one again."""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import os
import random
import sys
import time
from typing import Any

from tests.sim.site.core_world import run_seed as run_cores
from tests.sim.site.group_world import run_seed as run_group
from tests.sim.world import run_seed as run_node


def main() -> None:
    """Runs seeds until one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many new seeds")
    parser.add_argument("--seed", type=int, help="this seed only")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--site", action="store_true", help="the replicated log of several nodes")
    kind.add_argument("--cores", action="store_true", help="a site of several nodes, whole")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of strings is a part of what a seed decides
        os.execve(
            sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"}
        )
    seeds = (
        [arguments.seed] if arguments.seed is not None else [random.randrange(1 << 31) for _ in range(arguments.seeds)]
    )
    faulthandler.enable()  # where the interpreter itself dies, it says in which line
    if arguments.seed is None:
        logging.disable()  # planned faults are logged by the hundred; a seed that is run again tells what it met
    run_seed: Any = run_cores if arguments.cores else run_group if arguments.site else run_node
    flag = "--cores " if arguments.cores else "--site " if arguments.site else ""
    gc.freeze()  # each seed ends in a collection, which need not look at all the modules
    started, acknowledged, steps = time.monotonic(), 0, 0
    for seed in seeds:
        try:
            world = run_seed(seed)
        except AssertionError as error:
            again = f"python -m tests.sim {flag}--seed {seed}"
            print(f"{error}\nAgain: {again}", file=sys.stderr)
            raise
        acknowledged += world.acknowledged
        steps += world.steps
    print(
        f"{len(seeds)} seeds, {acknowledged} acknowledged operations, {steps} steps, "
        f"{time.monotonic() - started:.0f} s: nothing lost"
    )


if __name__ == "__main__":
    main()
