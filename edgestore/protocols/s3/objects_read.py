"""GetObject, HeadObject, GetObjectAttributes: conditions, then range or part, then headers and bytes.

Rule: one function (`select`) decides status, headers and bytes, for the fast lane and the slow one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import msgspec

from edgestore.errors import EdgeStoreError
from edgestore.objects import Body, ObjectReader, SmallObject
from edgestore.protocols.http import BodyStream, Response
from edgestore.protocols.s3 import checksums, conditions, headers, ranges
from edgestore.protocols.s3.call import Call, Reply, part_number, xml_response
from edgestore.protocols.s3.conditions import Verdict
from edgestore.protocols.s3.faults import Fault
from edgestore.protocols.s3.xml import element, http_time
from edgestore.records import Checksum, ChecksumType, PartSpan, VersionRecord

ATTRIBUTES = frozenset(("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"))


class Selection(msgspec.Struct, frozen=True, gc=False):
    """What a read answers: status, headers, and which bytes (none for 304)."""

    status: int
    headers: list[tuple[str, str]]
    offset: int
    length: int


def select(call: Call, record: VersionRecord) -> Selection:
    """Judges the conditions of a GET or HEAD and picks the bytes. Raises PreconditionFailed, InvalidRange."""
    given, query = call.headers, call.query
    version_id = headers.shown_version_id(record, versioned=record.is_null and call.is_versioned())
    unchanged = (
        call.names.is_conditional
        and conditions.judge_read(given, record.etag, record.modified_ms) is Verdict.NOT_MODIFIED
    )
    if unchanged:
        return Selection(304, headers.not_modified_headers(record, version_id), 0, 0)
    asked = given.get("x-amz-checksum-mode", "").upper() == "ENABLED"
    overridden = headers.overrides(query) if query else {}
    picked: ranges.ByteRange | None = None
    if "partNumber" in query:
        return _select_part(call, record, version_id, asked=asked)
    if "range" in given and _if_range_holds(given.get("if-range"), record):
        picked = ranges.parse_range(given["range"], record.size_bytes)
    shown = headers.version_headers(
        record, version_id=version_id, checksums=asked and picked is None, overridden=overridden
    )
    if picked is None:
        return Selection(200, shown, 0, record.size_bytes)
    shown.append(("Content-Range", picked.content_range(record.size_bytes)))
    return Selection(206, shown, picked.offset, picked.length)


def get_now(call: Call) -> Response | None:
    """GetObject where everything is at hand; None: the bytes have to be fetched."""
    small = call.objects.get_small(call.principal, call.bucket, call.key, call.version(), readable=call.is_readable)
    if not isinstance(small, SmallObject):
        return None
    return _small_response(select(call, small.record), small.body)


def get_hot(call: Call, body: bytes, reply: Reply) -> bool:
    """GetObject in the fast lane: what the page cache has not is answered by the callback of a reader thread."""
    small = call.objects.get_small(call.principal, call.bucket, call.key, call.version(), readable=call.is_readable)
    if small is None:
        return False
    selection = select(call, small.record)
    if isinstance(small, SmallObject):
        reply(_small_response(selection, small.body))
        return True
    if not selection.length:
        reply(Response(selection.status, selection.headers, b""))
        return True

    def fetched(view: memoryview | None, error: EdgeStoreError | None) -> None:
        reply(_small_response(selection, view) if view is not None else error or EdgeStoreError())

    call.objects.fetch(small, fetched)
    return True


def _small_response(selection: Selection, whole: bytes | memoryview) -> Response:
    if selection.length != len(whole):
        whole = whole[selection.offset : selection.offset + selection.length]
    return Response(selection.status, selection.headers, whole)


async def get_object(call: Call, body: Body) -> Response:
    """GetObject in the slow lane: small ones as in the fast one, others unit by unit."""
    await call.barrier()
    call.is_readable = True
    response = get_now(call)
    if response is not None:
        return response
    reader = await call.objects.open(call.principal, call.bucket, call.key, call.version(), local=call.is_local)
    try:
        selection = select(call, reader.record)
    except BaseException:
        reader.close()
        raise
    if not selection.length:
        reader.close()
        return Response(selection.status, selection.headers, b"")
    pieces = _bytes_of(reader, selection)
    first = await anext(pieces)  # what cannot be read is refused before anything is said: clients ask again
    stream = _beginning_with(first, pieces)
    return Response(selection.status, selection.headers, BodyStream(stream, selection.length, reader.close))


def head_now(call: Call) -> Response | None:
    """HeadObject where the row is at hand."""
    record = call.objects.head_now(call.principal, call.bucket, call.key, call.version(), readable=call.is_readable)
    return None if record is None else _head_response(call, record)


def head_hot(call: Call, body: bytes, reply: Reply) -> bool:
    """HeadObject in the fast lane."""
    response = head_now(call)
    if response is None:
        return False
    reply(response)
    return True


async def head_object(call: Call, body: Body) -> Response:
    """HeadObject in the slow lane."""
    record = await call.objects.head(call.principal, call.bucket, call.key, call.version(), local=call.is_local)
    return _head_response(call, record)


async def get_attributes(call: Call, body: Body) -> Response:
    """GetObjectAttributes: those that `x-amz-object-attributes` names."""
    names = {name.strip() for name in call.headers.get("x-amz-object-attributes", "").split(",")} - {""}
    if not names or not names <= ATTRIBUTES:
        raise Fault("InvalidArgument", "Invalid attribute name specified.", ArgumentName="x-amz-object-attributes")
    record = await call.objects.head(call.principal, call.bucket, call.key, call.version(), local=call.is_local)
    shown = [("Last-Modified", http_time(record.modified_ms))]
    version_id = headers.shown_version_id(record, versioned=call.is_versioned())
    if version_id is not None:
        shown.append(("x-amz-version-id", version_id))
    return xml_response(
        "GetObjectAttributesResponse",
        element("ETag", record.etag) if "ETag" in names else "",
        _checksum_attribute(record) if "Checksum" in names else "",
        _parts_attribute(call, record) if "ObjectParts" in names else "",
        element("StorageClass", record.storage_class) if "StorageClass" in names else "",
        element("ObjectSize", record.size_bytes) if "ObjectSize" in names else "",
        headers=shown,
    )


def _head_response(call: Call, record: VersionRecord) -> Response:
    selection = select(call, record)
    if selection.status != 304:
        selection.headers.append(("Content-Length", str(selection.length)))
    return Response(selection.status, selection.headers, b"")


def _select_part(call: Call, record: VersionRecord, version_id: str | None, *, asked: bool) -> Selection:
    if "range" in call.headers:
        raise Fault("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
    number = part_number(call)
    picked = ranges.part_range(record, number)
    shown = headers.version_headers(
        record, version_id=version_id, checksums=asked and not record.parts, overridden=headers.overrides(call.query)
    )
    if record.parts:
        shown.append(("x-amz-mp-parts-count", str(len(record.parts))))
        if asked:
            shown.extend(checksums.checksum_headers(_whole(record.parts[number - 1].checksums)))
    if not picked.length:
        return Selection(200, shown, 0, 0)
    shown.append(("Content-Range", picked.content_range(record.size_bytes)))
    return Selection(206, shown, picked.offset, picked.length)


def _if_range_holds(value: str | None, record: VersionRecord) -> bool:
    """RFC 9110 section 13.1.5: a range of another version than the client has is not wanted."""
    if value is None:
        return True
    moment_ms = conditions.parse_date_ms(value)
    if moment_ms is not None:
        return moment_ms // 1000 == record.modified_ms // 1000
    return conditions.etag_matches(value, record.etag)


async def _bytes_of(reader: ObjectReader, selection: Selection) -> AsyncGenerator[memoryview, None]:
    try:
        async for view in reader.read(selection.offset, selection.length):
            yield view
    finally:
        reader.close()


async def _beginning_with(first: memoryview, rest: AsyncGenerator[memoryview, None]) -> AsyncIterator[memoryview]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece


def _whole(found: tuple[Checksum, ...]) -> tuple[Checksum, ...]:
    return tuple(Checksum(checksum.algorithm, checksum.value, ChecksumType.FULL_OBJECT) for checksum in found)


def _checksum_attribute(record: VersionRecord) -> str:
    if not record.checksums:
        return ""
    # S3 shows the composite value here without its `-N`.
    return f"<Checksum>{checksums.checksum_elements(record.checksums)}</Checksum>"


def _parts_attribute(call: Call, record: VersionRecord) -> str:
    if not record.parts:
        return ""
    limit = _header_number(call, "x-amz-max-parts", 1000)
    marker = _header_number(call, "x-amz-part-number-marker", 0)
    later = [part for part in record.parts if part.number > marker]
    shown = later[: min(limit, 1000)]
    rows = [
        element("PartsCount", len(record.parts)),
        element("PartNumberMarker", marker),
        element("NextPartNumberMarker", shown[-1].number if shown else 0),
        element("MaxParts", limit),
        element("IsTruncated", len(shown) < len(later)),
    ]
    if any(part.checksums for part in record.parts):
        rows.extend(_part_attribute(part) for part in shown)
    return f"<ObjectParts>{''.join(rows)}</ObjectParts>"


def _part_attribute(part: PartSpan) -> str:
    digests = checksums.checksum_elements(_whole(part.checksums), typed=False)
    return f"<Part><PartNumber>{part.number}</PartNumber><Size>{part.size_bytes}</Size>{digests}</Part>"


def _header_number(call: Call, name: str, default: int) -> int:
    value = call.headers.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise Fault("InvalidArgument", f"Provided {name} not an integer or within integer range", ArgumentName=name)
    return int(value)
