"""The numbers of one writer's chunks, and the mark below which the outcome of every naming is known (rule 6)."""

from __future__ import annotations

from edgestore.errors import Unavailable
from edgestore.records import ChunkRef

NOBODY = -1


class ChunkNumbers:
    """Numbers are handed out in RAM, upwards, each once in the life of the process: a new start has a new writer."""

    def __init__(self, writer: int = NOBODY) -> None:
        self.writer = writer
        self._next = 0
        self._outstanding: dict[int, None] = {}

    def begin(self, writer: int) -> None:
        """What is taken from now on belongs to `writer`. Numbers go on, so no two chunks of a process share one."""
        self.writer = writer

    def take(self) -> int:
        """A number whose outcome is open until `settle`. Raises Unavailable before the first `begin`."""
        if self.writer == NOBODY:
            raise Unavailable("the node has not found the others of its site yet: try again later")
        number = self._next
        self._next += 1
        self._outstanding[number] = None
        return number

    def chunk(self, number: int, size_bytes: int) -> ChunkRef:
        """The chunk of a number that was taken in this turn of the loop."""
        return ChunkRef(self.writer, number, size_bytes)

    def settle(self, number: int) -> None:
        """The chunk is named, or never will be."""
        self._outstanding.pop(number, None)

    def low_water(self) -> int:
        """Every number below is named or garbage."""
        return next(iter(self._outstanding), self._next)
