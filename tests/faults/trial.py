"""Rounds of one fault after another on a site under load, each followed by the check of everything acknowledged.

Rule: whatever went wrong, clients were told nothing worse than to try again, and a round ends with every node live.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import pytest

from tests.faults import ledger
from tests.faults.clients import Client
from tests.faults.site import Site

ROUNDS = int(os.environ.get("EDGESTORE_SITE_ROUNDS", "40"))
"""Of all trials of this kind together."""
CLIENTS = 5
ROAMERS = 2
"""How many of the clients go to another node after each operation: one that hangs holds them up at once."""
OPERATIONS_MAX = 60
"""Acknowledged before a fault, and again after it."""
VERSIONS_MAX = 3
CHECK_TRIES = 5
TOLERATED = {2: 0, 3: 1, 5: 2, 9: 2}
"""How many nodes a site of so many may lose. Of two it may lose none: what they keep waits until both are there."""

Fault = Callable[[Site, random.Random], None]


def cannot_run(reason: str) -> NoReturn:
    """Says plainly that the machine lacks something; where all must run it is an error."""
    if os.environ.get("EDGESTORE_REQUIRE_ALL"):
        pytest.fail(reason)
    pytest.skip(reason)


def rounds_of(share: int) -> int:
    """A trial's part of all rounds, given its part of 40."""
    return max(1, ROUNDS * share // 40)


@dataclass(frozen=True)
class Outcome:
    """How many rounds a trial went through, and what was wrong; it ends with the first wrong round."""

    rounds: int
    wrong: tuple[str, ...] = ()


class Trial:
    """A site under load. `seed` makes faults and load the same again, as far as real processes can. `expected`: events
    that nodes may log as errors."""

    def __init__(self, site: Site, expected: tuple[str, ...] = ()) -> None:
        self.seed = int(os.environ.get("EDGESTORE_SEED", "0")) or random.randrange(1 << 30)
        self.rng, self.site, self.expected = random.Random(self.seed), site, expected
        self.number = 0
        self.gap_s = 0.0
        self.wrong: list[str] = []
        site.wait_whole()
        s3 = site.nodes[0].client()
        ledger.create_buckets(s3)
        s3.close()
        self.clients = [
            Client(f"client-{number}", self.rng.randrange(1 << 30), site.nodes[0].client) for number in range(CLIENTS)
        ]
        for client in self.clients[:ROAMERS]:
            client.roams = True

    @property
    def acknowledged(self) -> int:
        """Operations, over all rounds."""
        return sum(client.acknowledged for client in self.clients)

    def outcome(self) -> Outcome:
        """For the test to compare."""
        return Outcome(self.number, tuple(self.wrong))

    def run(self, rounds: int, faults: tuple[Fault, ...], named: tuple[Fault, ...] = ()) -> None:
        """Each fault in turn, in an order that the seed shuffles anew each time. `named`: those of them that a run with
        fewer rounds than faults meets nevertheless."""
        others = [fault for fault in faults if fault not in named]
        order = [*named, *self.rng.sample(others, min(len(others), max(0, rounds - len(named))))]
        self.rng.shuffle(order)
        for _ in range(rounds):
            if not order:
                order = self.rng.sample(faults, len(faults))
            self.round(order.pop())

    def round(self, fault: Fault) -> None:
        """Load, the fault in the middle of it, and the check through any node."""
        if self.wrong:
            return
        context = f"seed {self.seed}, round {self.number}, {fault.__name__}"
        try:
            self._round(fault, context)
        except Exception as error:
            error.add_note(context)
            raise
        self.number += 1

    def _round(self, fault: Fault, context: str) -> None:
        site, before, started_s = self.site, self.acknowledged, time.monotonic()
        load = ledger.Load(self.clients, [node.client for node in site.nodes])
        try:
            load.wait_acknowledged(self.rng.randrange(1, OPERATIONS_MAX))
            fault(site, self.rng)
            healed_s = time.monotonic()
            load.wait_acknowledged(self.rng.randrange(1, OPERATIONS_MAX))
        finally:
            load.stop()
        loaded_s = time.monotonic()
        site.wait_live()
        live_s = time.monotonic()
        s3 = self.rng.choice(site.nodes).client(CHECK_TRIES)
        self.wrong += [f"{context}: {one}" for one in ledger.check(s3, self.clients)]
        if self.wrong:
            self.wrong += self._complaints()
        ledger.prune(s3, self.clients, VERSIONS_MAX)
        s3.close()
        failed = sum(client.failed for client in self.clients)
        self.gap_s = max(self.gap_s, load.longest_gap_s())
        sys.stdout.write(
            f"{context}: {self.acknowledged - before} acknowledged, {failed} failed in all, longest gap "
            f"{load.longest_gap_s():.1f} s, load {loaded_s - started_s:.1f} s ({loaded_s - healed_s:.1f} s after the "
            f"fault), live after {live_s - loaded_s:.1f} s, checked in {time.monotonic() - live_s:.1f} s\n"
        )
        sys.stdout.flush()

    def finish(self) -> None:
        """The site becomes whole by itself: then any nodes that it tolerates the loss of are not needed. No node has
        noted an error that nothing explains."""
        if self.wrong:
            return
        started_s = time.monotonic()
        self.site.wait_whole()
        failures = dict(sum((client.failures for client in self.clients), Counter[str]()))
        sys.stdout.write(f"seed {self.seed}: whole after {time.monotonic() - started_s:.1f} s, failures {failures}\n")
        victims = self.rng.sample(self.site.nodes, TOLERATED[len(self.site.nodes)])
        self.site.kill(victims)
        without = [victim.number for victim in victims]
        for node in self.site.running():
            s3 = node.client(CHECK_TRIES)
            context = f"seed {self.seed}, at the end through node {node.number} without {without}"
            self.wrong += [f"{context}: {one}" for one in ledger.check(s3, self.clients)]
            s3.close()
        self.wrong += [line for line in self._complaints() if not any(event in line for event in self.expected)]

    def _complaints(self) -> list[str]:
        return [line for node in self.site.nodes for line in node.complaints()]
