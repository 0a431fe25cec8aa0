"""Commands on chunks, extents and writers: naming, counting, condemning, dropping in pieces (rules 6 and 7)."""

from __future__ import annotations

import msgspec

from edgestore.catalog import commands, rows
from edgestore.catalog.context import Context
from edgestore.catalog.keys import Table, age, number, row, successor
from edgestore.errors import StaleChunk
from edgestore.records import (
    SITE_TENANT,
    BucketRecord,
    ChunkRef,
    ExtentRecord,
    ExtentSpan,
    VersionRecord,
    WriterRecord,
)

SPANS_DROPPED_AT_ONCE_MAX = 16
CHUNKS_DROPPED_AT_ONCE_MAX = 4096


def name_extents(context: Context, tenant: int, extents: tuple[commands.NewExtent, ...]) -> tuple[ExtentSpan, ...]:
    """Names new extents with one reference each. Raises StaleChunk (rule 6)."""
    spans = []
    for extent in extents:
        for chunk in extent.chunks:
            _check_fresh(context, chunk)
            context.put(Table.CHUNKS, SITE_TENANT, chunk.chunk_id, extent.extent_id)
        record = ExtentRecord(
            extent_id=extent.extent_id,
            chunks=extent.chunks,
            size_bytes=extent.size_bytes,
            owning_group=context.group,
            k=extent.k,
            m=extent.m,
            layout_epoch=extent.layout_epoch,
        )
        context.put(Table.EXTENTS, tenant, extent.extent_id, rows.encode(record))
        spans.append(ExtentSpan(extent.extent_id, extent.size_bytes))
    return tuple(spans)


def _check_fresh(context: Context, chunk: ChunkRef) -> None:
    writer = context.state.writer(chunk.writer)
    if writer is None or chunk.number < writer.low_water or context.state.names_chunk(chunk.chunk_id):
        raise StaleChunk(
            "the chunk's writer is closed or past it: upload again", writer=chunk.writer, number=chunk.number
        )


def share_extents(context: Context, tenant: int, spans: tuple[ExtentSpan, ...]) -> None:
    """One reference more for each span."""
    for span in spans:
        extent = context.state.extent(tenant, span.extent_id)
        if extent is None:
            raise StaleChunk("an extent of the source is gone: read the source again", extent_id=span.extent_id.hex())
        _write_extent(context, tenant, extent, extent.references + 1)


def _write_extent(context: Context, tenant: int, extent: ExtentRecord, references: int) -> None:
    changed = ExtentRecord(
        extent.extent_id,
        extent.chunks,
        extent.size_bytes,
        references,
        extent.owning_group,
        extent.k,
        extent.m,
        extent.generation,
        extent.layout_epoch,
        extent.exceptions,
    )
    context.put(Table.EXTENTS, tenant, extent.extent_id, rows.encode(changed))


def release(context: Context, tenant: int, spans: tuple[ExtentSpan, ...]) -> None:
    """One reference less for each span: at once, or by a drop job where there are many."""
    if len(spans) > SPANS_DROPPED_AT_ONCE_MAX:
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
        _write_extent(context, tenant, extent, extent.references - 1)
        return 0
    context.delete(Table.EXTENTS, tenant, extent.extent_id)
    for chunk in extent.chunks:
        context.delete(Table.CHUNKS, SITE_TENANT, chunk.chunk_id)
        _condemn(context, chunk.chunk_id)
    return len(extent.chunks)


def _condemn(context: Context, chunk_id: bytes) -> None:
    context.put(Table.CONDEMNED, SITE_TENANT, chunk_id, context.index.to_bytes(8, "big"))


def release_version(context: Context, bucket: BucketRecord, record: VersionRecord) -> None:
    """The bytes of a version that goes."""
    if record.inline:
        rest = number(bucket.bucket_id) + age(record.log_index, record.position)
        context.delete(Table.INLINE, bucket.owner, rest)
    release(context, bucket.owner, record.extents)


def begin_drop(context: Context, job: rows.DropJob) -> None:
    """Remembers work that ContinueDrop does in pieces. Several jobs of one operation get ids of their own."""
    for turn in range(1 << 16):
        job_id = age(context.index, context.position) + turn.to_bytes(2, "big")
        if context.get(Table.DROPS, SITE_TENANT, job_id) is None:
            context.put(Table.DROPS, SITE_TENANT, job_id, rows.encode(job))
            return


def continue_drop(context: Context, command: commands.ContinueDrop) -> bool:
    """The next piece of a job; True when it is done. A job that is gone is done."""
    data = context.get(Table.DROPS, SITE_TENANT, command.job_id)
    if data is None:
        return True
    job = rows.drop_job(data)
    chunks = taken = 0
    while taken < len(job.spans) and taken < command.pieces_max and chunks < CHUNKS_DROPPED_AT_ONCE_MAX:
        chunks += _release_span(context, job.tenant, job.spans[taken])
        taken += 1
    rest = job.spans[taken:]
    if not rest and _drop_parts(context, job, command.pieces_max - taken, chunks):
        context.delete(Table.DROPS, SITE_TENANT, command.job_id)
        return True
    left = rows.DropJob(job.tenant, rest, job.upload_id, job.kept)
    context.put(Table.DROPS, SITE_TENANT, command.job_id, rows.encode(left))
    return False


def _drop_parts(context: Context, job: rows.DropJob, pieces_max: int, chunks: int) -> bool:
    """Part rows are their own cursor: each goes when its extents are released. True when none is left."""
    if not job.upload_id:
        return True
    prefix = row(context.group, Table.PARTS, job.tenant, job.upload_id)
    kept = frozenset(job.kept)
    for _, value in context.transaction.scan(prefix, successor(prefix)):
        if pieces_max <= 0 or chunks >= CHUNKS_DROPPED_AT_ONCE_MAX:
            return False
        part = rows.part(value)
        context.delete(Table.PARTS, job.tenant, job.upload_id + part.number.to_bytes(2, "big"))
        if part.number not in kept:
            chunks += sum(_release_span(context, job.tenant, span) for span in part.extents)
        pieces_max -= 1
    return True


def register_writer(context: Context, command: commands.RegisterWriter) -> WriterRecord:
    """Opens a writer; the earlier ones of the node are closed, which is: forgotten."""
    prefix = row(context.group, Table.WRITERS, SITE_TENANT)
    for _, value in list(context.transaction.scan(prefix, successor(prefix))):
        earlier = rows.writer(value)
        if earlier.node == command.node:
            context.delete(Table.WRITERS, SITE_TENANT, number(earlier.writer))
    record = WriterRecord(context.site.next_writer, command.node, context.index)
    context.site = msgspec.structs.replace(context.site, next_writer=context.site.next_writer + 1)
    context.put(Table.WRITERS, SITE_TENANT, number(record.writer), rows.encode(record))
    return record


def advance_writer(context: Context, command: commands.AdvanceWriter) -> None:
    """Moves the low-water mark up."""
    record = context.state.writer(command.writer)
    if record is None or record.low_water >= command.low_water:
        return
    changed = WriterRecord(record.writer, record.node, record.opened_index, command.low_water)
    context.put(Table.WRITERS, SITE_TENANT, number(record.writer), rows.encode(changed))


def close_writer(context: Context, command: commands.CloseWriter) -> None:
    """Nothing of this writer is named for the first time any more."""
    context.delete(Table.WRITERS, SITE_TENANT, number(command.writer))


def condemn_chunks(context: Context, command: commands.CondemnChunks) -> list[bytes]:
    """Those that are garbage: nothing names them, and nothing may any more."""
    condemned = []
    for chunk_id in command.chunk_ids:
        writer = context.state.writer(int.from_bytes(chunk_id[:8], "big"))
        may_be_named = writer is not None and int.from_bytes(chunk_id[8:], "big") >= writer.low_water
        known = context.get(Table.CONDEMNED, SITE_TENANT, chunk_id) is not None
        if not (may_be_named or known or context.state.names_chunk(chunk_id)):
            _condemn(context, chunk_id)
            condemned.append(chunk_id)
    return condemned


def reclaimed_chunks(context: Context, command: commands.ReclaimedChunks) -> None:
    """Their fragments are gone."""
    for chunk_id in command.chunk_ids:
        context.delete(Table.CONDEMNED, SITE_TENANT, chunk_id)
