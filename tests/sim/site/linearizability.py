"""Decides whether the history of one register is linearizable: Wing and Gong's search, just in time as Lowe has it.

Rule: an operation whose outcome is unknown may have happened at any time after its call, once, or never. Keys are
judged one by one, which loses nothing: linearizability is local (Herlihy and Wing).
"""

from __future__ import annotations

import enum
import heapq
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

UNKNOWN = float("inf")
"""The end of an operation that nobody answered."""


class Kind(enum.Enum):
    """What an operation does to the register."""

    WRITE = "write"
    READ = "read"
    SWAP = "swap"
    """Sets `value` where the register holds `expected`; `swapped` says whether it did."""


@dataclass(frozen=True, slots=True)
class Operation:
    """`call` and `end` are places on one time line. A READ's `value` is what it found; None: nothing there."""

    call: float
    end: float
    kind: Kind
    value: object = None
    expected: object = None
    swapped: bool = True
    who: str = ""

    @property
    def is_unknown(self) -> bool:
        """Whether nobody answered it."""
        return self.end == UNKNOWN

    def apply(self, held: object) -> tuple[bool, object]:
        """Whether it could find that, and what it leaves."""
        if self.kind is Kind.READ:
            return held == self.value, held
        if self.kind is Kind.WRITE:
            return True, self.value
        if self.is_unknown:
            return held == self.expected, self.value  # where it does not swap it changes nothing, and nobody heard
        return (held == self.expected) == self.swapped, self.value if self.swapped else held

    def __str__(self) -> str:
        detail = f"{self.expected!r} -> " if self.kind is Kind.SWAP else ""
        outcome = "" if self.swapped else " refused"
        return f"[{self.call:g}..{self.end:g}] {self.who} {self.kind.value} {detail}{self.value!r}{outcome}"


@dataclass(frozen=True, slots=True)
class Contradiction:
    """No order explains the answer of `operation`. `around`: what was under way or had just ended."""

    operation: Operation
    around: tuple[Operation, ...]
    possible: tuple[object, ...]

    def __str__(self) -> str:
        lines = "\n  ".join(str(operation) for operation in self.around)
        return f"nothing explains {self.operation}: the register may hold {list(self.possible)}\n  {lines}"


def contradiction(history: Iterable[Operation], initial: object = None) -> Contradiction | None:
    """None where the history of the register is linearizable."""
    operations = _with_bounds(list(history))
    for operation in operations:
        if operation.call > operation.end:  # an unknown write, and a read that had found it before it was called
            return Contradiction(operation, (), (initial,))
    search = _Search(initial)
    events = [(operation.call, 0, number) for number, operation in enumerate(operations)]
    events += [(operation.end, 1, number) for number, operation in enumerate(operations) if not operation.is_unknown]
    for _, is_end, number in sorted(events):
        if not is_end:
            search.begin(number, operations[number])
        elif not search.end(number):
            return Contradiction(operations[number], _around(operations, operations[number]), search.values())
        else:
            search.forget(number)
    return None


def _with_bounds(operations: list[Operation]) -> list[Operation]:
    """Unknown writes of a value that nobody else writes: one that was found took effect before it was found, and one
    that nothing hints at is left out."""
    found: dict[object, float] = {}
    writers: dict[object, int] = {}
    for operation in operations:
        if operation.kind is not Kind.READ:
            writers[operation.value] = writers.get(operation.value, 0) + 1
        if operation.is_unknown:
            continue
        if operation.kind is Kind.READ:
            found[operation.value] = min(operation.end, found.get(operation.value, UNKNOWN))
        elif operation.kind is Kind.SWAP and operation.swapped:
            found[operation.expected] = min(operation.end, found.get(operation.expected, UNKNOWN))
    has_refusals = any(not operation.swapped for operation in operations)
    bounded = []
    for operation in operations:
        if operation.is_unknown and operation.kind is Kind.READ:
            continue
        if operation.is_unknown and operation.value is not None and writers[operation.value] == 1:
            if operation.value in found:
                operation = replace(operation, end=found[operation.value])
            elif not has_refusals:
                continue
        bounded.append(operation)
    return bounded


def _around(operations: Sequence[Operation], of: Operation) -> tuple[Operation, ...]:
    near = [operation for operation in operations if operation.call <= of.end]
    return tuple(sorted(near, key=lambda operation: min(operation.end, of.end))[-12:])


class _Search:
    """The states that the register can be in: which of the operations under way have taken effect, and what it holds.

    An operation takes effect in here only when some answer needs it (Lowe's "just in time"). Operations that may
    never end are kept apart: of two states that differ in them only, the one that has used fewer can do all that the
    other can.
    """

    def __init__(self, initial: object) -> None:
        self.under_way: dict[int, Operation] = {}
        self.never_end: dict[int, Operation] = {}
        self.states: set[tuple[frozenset[int], frozenset[int], object]] = {(frozenset(), frozenset(), initial)}

    def begin(self, number: int, operation: Operation) -> None:
        """It was called."""
        (self.never_end if operation.is_unknown else self.under_way)[number] = operation

    def end(self, number: int) -> bool:
        """It was answered: only states remain in which it has taken effect.

        Those that have used least come first, so that each of the others is known to be needless when its turn comes:
        without this order a search tries every subset of what may never end.
        """
        least: dict[tuple[frozenset[int], object], list[frozenset[int]]] = {}
        reached, turns = set(), itertools.count()
        coming = [(len(state[1]), next(turns), state) for state in self.states]
        heapq.heapify(coming)
        while coming:
            _, _, (done, used, held) = heapq.heappop(coming)
            kept = least.setdefault((done, held), [])
            if any(other <= used for other in kept):
                continue
            kept.append(used)
            if number in done:
                reached.add((done, used, held))
                continue
            for state in self._next(done, used, held):
                heapq.heappush(coming, (len(state[1]), next(turns), state))
        if reached:
            self.states = reached
        return bool(reached)

    def _next(
        self, done: frozenset[int], used: frozenset[int], held: object
    ) -> Iterable[tuple[frozenset[int], frozenset[int], object]]:
        for number, operation in self.under_way.items():
            if number not in done:
                fits, value = operation.apply(held)
                if fits:
                    yield done | {number}, used, value
        tried = set()
        for number, operation in self.never_end.items():
            twin = (operation.kind, operation.value, operation.expected)
            if number in used or twin in tried:
                continue
            tried.add(twin)  # of several that do the same the oldest is as good as any
            fits, value = operation.apply(held)
            if fits and value != held:
                yield done, used | {number}, value

    def forget(self, number: int) -> None:
        """It has ended: every state holds it."""
        del self.under_way[number]
        self.states = {(done - {number}, used, held) for done, used, held in self.states}

    def values(self) -> tuple[object, ...]:
        """What the register may hold."""
        return tuple(sorted({held for _, _, held in self.states}, key=repr))
