"""What the rooms of chunks need of the catalog: `chunks` and `meta` do not know each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgestore.catalog import commands
from edgestore.meta import Meta
from edgestore.records import SITE_TENANT


@dataclass
class MetaChunkCatalog:
    """What the rooms of chunks need of the catalog (`chunks.ChunkCatalog`)."""

    meta: Meta
    writer: Callable[[], int]
    """This node's writer now: a node that was down comes back with another."""

    def applied_index(self) -> int:
        """See ChunkCatalog."""
        return self.meta.applied_index

    def condemned(self, limit: int, after: bytes = b"") -> list[tuple[bytes, int]]:
        """See ChunkCatalog."""
        return self.meta.state.condemned(limit, after)

    def names_chunk(self, chunk_id: bytes) -> bool:
        """See ChunkCatalog."""
        return self.meta.state.names_chunk(chunk_id)

    def drop_jobs(self, limit: int) -> list[bytes]:
        """See ChunkCatalog."""
        return self.meta.state.drop_jobs(limit)

    async def reclaimed(self, chunk_ids: tuple[bytes, ...]) -> None:
        """See ChunkCatalog."""
        await self.meta.propose(SITE_TENANT, commands.ReclaimedChunks(chunk_ids))

    async def condemn(self, chunk_ids: tuple[bytes, ...]) -> None:
        """See ChunkCatalog."""
        await self.meta.propose(SITE_TENANT, commands.CondemnChunks(chunk_ids))

    async def continue_drop(self, job_id: bytes) -> bool:
        """See ChunkCatalog."""
        return bool(await self.meta.propose(SITE_TENANT, commands.ContinueDrop(job_id)))

    async def advance_writer(self, low_water: int) -> None:
        """See ChunkCatalog."""
        await self.meta.propose(SITE_TENANT, commands.AdvanceWriter(self.writer(), low_water))
