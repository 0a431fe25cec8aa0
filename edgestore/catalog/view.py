"""What the catalog needs of an ordered store, and the overlay in which one log entry gathers its changes.

Rule: an operation that fails leaves no trace; an entry becomes one atomic batch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Protocol


class OrderedView(Protocol):
    """Rows in the order of their keys."""

    def get(self, key: bytes, /) -> bytes | None:
        """The value, or None."""
        ...

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows in [start, stop), ascending."""
        ...


class OrderedStore(OrderedView, Protocol):
    """A view that takes batches."""

    def write(self, changes: Sequence[tuple[bytes, bytes | None]]) -> None:
        """One atomic batch."""
        ...


class Transaction:
    """Reads see the store, the entry's changes, and those of the running operation, in that order."""

    def __init__(self, store: OrderedView) -> None:
        self._store = store
        self.changes: dict[bytes, bytes | None] = {}
        self._operation: dict[bytes, bytes | None] = {}
        self._sorted: list[bytes] = []
        """The keys of `changes`, as far as a scan has needed them: no key ever leaves `changes`."""

    def get(self, key: bytes, /) -> bytes | None:
        """The newest value."""
        if key in self._operation:
            return self._operation[key]
        if key in self.changes:
            return self.changes[key]
        return self._store.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Sets a row."""
        self._operation[key] = value

    def delete(self, key: bytes) -> None:
        """Removes a row."""
        self._operation[key] = None

    def keep(self) -> None:
        """The running operation succeeded."""
        self.changes.update(self._operation)
        self._operation.clear()

    def forget(self) -> None:
        """The running operation failed."""
        self._operation.clear()

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows in [start, stop), ascending, with all changes; the changes are taken as they are at the call."""
        pending = self._pending(start, stop)
        return _merged(self._store.scan(start, stop), pending) if pending else self._store.scan(start, stop)

    def _pending(self, start: bytes, stop: bytes) -> list[tuple[bytes, bytes | None]]:
        """The changes in [start, stop), in order. Sorting what is nearly sorted is linear."""
        keys = self._sorted
        if len(keys) < len(self.changes):
            keys.extend(islice(self.changes, len(keys), None))
            keys.sort()
        found = {key: self.changes[key] for key in keys[bisect_left(keys, start) : bisect_left(keys, stop)]}
        running = {key: value for key, value in self._operation.items() if start <= key < stop}
        if not running:
            return list(found.items())
        found.update(running)
        return sorted(found.items())


def _merged(
    stored: Iterator[tuple[bytes, bytes]], pending: list[tuple[bytes, bytes | None]]
) -> Iterator[tuple[bytes, bytes]]:
    """Both in order; a pending row hides the stored one, a pending None removes it."""
    at = 0
    for key, value in stored:
        while at < len(pending) and pending[at][0] < key:
            mine = pending[at]
            at += 1
            if mine[1] is not None:
                yield mine[0], mine[1]
        if at < len(pending) and pending[at][0] == key:
            replaced = pending[at][1]
            at += 1
            if replaced is not None:
                yield key, replaced
        else:
            yield key, value
    for key, change in islice(pending, at, None):
        if change is not None:
            yield key, change
