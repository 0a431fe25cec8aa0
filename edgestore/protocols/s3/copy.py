"""CopyObject and UploadPartCopy. Rule: the source is read with the caller's own rights before anything is judged or
copied.
"""

from __future__ import annotations

from typing import NamedTuple

from edgestore.errors import DeleteMarkerMethod
from edgestore.objects import Body, CopyPartRequest, CopyRequest
from edgestore.protocols.http import Response
from edgestore.protocols.s3 import checksums, conditions, headers, ranges
from edgestore.protocols.s3.addressing import resolve_copy_source
from edgestore.protocols.s3.call import Call, part_number, xml_response
from edgestore.protocols.s3.faults import Fault
from edgestore.protocols.s3.owners import require_expected_owner
from edgestore.protocols.s3.xml import element, iso_time
from edgestore.records import Versioning, VersionRecord

SOURCE = "x-amz-copy-source"


class Source(NamedTuple):
    """The version that is copied. `version_id`: what to show of it."""

    bucket: str
    key: str
    record: VersionRecord
    version_id: str | None


async def copy_object(call: Call, body: Body) -> Response:
    """CopyObject: by reference; metadata of the source unless the directive says REPLACE."""
    replaces = _replaces_metadata(call)
    algorithm = call.headers.get("x-amz-checksum-algorithm", "")
    source = await _source(call)
    if (source.bucket, source.key) == (call.bucket, call.key) and not replaces:
        _require_change(call)
    record = await call.objects.copy(
        call.principal,
        CopyRequest(
            source_bucket=source.bucket,
            source_key=source.key,
            source=source.record,
            bucket=call.bucket,
            key=call.key,
            headers=headers.system_headers(call.headers, call.names) if replaces else None,
            metadata=headers.user_metadata(call.headers, call.names) if replaces else None,
            algorithm=checksums.named_algorithm(algorithm) if algorithm else "",
            condition=conditions.write_condition(call.headers, call.names),
        ),
    )
    shown = _source_headers(source)
    if not record.is_null:
        shown.append(("x-amz-version-id", record.version_id))
    return xml_response(
        "CopyObjectResult",
        element("LastModified", iso_time(record.modified_ms)),
        element("ETag", f'"{record.etag}"'),
        checksums.checksum_elements(record.checksums, len(record.parts)),
        headers=shown,
    )


async def copy_part(call: Call, body: Body) -> Response:
    """UploadPartCopy: a range of a version becomes a part."""
    number = part_number(call)
    source = await _source(call)
    header = call.headers.get("x-amz-copy-source-range")
    size = source.record.size_bytes
    picked = ranges.ByteRange(0, size) if header is None else ranges.parse_copy_range(header, size)
    part = await call.objects.copy_part(
        call.principal,
        CopyPartRequest(
            source_bucket=source.bucket,
            source_key=source.key,
            source=source.record,
            offset=picked.offset,
            length=picked.length,
            bucket=call.bucket,
            key=call.key,
            upload_id=call.query["uploadId"],
            number=number,
        ),
    )
    return xml_response(
        "CopyPartResult",
        element("LastModified", iso_time(part.modified_ms)),
        element("ETag", f'"{part.etag}"'),
        checksums.checksum_elements(part.checksums, typed=False),
        headers=_source_headers(source),
    )


async def _source(call: Call) -> Source:
    address, version = resolve_copy_source(call.headers[SOURCE])
    await call.barrier()
    require_expected_owner(call, address.bucket, "x-amz-source-expected-bucket-owner")
    versioning = call.objects.bucket(call.principal, address.bucket).versioning
    try:
        record = await call.objects.head(call.principal, address.bucket, address.key, version)
    except DeleteMarkerMethod as error:
        raise Fault(
            "InvalidRequest",
            "The source of a copy request may not specifically refer to a delete marker by version id.",
        ) from error
    conditions.judge_copy_source(call.headers, record.etag, record.modified_ms)
    version_id = headers.shown_version_id(record, versioned=versioning is not Versioning.OFF)
    return Source(address.bucket, address.key, record, version_id)


def _source_headers(source: Source) -> list[tuple[str, str]]:
    return [] if source.version_id is None else [("x-amz-copy-source-version-id", source.version_id)]


def _replaces_metadata(call: Call) -> bool:
    directive = call.headers.get("x-amz-metadata-directive", "COPY")
    if directive not in ("COPY", "REPLACE"):
        raise Fault(
            "InvalidArgument",
            "Unknown metadata directive.",
            ArgumentName="x-amz-metadata-directive",
            ArgumentValue=directive,
        )
    return directive == "REPLACE"


def _require_change(call: Call) -> None:
    # Restoring an old version onto its own key is a change; so is asking for another checksum.
    if (
        "?" in call.headers[SOURCE]
        or "x-amz-checksum-algorithm" in call.headers
        or "x-amz-storage-class" in call.headers
    ):
        return
    raise Fault(
        "InvalidRequest",
        "This copy request is illegal because it is trying to copy an object to itself without changing the object's "
        "metadata, storage class, website redirect location or encryption attributes.",
    )
