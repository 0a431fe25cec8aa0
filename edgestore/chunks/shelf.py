"""The fragments of one node as every node sees them: put, read, drop. This one is the own disk's.

Rule: `put` returns when the fragment is synced, and what it was given is compared with its page CRCs before it counts;
it takes the place of a damaged one only, and when it is written. Every call may come twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from edgestore.chunks.budget import ByteBudget
from edgestore.chunks.encoder import pages_of
from edgestore.chunks.facts import Buffer, Facts, facts_of
from edgestore.disk import Segments, Worker
from edgestore.errors import BadDigest, Conflict, Corrupt, NotFound, StorageFull
from edgestore.kernels import Buffers, page_crcs

SMALL_BYTES = 128 * 1024
"""Up to this size a fragment is written by the thread that syncs it."""
MOVES_MAX = 8


class Shelf(Protocol):
    """The fragments of one node."""

    async def put(self, facts: Facts, data: Buffer) -> None:
        """Keeps a whole fragment; returns when it is synced. Raises BadDigest, Conflict, StorageFull, Unavailable."""
        ...

    async def read(self, chunk_id: bytes, shard: int, start: int, stop: int) -> tuple[Facts, int, memoryview]:
        """(what its block says, where the bytes begin, whole pages that hold [start, stop)), checked. Raises NotFound,
        Corrupt, Unavailable."""
        ...

    async def drop(self, chunk_id: bytes, shards: Sequence[int] = ()) -> None:
        """Forgets fragments of a chunk; all of them where none is named."""
        ...


@dataclass(frozen=True, slots=True)
class Departure:
    """Since when a fragment belongs elsewhere: the index applied by then, and the loop's time."""

    index: int
    since_s: float


class _Known(Enum):
    """What lies here under the name of a fragment that comes in."""

    NOTHING = auto()
    DAMAGED = auto()
    WHOLE = auto()


class LocalShelf:
    """The own disk."""

    def __init__(self, segments: Segments, worker: Worker, buffers: Buffers) -> None:
        self._segments, self._worker, self._buffers = segments, worker, buffers
        self._coming: dict[tuple[bytes, int], asyncio.Future[None]] = {}
        self.departing: dict[tuple[bytes, int], Departure] = {}
        """Fragments that belong elsewhere by now. One that is asked for again stays."""

    async def put(self, facts: Facts, data: Buffer, worker: Worker | None = None) -> None:
        """See Shelf. `worker`: whose threads write it, if not those of the intake."""
        facts.check_shape()
        name = (facts.chunk_id, facts.shard)
        self.departing.pop(name, None)
        while (other := self._coming.get(name)) is not None:
            await asyncio.wait([other])
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._coming[name] = turn
        try:
            known = await self._known(facts)
            if known is not _Known.WHOLE:
                await self._write(facts, data, known, worker or self._worker)
            try:
                await self._synced()
            except StorageFull:
                if known is _Known.NOTHING:  # who hears of it has others take the fragment
                    self._segments.delete(facts.chunk_id, facts.shard)
                raise
        finally:
            del self._coming[name]
            turn.set_result(None)

    async def _known(self, facts: Facts) -> _Known:
        """What is here by that name. A chunk id has one scheme and one content for ever, so another whole fragment
        stays, and Conflict is raised."""
        segments = self._segments
        try:
            info = segments.lookup(facts.chunk_id, facts.shard)
        except Corrupt:
            return _Known.DAMAGED
        if info is None:
            return _Known.NOTHING
        if segments.is_damaged(facts.chunk_id, facts.shard):
            return _Known.DAMAGED
        if facts_of(info) == facts:
            return _Known.WHOLE if await segments.is_whole(info) else _Known.DAMAGED
        try:
            await self.read(facts.chunk_id, facts.shard, 0, info.fragment.stored_bytes)
        except (Corrupt, NotFound):
            return _Known.DAMAGED
        raise Conflict("another fragment of that name is here, and whole", shard=facts.shard)

    async def keeps(self, chunk_id: bytes, k: int, m: int, shard: int) -> bool:
        """Whether the fragment is here already, undamaged; then it is synced, and stays."""
        segments = self._segments
        self.departing.pop((chunk_id, shard), None)
        try:
            info = segments.lookup(chunk_id, shard)
        except Corrupt:
            return False
        if info is None or (info.fragment.k, info.fragment.m) != (k, m) or segments.is_damaged(chunk_id, shard):
            return False
        if not await segments.is_whole(info):
            return False
        await self._synced()
        return True

    async def _write(self, facts: Facts, data: Buffer, known: _Known, worker: Worker) -> None:
        segments = self._segments
        if len(data) <= SMALL_BYTES and known is _Known.NOTHING:
            _check(facts, data)
            segments.put(facts.chunk_id, data, facts.units, k=facts.k, m=facts.m, shard=facts.shard)
            return

        def write() -> None:
            _check(facts, data)
            writer.write(data)

        writer = segments.begin(facts.chunk_id, stored_max_bytes=len(data))
        try:
            await worker.run(write)
        except BaseException:
            segments.abort(writer)
            raise
        segments.wrote(writer)
        if known is _Known.DAMAGED:
            segments.delete(facts.chunk_id, facts.shard)  # not before: some of its pages may be the last that check out
        segments.seal(writer, facts.units, facts.page_crcs, k=facts.k, m=facts.m, shard=facts.shard)

    async def _synced(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self._segments.sync(done)
        await future

    async def read(self, chunk_id: bytes, shard: int, start: int, stop: int) -> tuple[Facts, int, memoryview]:
        """See Shelf."""
        try:
            for _ in range(MOVES_MAX):
                info = self._segments.lookup(chunk_id, shard)
                if info is None:
                    break
                facts = facts_of(info)
                size = facts.stored_bytes
                first, last = pages_of(min(start, size), min(stop, size), size)
                buffers = self._buffers if last - first > SMALL_BYTES else None
                data = self._segments.read_cached(info, first, last - first, buffers)
                if data is not None:
                    return facts, first, data
                try:
                    return facts, first, await self._segments.read(info, first, last - first)
                except NotFound:
                    continue  # compaction moved it meanwhile
        except Corrupt as error:
            self._segments.mark_damaged(chunk_id, shard, str(error))
            raise
        raise NotFound(f"shard {shard} of chunk {chunk_id.hex()} is not here", chunk_id=chunk_id.hex(), shard=shard)

    async def drop(self, chunk_id: bytes, shards: Sequence[int] = ()) -> None:
        """See Shelf."""
        self.forget(chunk_id, shards)

    def forget(self, chunk_id: bytes, shards: Sequence[int] = ()) -> None:
        """`drop` without a wait. Raises DiskFailed."""
        for shard in shards or self._segments.shards(chunk_id):
            self._segments.delete(chunk_id, shard)


def _check(facts: Facts, data: Buffer) -> None:
    if len(data) != facts.stored_bytes or page_crcs(data) != facts.page_crcs:
        raise BadDigest("the bytes of the fragment do not have the CRCs that came with them", shard=facts.shard)


class Intake:
    """What other nodes put here, within a reserve of its own."""

    def __init__(self, shelf: Shelf, limit_bytes: int) -> None:
        self.shelf, self.budget = shelf, ByteBudget(limit_bytes)

    async def put(self, facts: Facts, data: Buffer) -> None:
        """See Shelf."""
        await self.budget.take(len(data))
        try:
            await self.shelf.put(facts, data)
        finally:
            self.budget.give(len(data))
