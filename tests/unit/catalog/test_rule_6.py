"""Rule 6 and what happens without it: a chunk is named for the first time only while its writer is open."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from unittest import mock

import pytest

from edgestore.catalog import commands, extents
from edgestore.errors import StaleChunk
from tests.unit.catalog.site import Site, put


@pytest.mark.parametrize("broken", [False, True], ids=["with the rule", "without it"])
def test_no_version_names_a_chunk_that_may_be_reclaimed(broken: bool) -> None:
    site = Site()
    bucket = site.bucket()
    late = site.content()
    site.do(commands.CloseWriter(site.writer))
    chunk_id = late.extents[0].chunks[0].chunk_id
    assert site.do(commands.CondemnChunks((chunk_id,))) == [chunk_id]
    site.do(commands.ReclaimedChunks((chunk_id,)))
    rule: AbstractContextManager[object] = nullcontext()
    if broken:
        rule = mock.patch.object(extents, "_check_fresh", lambda context, chunk, writer: None)
    with rule:
        with suppress(StaleChunk):
            site.do(put(bucket, "key", late))
    readable = site.state.head(bucket, "key") is None  # what is there can be read: its chunk was never deleted
    assert readable is not broken
