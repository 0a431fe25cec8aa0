"""Salvage goes on behind a gap in the log: what lay in it (layouts, stop-signs, buckets, writers) is stood in for."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from edgestore.catalog import Applier, GapApplier, commands
from edgestore.records import ChunkRef
from tests.unit.catalog.site import OWNER, MemoryStore


def entry(incarnation: int, sequence: int, command: commands.Command) -> bytes:
    operation = commands.Operation(5, sequence, 0, 1_000_000, OWNER, command)
    return commands.encode_entry(commands.Entry(1, 0, incarnation, 1_000_000, (operation,)))


@pytest.mark.parametrize("incarnation", [0, 2])
def test_an_extent_of_a_lost_layout_in_a_lost_incarnation_is_saved(incarnation: int) -> None:
    store = MemoryStore()
    applier = Applier(store)
    gaps = GapApplier(applier, store)
    gaps.apply(1, 1, entry(0, 1, commands.FoundSite(b"s" * 16, 1)))
    chunk = ChunkRef(3, 17, 1000)
    new = commands.NewExtent(chunk.chunk_id, (chunk,), 1000, 2, 2, 9, 1, ((0, 1, 4),), ((0, 3),))
    content = commands.Content(1000, "etag", (), b"", (new,))
    gaps.apply(50, 1, entry(incarnation, 2, commands.PutObject(6, "key", OWNER, 0, content)))
    bucket = applier.state.bucket("lost-bucket-6")
    found = applier.state.head(bucket, "key")
    assert found is not None
    extent = applier.state.extent(OWNER, found.extents[0].extent_id)
    assert extent is not None
    assert (extent.layout_epoch, extent.exceptions, extent.missing) == (9, ((0, 1, 4),), ((0, 3),))
    new_chunk = replace(chunk, writer=4)
    swap = commands.SwapExtent(OWNER, extent.extent_id, 0, 0, (new_chunk,), 1, 1, 1, 12)
    gaps.apply(90, 1, entry(incarnation, 3, swap))
    extent = applier.state.extent(OWNER, found.extents[0].extent_id)
    assert extent is not None
    assert extent.chunks == (new_chunk,)
