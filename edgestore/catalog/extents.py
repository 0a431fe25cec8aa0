"""Commands on chunks and extents: naming, counting, condemning, dropping in pieces (rules 6 and 7)."""

from __future__ import annotations

from msgspec.structs import replace

from edgestore.catalog import commands, places, rows
from edgestore.catalog.context import Context
from edgestore.catalog.keys import Table, age, inline_row, number, number_of_tenant, row, successor
from edgestore.errors import BadRequest, StaleChunk
from edgestore.records import (
    CHUNK_MAX_BYTES,
    EXTENT_CHUNKS_MAX,
    SITE_TENANT,
    BucketRecord,
    ChunkRef,
    ExtentRecord,
    ExtentSpan,
    VersionRecord,
    WriterRecord,
)

SPANS_DROPPED_AT_ONCE_MAX = 16
BYTES_DROPPED_AT_ONCE_MAX = 512 * CHUNK_MAX_BYTES
CHUNKS_DROPPED_AT_ONCE_MAX = 1024
"""A piece of a drop job ends at the extent that passes it: two rows a chunk, about 10 ms."""
PIECES_MAX = 4096
_CHUNK_ID_BYTES = 16


def name_extents(
    context: Context, bucket: BucketRecord, extents: tuple[commands.NewExtent, ...]
) -> tuple[ExtentSpan, ...]:
    """Names new extents with one reference each. Raises StaleChunk (rule 6) and StaleFragments (rule 1)."""
    tenant, spans = bucket.owner, []
    for extent in extents:
        if not 1 <= len(extent.chunks) <= EXTENT_CHUNKS_MAX or extent.extent_id != extent.chunks[0].chunk_id:
            raise BadRequest("an extent has 1 to 1,024 chunks and the id of its first one")
        _name_chunks(context, tenant, extent.extent_id, extent.chunks)
        found = places.judge_named(context, extent)
        record = ExtentRecord(
            extent_id=extent.extent_id,
            chunks=extent.chunks,
            size_bytes=extent.size_bytes,
            owning_group=context.group,
            k=extent.k,
            m=extent.m,
            layout_epoch=extent.layout_epoch,
            exceptions=found.exceptions,
            tolerate=extent.tolerate,
            missing=found.missing,
            bucket_id=bucket.bucket_id,
        )
        if found is not places.AT_HOME:
            places.list_degraded(context, tenant, record)
        context.move_epoch(record.layout_epoch, 1)
        context.put(Table.EXTENTS, tenant, extent.extent_id, rows.encode(record))
        spans.append(ExtentSpan(extent.extent_id, extent.size_bytes))
    return tuple(spans)


def _name_chunks(context: Context, tenant: int, extent_id: bytes, chunks: tuple[ChunkRef, ...]) -> None:
    writers: dict[int, WriterRecord | None] = {}
    way_back = extent_id + number_of_tenant(tenant)
    for chunk in chunks:
        if chunk.writer not in writers:
            writers[chunk.writer] = context.state.writer(chunk.writer)
        _check_fresh(context, chunk, writers[chunk.writer])
        context.put(Table.CHUNKS, SITE_TENANT, chunk.chunk_id, way_back)


def _check_fresh(context: Context, chunk: ChunkRef, writer: WriterRecord | None) -> None:
    """A chunk is named for the first time once: not after it was dropped, and not by two extents."""
    if writer is None or chunk.number < writer.low_water:
        reason = "the chunk's writer is closed or past it: upload again"
    elif context.state.names_chunk(chunk.chunk_id):
        reason = "the chunk has a name already"
    elif context.state.is_condemned(chunk.chunk_id):
        reason = "the chunk had a name and lost it: upload again"
    else:
        return
    raise StaleChunk(reason, writer=chunk.writer, number=chunk.number)


def share_extents(context: Context, tenant: int, spans: tuple[ExtentSpan, ...]) -> None:
    """One reference more for each span."""
    for span in spans:
        extent = context.state.extent(tenant, span.extent_id)
        if extent is None:
            raise StaleChunk("an extent of the source is gone: read the source again", extent_id=span.extent_id.hex())
        _write_references(context, tenant, extent, extent.references + 1)


def _write_references(context: Context, tenant: int, extent: ExtentRecord, references: int) -> None:
    context.put(Table.EXTENTS, tenant, extent.extent_id, rows.encode(replace(extent, references=references)))


def release(context: Context, tenant: int, spans: tuple[ExtentSpan, ...]) -> None:
    """One reference less for each span: at once, or by a drop job where that is much work."""
    if len(spans) > SPANS_DROPPED_AT_ONCE_MAX or sum(span.size_bytes for span in spans) > BYTES_DROPPED_AT_ONCE_MAX:
        begin_drop(context, rows.DropJob(tenant, spans))
        return
    for span in spans:
        _release_span(context, tenant, span)


def _release_span(context: Context, tenant: int, span: ExtentSpan) -> int:
    """Returns how many chunks it condemned."""
    extent = context.state.extent(tenant, span.extent_id)
    if extent is None:
        return 0
    if extent.references > 1:
        _write_references(context, tenant, extent, extent.references - 1)
        return 0
    context.delete(Table.EXTENTS, tenant, extent.extent_id)
    places.forget_places(context, extent)
    _condemn_all(context, extent.chunks)
    return len(extent.chunks)


def _condemn_all(context: Context, chunks: tuple[ChunkRef, ...]) -> None:
    for chunk in chunks:
        context.delete(Table.CHUNKS, SITE_TENANT, chunk.chunk_id)
        _condemn(context, chunk.chunk_id)


def swap_extent(context: Context, command: commands.SwapExtent) -> ExtentRecord:
    """The same bytes in new chunks; every version that names the extent reads those from now on."""
    extent = places.find_unchanged(context, command)
    size_bytes = sum(chunk.size_bytes for chunk in command.chunks)
    if not 1 <= len(command.chunks) <= EXTENT_CHUNKS_MAX or size_bytes != extent.size_bytes:
        raise BadRequest("an extent is swapped for 1 to 1,024 chunks of as many bytes")
    _name_chunks(context, command.tenant, extent.extent_id, command.chunks)
    found = places.judge_named(context, command)
    _condemn_all(context, extent.chunks)
    after = replace(
        extent,
        chunks=command.chunks,
        k=command.k,
        m=command.m,
        generation=extent.generation + 1,
        layout_epoch=command.layout_epoch,
        exceptions=found.exceptions,
        tolerate=command.tolerate,
        missing=found.missing,
    )
    return places.write_places(context, command.tenant, extent, after)


def _condemn(context: Context, chunk_id: bytes) -> None:
    context.put(Table.CONDEMNED, SITE_TENANT, chunk_id, number(context.index))


def release_version(context: Context, bucket: BucketRecord, record: VersionRecord) -> None:
    """The bytes of a version that goes."""
    if record.inline:
        at = inline_row(context.group, bucket.owner, bucket.bucket_id, record.log_index, record.position)
        context.transaction.delete(at)
    if record.extents:
        release(context, bucket.owner, record.extents)


def begin_drop(context: Context, job: rows.DropJob) -> None:
    """Remembers work that ContinueDrop does in pieces. Several jobs of one operation get ids of their own."""
    job_id = age(context.index, context.position) + context.drops_begun.to_bytes(2, "big")
    context.drops_begun += 1
    context.put(Table.DROPS, SITE_TENANT, job_id, rows.encode(job))


def continue_drop(context: Context, command: commands.ContinueDrop) -> bool:
    """The next piece of a job; True when it is done. A job that is gone is done."""
    data = context.get(Table.DROPS, SITE_TENANT, command.job_id)
    if data is None:
        return True
    job = rows.drop_job(data)
    cursor = context.get(Table.DROP_CURSORS, SITE_TENANT, command.job_id)
    done = int.from_bytes(cursor, "big") if cursor is not None else 0
    pieces_left, chunks = min(max(command.pieces_max, 1), PIECES_MAX), 0
    while done < len(job.spans) and pieces_left and chunks < CHUNKS_DROPPED_AT_ONCE_MAX:
        chunks += _release_span(context, job.tenant, job.spans[done])
        done, pieces_left = done + 1, pieces_left - 1
    if done == len(job.spans) and _drop_parts(context, job, pieces_left, chunks):
        context.delete(Table.DROPS, SITE_TENANT, command.job_id)
        context.delete(Table.DROP_CURSORS, SITE_TENANT, command.job_id)
        return True
    context.put(Table.DROP_CURSORS, SITE_TENANT, command.job_id, number(done))
    return False


def _drop_parts(context: Context, job: rows.DropJob, pieces_max: int, chunks: int) -> bool:
    """Part rows are their own cursor: each goes when its extents are released. True when none is left."""
    if not job.upload_id:
        return True
    prefix = row(context.group, Table.PARTS, job.tenant, job.upload_id)
    kept = frozenset(job.kept)
    for key, value in context.transaction.scan(prefix, successor(prefix)):
        if pieces_max <= 0 or chunks >= CHUNKS_DROPPED_AT_ONCE_MAX:
            return False
        part = rows.part(value)
        context.transaction.delete(key)
        if part.number not in kept:
            chunks += sum(_release_span(context, job.tenant, span) for span in part.extents)
        pieces_max -= 1
    return True


def condemn_chunks(context: Context, command: commands.CondemnChunks) -> list[bytes]:
    """Those that are garbage: nothing names them, and nothing may any more."""
    condemned = []
    for chunk_id in command.chunk_ids:
        if _is_garbage(context, chunk_id):
            _condemn(context, chunk_id)
            condemned.append(chunk_id)
    return condemned


def _is_garbage(context: Context, chunk_id: bytes) -> bool:
    """A writer that was never opened here is not ours to judge."""
    writer_id = int.from_bytes(chunk_id[:8], "big")
    if len(chunk_id) != _CHUNK_ID_BYTES or not 0 < writer_id < context.site.next_writer:
        return False
    writer = context.state.writer(writer_id)
    if writer is not None and int.from_bytes(chunk_id[8:], "big") >= writer.low_water:
        return False
    return not context.state.names_chunk(chunk_id) and not context.state.is_condemned(chunk_id)


def reclaimed_chunks(context: Context, command: commands.ReclaimedChunks) -> None:
    """Their fragments are gone."""
    for chunk_id in command.chunk_ids:
        context.delete(Table.CONDEMNED, SITE_TENANT, chunk_id)
