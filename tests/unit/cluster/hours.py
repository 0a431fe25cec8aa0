"""Long runs of the membership protocol, as a command: `python -m tests.unit.cluster.hours --hours 240 --loss 0.3`.

Prints what happened and fails when a node that lived was declared failed.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from edgestore.cluster import Standing
from tests.unit.cluster.town import Town

HOUR_MS = 3_600_000.0


@dataclass
class Report:
    """`wrong`: verdicts on nodes that were neither dead nor stalled, as (time, who, whom)."""

    stalls: int
    messages: int
    accusations: int
    wrong: list[tuple[float, str, str]]
    not_back: list[str]


def live(count: int, hours: float, *, loss: float, seed: int, stall_every_ms: float = 0.0) -> Report:
    """A site without deaths; one node at a time stalls for 10 s, at random times."""
    town = Town(count, seed, loss=loss)
    report = Report(0, 0, 0, [], [])
    end_ms = town.now_ms + hours * HOUR_MS
    while town.now_ms < end_ms:
        if not stall_every_ms:
            town.run(end_ms)
        else:
            town.run(town.now_ms + town.random.expovariate(1 / stall_every_ms))
        report.wrong += town.failed
        town.failed = []
        if stall_every_ms:
            name = town.random.choice(town.names)
            town.stall(name, 10_000)
            town.run(town.now_ms + 20_000)
            report.stalls += 1
            report.wrong += [row for row in town.failed if row[2] != name]
            report.not_back += [name for view in town.views(name) if view is Standing.FAILED]
            town.failed = []
    report.messages, report.accusations = town.messages, town.suspected
    return report


def death_ms(count: int, seed: int, *, loss: float = 0.0, deaths: int = 1) -> float:
    """From a death until every survivor counts everyone who died as failed."""
    town = Town(count, seed, loss=loss)
    town.run(8000 + town.random.random() * 4000)
    died_ms, dead = town.now_ms, town.names[:deaths]
    for name in dead:
        town.kill(name)
    town.run(died_ms + 60_000, lambda: all(view is Standing.FAILED for name in dead for view in town.views(name)))
    return town.now_ms - died_ms


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=240)
    parser.add_argument("--nodes", type=int, default=9)
    parser.add_argument("--loss", type=float, default=0.3)
    parser.add_argument("--stall-every-s", type=float, default=0.0, help="mean time between stalls of 10 s; 0: none")
    parser.add_argument("--deaths", type=int, default=500, help="runs in which one node dies")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    report = live(asked.nodes, asked.hours, loss=asked.loss, seed=asked.seed, stall_every_ms=asked.stall_every_s * 1000)
    print(
        f"{asked.nodes} nodes, {asked.hours:g} h at {asked.loss:.0%} loss: {report.messages} messages, "
        f"{report.stalls} stalls, {report.accusations} times suspected, {len(report.wrong)} wrong verdicts"
    )
    took = sorted(death_ms(asked.nodes, asked.seed + number) for number in range(asked.deaths))
    if took:
        print(f"a death without loss: median {took[len(took) // 2]:.0f} ms, p99 {took[len(took) * 99 // 100]:.0f} ms")
    return 1 if report.wrong or report.not_back else 0


if __name__ == "__main__":
    sys.exit(main())
