"""What a body is to the rooms below the protocols: units, one after another, all full but the last."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from edgestore.chunks.pool import Unit, UnitPool
from edgestore.errors import IncompleteBody
from edgestore.records import UNIT_BYTES, Checksum

UNIT_WORTH_BYTES = 4096
"""So much must have come of a body before a unit is taken for it: who announces a body and sends nothing holds none."""


class Body(Protocol):
    """A body on its way in."""

    size_bytes: int | None
    """Announced length; None where it is not known before the end."""

    trailer_checksums: tuple[Checksum, ...]
    """What the body's own trailer promises; known after the last unit."""

    async def next_unit(self) -> Unit | None:
        """The next unit, which the caller releases; None at the end. Raises IncompleteBody or BadDigest."""
        ...


class IteratorBody:
    """A body over pieces of any size, copied into units."""

    def __init__(self, pool: UnitPool, pieces: AsyncIterator[bytes | memoryview], size_bytes: int | None) -> None:
        self._pool, self._pieces, self.size_bytes = pool, pieces, size_bytes
        self.trailer_checksums: tuple[Checksum, ...] = ()
        self._rest = memoryview(b"")
        self._seen = 0
        self._ended = False

    async def next_unit(self) -> Unit | None:
        """See `Body.next_unit`."""
        unit: Unit | None = None
        try:
            while unit is None or unit.filled < UNIT_BYTES:
                if not self._rest and not await self._refill():
                    break
                if unit is None:
                    await self._gather()
                    unit = await self._pool.acquire()
                taken = min(len(self._rest), UNIT_BYTES - unit.filled)
                unit.buffer[unit.filled : unit.filled + taken] = self._rest[:taken]
                unit.filled += taken
                self._rest = self._rest[taken:]
        except BaseException:
            if unit is not None:
                unit.release()
            raise
        return unit

    async def _gather(self) -> None:
        """Waits until there is enough for a unit, or the end."""
        while len(self._rest) < UNIT_WORTH_BYTES:
            first = bytes(self._rest)
            if not await self._refill():
                self._rest = memoryview(first)
                return
            self._rest = memoryview(first + self._rest)

    async def _refill(self) -> bool:
        """Takes the next piece that is not empty; False at the end."""
        if self._ended:
            return False
        async for piece in self._pieces:
            if len(piece):
                self._rest = memoryview(piece).cast("B")
                self._seen += len(self._rest)
                return True
        self._ended = True
        if self.size_bytes is not None and self._seen != self.size_bytes:
            raise IncompleteBody(f"the body has {self._seen} bytes, {self.size_bytes} were announced")
        return False


def bytes_body(pool: UnitPool, data: bytes | bytearray | memoryview) -> IteratorBody:
    """A body that is in memory already."""

    async def pieces() -> AsyncIterator[bytes | memoryview]:
        yield memoryview(data).cast("B")

    return IteratorBody(pool, pieces(), memoryview(data).nbytes)
