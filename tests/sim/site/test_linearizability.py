"""The checker against known histories, against brute force on small ones, and against broken ones among many."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator

import pytest

from tests.sim.site.linearizability import UNKNOWN, Kind, Operation, contradiction


def w(call: float, end: float, value: object) -> Operation:
    return Operation(call, end, Kind.WRITE, value)


def r(call: float, end: float, value: object) -> Operation:
    return Operation(call, end, Kind.READ, value)


def s(call: float, end: float, expected: object, value: object, *, swapped: bool = True) -> Operation:
    return Operation(call, end, Kind.SWAP, value, expected, swapped)


GOOD = {
    "nothing": [],
    "a read after a write": [w(0, 1, 1), r(2, 3, 1)],
    "reads during a write: new, new": [w(0, 5, 1), r(1, 2, 1), r(3, 4, 1)],
    "reads during a write: old, new": [w(0, 5, 1), r(1, 2, None), r(3, 4, 1)],
    "two writes at once in either order": [w(0, 9, 1), w(0, 9, 2), r(10, 11, 1)],
    "an unknown write comes late": [w(0, UNKNOWN, 1), r(5, 6, None), r(7, 8, 1)],
    "an unknown write never comes": [w(0, UNKNOWN, 1), r(5, 6, None)],
    "an unknown delete comes late": [w(0, 1, 1), w(2, UNKNOWN, None), r(3, 4, 1), r(5, 6, None)],
    "an unknown write explains a refusal": [w(0, UNKNOWN, 1), s(2, 3, None, 2, swapped=False)],
    "a swap of what an unknown write left": [w(0, UNKNOWN, 1), s(2, 3, 1, 2), r(4, 5, 2)],
    "one of two swaps wins": [w(0, 1, 1), s(2, 9, 1, 2), s(2, 9, 1, 3, swapped=False), r(10, 11, 2)],
    "an unknown swap wins": [w(0, 1, 1), s(2, UNKNOWN, 1, 2), s(3, 4, 1, 3, swapped=False), r(5, 6, 2)],
    "figure 1a of Herlihy and Wing, as a register": [w(0, 4, "x"), w(1, 2, "y"), r(3, 6, "x"), r(5, 7, "x")],
}
BAD = {
    "a write is lost": [w(0, 1, 1), r(2, 3, None)],
    "a read goes back during a write": [w(0, 9, 1), r(1, 2, 1), r(3, 4, None)],
    "a read of what was written over": [w(0, 1, 1), w(2, 3, 2), r(4, 5, 1)],
    "an unknown write came and went": [w(0, UNKNOWN, 1), r(2, 3, 1), r(4, 5, None)],
    "a write found before it was called": [r(0, 1, 1), w(2, UNKNOWN, 1)],
    "an unknown write takes effect twice": [w(0, UNKNOWN, 1), r(1, 2, 1), w(3, 4, 2), r(5, 6, 2), r(7, 8, 1)],
    "an unknown delete takes effect twice": [
        w(0, 1, 1),
        w(2, UNKNOWN, None),
        r(3, 4, None),
        w(5, 6, 2),
        r(7, 8, 2),
        r(9, 10, None),
    ],
    "both swaps win": [w(0, 1, 1), s(2, 9, 1, 2), s(2, 9, 1, 3)],
    "a refusal without a reason": [w(0, 1, 1), s(2, 3, 1, 2, swapped=False)],
    "readers see two writes in two orders": [w(0, 20, 1), w(0, 20, 2), r(1, 2, 1), r(3, 4, 2), r(5, 6, 1)],
}


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD)
def test_histories_that_are_linearizable(history: list[Operation]) -> None:
    assert contradiction(history) is None
    assert by_hand(history)


@pytest.mark.parametrize("history", BAD.values(), ids=BAD)
def test_histories_that_are_not(history: list[Operation]) -> None:
    assert contradiction(history) is not None
    assert not by_hand(history)


def by_hand(history: list[Operation]) -> bool:
    """Every order of the answered operations and of every choice of the unknown ones."""
    known = [operation for operation in history if operation.end != UNKNOWN]
    unknown = [operation for operation in history if operation.end == UNKNOWN]
    return any(
        _fits(order)
        for count in range(len(unknown) + 1)
        for chosen in itertools.combinations(unknown, count)
        for order in _orders([*known, *chosen])
    )


def _orders(operations: list[Operation]) -> Iterator[tuple[Operation, ...]]:
    for order in itertools.permutations(operations):
        if not any(later.end < earlier.call for earlier, later in itertools.combinations(order, 2)):
            yield order


def _fits(order: tuple[Operation, ...]) -> bool:
    held: object = None
    for operation in order:
        fits, held = operation.apply(held)
        if not fits:
            return False
    return True


def test_it_agrees_with_brute_force_on_small_random_histories() -> None:
    rng = random.Random(4)
    verdicts = {True: 0, False: 0}
    for _ in range(4000):
        places = rng.sample(range(100), 12)
        history = []
        for number in range(rng.randint(1, 6)):
            call, end = sorted(places[number * 2 : number * 2 + 2])
            ends: float = end if rng.random() < 0.75 else UNKNOWN
            value, expected = rng.choice([None, 1, 2, 3]), rng.choice([None, 1, 2, 3])
            kind = rng.choice([w, r, r, s])
            history.append(
                s(call, ends, expected, value, swapped=rng.random() < 0.6 or ends == UNKNOWN)
                if kind is s
                else kind(call, ends, value)
            )
        expected_verdict = by_hand(history)
        assert (contradiction(history) is None) == expected_verdict, "\n".join(map(str, history))
        verdicts[expected_verdict] += 1
    assert min(verdicts.values()) > 500


def made(rng: random.Random, operations: int, clients: int) -> list[Operation]:
    """A history of a true register: each operation takes effect at some place between its call and its end."""
    free_at = [0.0] * clients
    effects = []
    for number in range(operations):
        client = min(range(clients), key=free_at.__getitem__)
        call = free_at[client] + rng.random()
        end = call + rng.expovariate(1)
        free_at[client] = end
        effects.append((rng.uniform(call, end), call, end, number, rng.random()))
    history, held = [], None
    for _, call, end, number, kind in sorted(effects):
        ends = end if rng.random() < 0.9 else UNKNOWN
        if kind < 0.4:
            if ends != UNKNOWN or rng.random() < 0.5:
                held = number
            history.append(w(call, ends, number))
        elif kind < 0.5:
            if ends != UNKNOWN or rng.random() < 0.5:
                held = None
            history.append(w(call, ends, None))
        else:
            history.append(r(call, ends, held))
    return history


def test_long_histories_are_decided_quickly_and_one_stale_read_is_found() -> None:
    rng = random.Random(5)
    started = time.monotonic()
    for _ in range(5):
        history = made(rng, 1500, 8)
        assert contradiction(history) is None
        reads = [place for place, operation in enumerate(history) if operation.kind is Kind.READ]
        place = rng.choice(reads[200:])
        stale = next(o.value for o in reversed(history[: place - 150]) if o.kind is Kind.WRITE and o.value is not None)
        history[place] = Operation(history[place].call, history[place].call + 0.001, Kind.READ, stale)
        assert contradiction(history) is not None
    assert time.monotonic() - started < 60


def test_unknown_writes_by_the_dozen_do_not_make_a_search_of_all_their_subsets() -> None:
    writes = [w(number, UNKNOWN, f"unknown {number}") for number in range(40)]
    after = [s(50, 51, "who knows", "x", swapped=False), w(52, 53, "y"), s(54, 55, "y", "z"), r(56, 57, "z")]
    started_s = time.process_time()
    assert contradiction(writes + after) is None
    assert contradiction([*writes, *after, r(58, 59, "y")]) is not None
    assert time.process_time() - started_s < 2.0


def test_a_contradiction_says_what_and_why() -> None:
    found = contradiction(BAD["a write is lost"])
    assert found is not None
    assert str(found).startswith("nothing explains [2..3]  read None: the register may hold [1]")
