"""Writers, naming, counting, condemning, and drops in pieces (rules 6 and 7)."""

from __future__ import annotations

import pytest

from edgestore.catalog import commands
from edgestore.errors import BadRequest, StaleChunk
from edgestore.records import CHUNK_MAX_BYTES, ChunkRef
from tests.unit.catalog.audit import audit
from tests.unit.catalog.site import Site, inline, put


def test_new_writer_closes_the_earlier_ones_of_its_node_only() -> None:
    site = Site()
    other = site.do(commands.RegisterWriter("other node")).writer
    again = site.do(commands.RegisterWriter("node"))
    assert site.state.writer(site.writer) is None
    assert site.state.writer(other) is not None
    assert site.state.writer(again.writer) == again
    assert again.writer > other > site.writer


def test_low_water_mark_only_rises() -> None:
    site = Site()
    for low_water, expected in [(5, 5), (3, 5), (9, 9)]:
        site.do(commands.AdvanceWriter(site.writer, low_water))
        writer = site.state.writer(site.writer)
        assert writer is not None
        assert writer.low_water == expected
    site.do(commands.CloseWriter(site.writer))
    site.do(commands.AdvanceWriter(site.writer, 99))
    assert site.state.writer(site.writer) is None


@pytest.mark.parametrize(
    "end",
    [
        lambda site: commands.CloseWriter(site.writer),
        lambda site: commands.RegisterWriter("node"),
        lambda site: commands.AdvanceWriter(site.writer, site.number + 1),
    ],
)
def test_chunk_is_not_named_behind_its_writers_back(end: object) -> None:
    site = Site()
    bucket = site.bucket()
    content = site.content()
    site.do(end(site))
    with pytest.raises(StaleChunk):
        site.put(bucket, "key", content)
    assert site.state.head(bucket, "key") is None
    assert not site.state.names_chunk(content.extents[0].extent_id)
    audit(site.store)


def test_chunk_of_a_writer_never_opened_is_not_named() -> None:
    site = Site()
    bucket = site.bucket()
    chunk = ChunkRef(99, 1, 10)
    with pytest.raises(StaleChunk):
        site.put(bucket, "key", site.content(commands.NewExtent(chunk.chunk_id, (chunk,), 10)))


def test_chunk_at_the_low_water_mark_may_be_named() -> None:
    site = Site()
    bucket = site.bucket()
    content = site.content()
    site.do(commands.AdvanceWriter(site.writer, site.number))
    site.put(bucket, "key", content)
    assert site.state.names_chunk(content.extents[0].extent_id)


def test_chunk_is_named_for_the_first_time_once() -> None:
    site = Site()
    bucket = site.bucket()
    content = site.content()
    site.put(bucket, "key", content)
    with pytest.raises(StaleChunk):
        site.put(bucket, "other", content)
    site.delete(bucket, "key")
    with pytest.raises(StaleChunk):  # condemned: its fragments are being deleted
        site.put(bucket, "key", content)
    audit(site.store)


def test_one_bad_chunk_refuses_the_whole_command() -> None:
    site = Site()
    bucket = site.bucket()
    good = site.extent(2)
    stale = ChunkRef(99, 1, 10)
    mixed = commands.NewExtent(good.extent_id, (*good.chunks, stale), 2010)
    before = site.put(bucket, "key", inline(b"before"))
    with pytest.raises(StaleChunk):
        site.put(bucket, "key", site.content(mixed))
    assert site.state.head(bucket, "key") == before
    assert not any(site.state.names_chunk(chunk.chunk_id) for chunk in good.chunks)
    audit(site.store)


@pytest.mark.parametrize("chunks", [0, 1025])
def test_extent_has_a_bounded_number_of_chunks(chunks: int) -> None:
    site = Site()
    bucket = site.bucket()
    refs = tuple(site.chunk() for _ in range(chunks))
    extent = commands.NewExtent(refs[0].chunk_id if refs else b"", refs, 10)
    with pytest.raises(BadRequest):
        site.put(bucket, "key", site.content(extent))


def test_extent_is_named_after_its_first_chunk() -> None:
    site = Site()
    bucket = site.bucket()
    first, second = site.chunk(), site.chunk()
    with pytest.raises(BadRequest):
        site.put(bucket, "key", site.content(commands.NewExtent(second.chunk_id, (first, second), 2000)))


@pytest.mark.parametrize("chunk", [ChunkRef(-1, 1, 10), ChunkRef(1, -1, 10)])
def test_numbers_out_of_range_fail_the_operation_and_not_the_log(chunk: ChunkRef) -> None:
    site = Site()
    bucket = site.bucket()
    extent = commands.NewExtent(b"x" * 16, (chunk,), 10)
    refused, fine = site.all(
        commands.CondemnChunks((b"short", b"x" * 17)),
        put(bucket, "key", inline(b"fine")),
    )
    assert refused == []
    assert site.state.head(bucket, "key") == fine
    with pytest.raises((BadRequest, OverflowError)):
        site.put(bucket, "other", site.content(extent))
    assert site.state.head(bucket, "other") is None


def test_drop_job_of_an_absurd_number_fails_alone() -> None:
    site = Site()
    refused, fine = site.all(commands.AdvanceWriter(-1, 5), commands.RegisterWriter("third"))
    assert isinstance(refused, BadRequest)
    assert fine.node == "third"


def test_only_garbage_is_condemned() -> None:
    site = Site()
    bucket = site.bucket()
    named, dropped = site.content(), site.content()
    lost, in_flight = site.chunk(), site.chunk()
    site.put(bucket, "named", named)
    site.put(bucket, "dropped", dropped)
    site.delete(bucket, "dropped")
    site.do(commands.AdvanceWriter(site.writer, lost.number + 1))
    foreign = ChunkRef(77, 1, 1)
    asked = (
        named.extents[0].extent_id,
        dropped.extents[0].extent_id,
        lost.chunk_id,
        in_flight.chunk_id,
        foreign.chunk_id,
    )
    assert site.do(commands.CondemnChunks(asked)) == [lost.chunk_id]
    assert site.do(commands.CondemnChunks(asked)) == []
    condemned = [dropped.extents[0].extent_id, lost.chunk_id]
    assert [chunk_id for chunk_id, _ in site.state.condemned(10)] == condemned
    site.do(commands.CloseWriter(site.writer))
    assert site.do(commands.CondemnChunks(asked)) == [in_flight.chunk_id]
    site.do(commands.ReclaimedChunks((lost.chunk_id, named.extents[0].extent_id)))
    left = [chunk_id for chunk_id, _ in site.state.condemned(10)]
    assert left == [dropped.extents[0].extent_id, in_flight.chunk_id]
    assert site.state.names_chunk(named.extents[0].extent_id)
    audit(site.store)


def test_condemned_rows_carry_the_index_and_are_read_in_pieces() -> None:
    site = Site()
    bucket = site.bucket()
    contents = [site.content() for _ in range(3)]
    for number, content in enumerate(contents):
        site.put(bucket, f"key{number}", content)
    for number in range(3):
        site.delete(bucket, f"key{number}")
    last = len(site.entries)
    ids = [content.extents[0].extent_id for content in contents]
    assert site.state.condemned(10) == list(zip(ids, (last - 2, last - 1, last), strict=True))
    assert site.state.condemned(2) == site.state.condemned(10)[:2]
    assert site.state.condemned(0) == []


def test_many_extents_go_by_a_drop_job_in_bounded_pieces() -> None:
    site = Site()
    bucket = site.bucket()
    content = site.content(*(site.extent() for _ in range(40)))
    site.put(bucket, "key", content)
    site.delete(bucket, "key")
    assert site.state.condemned(100) == []
    audit(site.store)
    sizes = []
    while jobs := site.state.drop_jobs(1):
        site.do(commands.ContinueDrop(jobs[0], 16))
        sizes.append(len(site.state.condemned(100)))
        audit(site.store)
    assert sizes == [16, 32, 40]
    assert site.do(commands.ContinueDrop(b"gone")) is True


def test_drop_without_pieces_still_gets_on() -> None:
    site = Site()
    bucket = site.bucket()
    site.put(bucket, "key", site.content(*(site.extent() for _ in range(20))))
    site.delete(bucket, "key")
    assert site.run_drops(pieces_max=0) == 20


def test_few_extents_of_many_bytes_go_by_a_drop_job() -> None:
    site = Site()
    bucket = site.bucket()
    extents = []
    for _ in range(2):
        chunks = tuple(site.chunk(CHUNK_MAX_BYTES) for _ in range(700))
        extents.append(commands.NewExtent(chunks[0].chunk_id, chunks, 700 * CHUNK_MAX_BYTES))
    site.put(bucket, "key", site.content(*extents))
    site.put(bucket, "key", inline(b"small"))
    assert site.state.condemned(10) == []
    assert site.run_drops() == 1
    assert len(site.state.condemned(2000)) == 1400
    audit(site.store)


def test_piece_of_a_drop_is_bounded_in_chunks() -> None:
    site = Site()
    bucket = site.bucket()
    extents = [site.extent(600) for _ in range(17)]
    site.put(bucket, "key", site.content(*extents))
    site.delete(bucket, "key")
    jobs = site.state.drop_jobs(1)
    assert site.do(commands.ContinueDrop(jobs[0])) is False
    assert len(site.state.condemned(100_000)) == 1200
    site.run_drops()
    audit(site.store)


def test_shared_extents_survive_the_drop_job_of_one_name() -> None:
    site = Site()
    bucket = site.bucket()
    record = site.put(bucket, "key", site.content(*(site.extent() for _ in range(20))))
    named = (record.site_incarnation, record.log_index, record.position)
    site.do(commands.CopyObject(bucket.bucket_id, "key", named, bucket.bucket_id, "copy", 7, 1))
    site.delete(bucket, "key")
    site.run_drops()
    assert site.state.condemned(100) == []
    audit(site.store)
    site.delete(bucket, "copy")
    site.run_drops()
    assert len(site.state.condemned(100)) == 20
    audit(site.store)
