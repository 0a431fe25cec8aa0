"""Whole fragments, piece by piece: as somebody has them, or made of k others.

Rule: each piece is paid for before it is read. Where clients are served beside it pieces are small, so that none of
them waits for more than one; where nobody is, a fragment is one piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from edgestore.chunks.encoder import scratch_bytes
from edgestore.chunks.facts import Facts, Source
from edgestore.chunks.gather import Gather
from edgestore.chunks.race import Fetch, worst
from edgestore.chunks.reading import joined
from edgestore.errors import Corrupt, EdgeStoreError, NotFound
from edgestore.records import CHUNK_MAX_BYTES, PAGE_BYTES


async def _nothing(count: int) -> None:
    """Who is waited for by a client pays nothing."""


@dataclass(frozen=True, slots=True)
class Pace:
    """`piece_bytes`: a multiple of a page, of each fragment that is read."""

    piece_bytes: int = CHUNK_MAX_BYTES
    pay: Callable[[int], Awaitable[None]] = _nothing


AT_ONCE = Pace()

_Piece = tuple[Facts, int, memoryview]


async def brought(
    gather: Gather, source: Source, shard: int, pace: Pace, nodes: list[int] | None = None
) -> tuple[Facts, memoryview]:
    """A fragment from whoever has it, or from one of `nodes`. Raises what `Gather.fetch` raises."""
    if nodes is not None and not nodes:
        raise NotFound(f"nobody at hand holds shard {shard} of the chunk", shard=shard)
    facts: Facts | None = None
    found: list[memoryview] = []
    at = 0
    while facts is None or at < facts.stored_bytes:
        await pace.pay(_piece_bytes(source, pace, at))
        fetch = Fetch(shard, at, min(at + pace.piece_bytes, CHUNK_MAX_BYTES), is_patient=True)
        said, _, data = await gather.fetch(source, fetch, nodes)
        if facts is not None and said != facts:
            raise _contradiction()
        facts = said
        found.append(data)
        at += pace.piece_bytes
    return facts, joined(found)


async def made(gather: Gather, source: Source, shard: int, pace: Pace) -> tuple[Facts, memoryview]:
    """A fragment made of k others, with what its block has to say. Raises Corrupt, Unavailable."""
    others = _Others(gather, source, shard)
    row: memoryview | None = None
    crcs: list[bytes] = []
    at = held_bytes = 0
    try:
        while row is None or at < len(row):
            await pace.pay(source.k * _piece_bytes(source, pace, at))
            present = await others.piece(at, min(at + pace.piece_bytes, CHUNK_MAX_BYTES))
            if row is None:
                await gather.budget.take(made_bytes(source))  # not before: others may be slow to answer
                held_bytes = made_bytes(source)
                row = gather.room(others.facts.stored_bytes)
            part = row[at : at + pace.piece_bytes]
            crcs.append(await gather.decode_into(source, present, {shard: part}))
            at += pace.piece_bytes
    finally:
        gather.budget.give(held_bytes)
    known = others.facts
    return Facts(known.chunk_id, source.k, source.m, shard, len(row), known.units, b"".join(crcs)), row


def made_bytes(source: Source) -> int:
    """What `made` needs beside the pieces that it reads: the fragment, and the slices that it is made in."""
    fragment_bytes = -(-source.chunk.size_bytes // source.k)
    return fragment_bytes + scratch_bytes(source.count, fragment_bytes)


def _piece_bytes(source: Source, pace: Pace, at: int) -> int:
    """What is still to be read of a fragment, as far as its chunk tells before it is packed."""
    fragment_bytes = -(-source.chunk.size_bytes // source.k)
    return max(min(pace.piece_bytes, fragment_bytes - at), PAGE_BYTES)


def _contradiction() -> Corrupt:
    return Corrupt("the fragments of a chunk contradict each other")


class _Others:
    """Pieces of any k fragments but one. Who failed once is asked last."""

    def __init__(self, gather: Gather, source: Source, shard: int) -> None:
        self._gather, self._source = gather, source
        self._shards = set(range(source.count)) - {shard}
        self._failed: set[int] = set()
        self.facts: Facts
        """Of one of them, once a piece is there."""
        self._is_known = False

    async def piece(self, start: int, stop: int) -> dict[int, memoryview]:
        """Bytes [start, stop) of k fragments. Raises Corrupt, Unavailable."""
        gather, source = self._gather, self._source
        found: dict[int, memoryview] = {}
        errors: list[EdgeStoreError] = []
        candidates = sorted(self._shards, key=lambda one: (one in self._failed, gather.preference(source, one)))
        while lacking := source.k - len(found):
            asked, candidates = candidates[:lacking], candidates[lacking:]
            if not asked:
                raise worst(errors, source, is_anybody_away=gather.is_anybody_away())
            for one, answer in zip(asked, await self._ask(asked, start, stop), strict=True):
                error = answer if isinstance(answer, EdgeStoreError) else self._judge(answer[0])
                if error is None and not isinstance(answer, EdgeStoreError):
                    found[one] = answer[2]
                elif error is not None:
                    errors.append(error)
                    self._failed.add(one)
        return found

    def _judge(self, facts: Facts) -> EdgeStoreError | None:
        """What speaks against a fragment of these facts."""
        if not self._is_known:
            self.facts, self._is_known = facts, True
        if (facts.units, facts.stored_bytes) != (self.facts.units, self.facts.stored_bytes):
            return _contradiction()
        return None

    async def _ask(self, shards: list[int], start: int, stop: int) -> list[_Piece | EdgeStoreError]:
        """At once, each with its own outcome."""

        async def one(shard: int) -> _Piece | EdgeStoreError:
            try:
                return await self._gather.fetch(self._source, Fetch(shard, start, stop, is_patient=True))
            except EdgeStoreError as error:
                return error

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(shard)) for shard in shards]
        return [task.result() for task in tasks]
