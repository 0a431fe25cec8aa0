"""Rows that were read lately, decoded, in RAM: current versions and inline bodies.

Rule: a row that an entry changes leaves with the batch that changes it, so what is here is what a read of the store
would give; the memory of all rows that came in and were not yet pushed out again is bounded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

ROW_OVERHEAD_BYTES = 512
"""What the objects around a row take."""
RECORD_FACTOR = 5
"""A decoded record takes so much more memory than its row: 945 bytes for one of 111, 660 kB for one of 2,000 parts that
has 138 kB (tracemalloc)."""


class RowCache:
    """First in, first out. `rows.get` is the look-up."""

    def __init__(self, limit_bytes: int) -> None:
        self.rows: dict[bytes, Any] = {}
        self._order: deque[tuple[bytes, int]] = deque()
        self._left_bytes = limit_bytes

    def keep(self, key: bytes, row: object, size_bytes: int) -> None:
        """Adds a row that was just read, and pushes out the oldest ones."""
        cost = size_bytes + len(key) + ROW_OVERHEAD_BYTES
        self._left_bytes -= cost
        self._order.append((key, cost))
        self.rows[key] = row
        while self._left_bytes < 0:
            oldest, cost = self._order.popleft()
            self._left_bytes += cost
            self.rows.pop(oldest, None)

    def forget(self, keys: Iterable[bytes]) -> None:
        """These rows changed. Their room comes back when their turn comes."""
        pop = self.rows.pop
        for key in keys:
            pop(key, None)
