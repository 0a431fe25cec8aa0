"""The numbers of one writer's chunks, and the mark below which the outcome of every naming is known (rule 6)."""

from __future__ import annotations

from edgestore.records import ChunkRef


class ChunkNumbers:
    """Numbers are handed out in RAM, upwards, each once: a new start has a new writer."""

    def __init__(self, writer: int) -> None:
        self.writer = writer
        self._next = 0
        self._outstanding: dict[int, None] = {}

    def renew(self, writer: int) -> None:
        """The site has closed the writer while this node was down: numbers go on under another one."""
        self.writer = writer

    def take(self) -> int:
        """A number whose outcome is open until `settle`."""
        number = self._next
        self._next += 1
        self._outstanding[number] = None
        return number

    def chunk(self, number: int, size_bytes: int) -> ChunkRef:
        """The chunk of that number."""
        return ChunkRef(self.writer, number, size_bytes)

    def settle(self, number: int) -> None:
        """The chunk is named, or never will be."""
        self._outstanding.pop(number, None)

    def low_water(self) -> int:
        """Every number below is named or garbage."""
        return next(iter(self._outstanding), self._next)
