"""Makes a chunk durable on enough nodes, whatever it takes: by its scheme, else as copies on those that answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edgestore.chunks.encoder import Encoded
from edgestore.chunks.numbers import ChunkNumbers
from edgestore.chunks.placed import PlacedChunk
from edgestore.chunks.spread import Spread, SpreadTools
from edgestore.errors import StorageFull, Unavailable
from edgestore.placement import NOBODY, Scheme, copies_for
from edgestore.records import ChunkRef

PAUSE_S = 0.1


def _nothing() -> None:
    """For memory that nobody counts."""


class Sender:
    """Sends chunks. What it gave up goes: `drop` is told where it may lie."""

    def __init__(
        self, tools: SpreadTools, numbers: ChunkNumbers, drop: Callable[[ChunkRef, tuple[int, ...]], None]
    ) -> None:
        self.tools, self._numbers, self._drop = tools, numbers, drop

    async def send(
        self,
        encoded: Encoded,
        size_bytes: int,
        scheme: Scheme,
        *,
        hold: Callable[[], None] = _nothing,
        release: Callable[[], None] = _nothing,
    ) -> PlacedChunk:
        """Returns when k + t fragments are synced. Raises Unavailable, StorageFull."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self.tools.config.write_timeout_s
        while True:
            # A chunk id has one scheme for ever, so each attempt has an id of its own.
            chunk = self._numbers.chunk(self._numbers.take(), size_bytes)
            placement = self.tools.sites.placements(self.tools.sites.layout().epoch)[-1]
            spread = Spread(self.tools, chunk.chunk_id, encoded, scheme, placement, hold=hold, release=release)
            try:
                holders = await spread.run()
                return PlacedChunk(chunk, scheme, placement.epoch, holders)
            except Unavailable as error:
                self._drop(chunk, placement.ranking(chunk.chunk_id))
                is_full = encoded.k == 1 and isinstance(error, StorageFull)  # that passes not so soon
                if is_full or loop.time() >= until_s:
                    raise
            except BaseException:
                self._drop(chunk, placement.ranking(chunk.chunk_id))
                raise
            if encoded.k == 1:
                await asyncio.sleep(PAUSE_S)
            scheme = copies_for(scheme.t)
            encoded = encoded.as_copies(scheme.m)


def holders_left(placed: PlacedChunk, counted: frozenset[int]) -> tuple[int, ...]:
    """The holders that still count."""
    return tuple(node if node in counted else NOBODY for node in placed.holders)
