"""What the catalog needs of an ordered store, and the overlay in which one log entry gathers its changes.

Rule: an operation that fails leaves no trace; an entry becomes one atomic batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
        self._operation = {}

    def forget(self) -> None:
        """The running operation failed."""
        self._operation = {}

    def scan(self, start: bytes, stop: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Rows in [start, stop), ascending, with all changes; the changes are taken as they are at the call."""
        changed = {**self.changes, **self._operation}
        pending = sorted(key for key in changed if start <= key < stop)
        at = 0
        for key, value in self._store.scan(start, stop):
            while at < len(pending) and pending[at] < key:
                mine = changed[pending[at]]
                if mine is not None:
                    yield pending[at], mine
                at += 1
            if at < len(pending) and pending[at] == key:
                mine = changed[key]
                at += 1
                if mine is not None:
                    yield key, mine
            else:
                yield key, value
        for key in pending[at:]:
            mine = changed[key]
            if mine is not None:
                yield key, mine
