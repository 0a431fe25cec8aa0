"""Multipart uploads: begin, part, complete, abort, and the two listings.

Rule: an upload id is an opaque key of the catalog; one that does not look like ours is NoSuchUpload before anything
reads it.
"""

from __future__ import annotations

import re
from xml.etree.ElementTree import Element

from edgestore.errors import NoSuchUpload
from edgestore.objects import Body, CompleteRequest, NamedPart, PartRequest, UploadRequest
from edgestore.protocols.http import Response
from edgestore.protocols.s3 import checksums, conditions, headers, xml
from edgestore.protocols.s3.bodies import decoded_body, expectation, read_document
from edgestore.protocols.s3.call import PARTS_MAX, Call, empty_response, part_number, xml_response
from edgestore.protocols.s3.checksums import ELEMENT_NAMES
from edgestore.protocols.s3.faults import Fault
from edgestore.protocols.s3.listing import PAGE_MAX, prefix_rows, question
from edgestore.protocols.s3.owners import Owners, owner_fields
from edgestore.protocols.s3.xml import element, escape, iso_time
from edgestore.records import Checksum, ChecksumType, PartRecord, UploadRecord

_UPLOAD_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_PART_FIELDS = frozenset(("PartNumber", "ETag", *ELEMENT_NAMES.values()))


async def create_upload(call: Call, body: Body) -> Response:
    """CreateMultipartUpload."""
    given = call.headers
    name = given.get("x-amz-checksum-algorithm", "")
    algorithm = checksums.named_algorithm(name) if name else ""
    upload = await call.objects.create_upload(
        call.principal,
        UploadRequest(
            bucket=call.bucket,
            key=call.key,
            headers=headers.system_headers(given, call.names),
            metadata=headers.user_metadata(given, call.names),
            checksum_algorithm=algorithm,
            checksum_type=checksums.upload_type(given, algorithm),
        ),
    )
    return xml_response(
        "InitiateMultipartUploadResult",
        element("Bucket", call.bucket),
        element("Key", call.key),
        element("UploadId", upload.upload_id),
        headers=_algorithm_headers(upload),
    )


async def put_part(call: Call, body: Body) -> Response:
    """UploadPart."""
    part = await call.objects.put_part(
        call.principal,
        PartRequest(
            bucket=call.bucket,
            key=call.key,
            upload_id=upload_id(call),
            number=part_number(call),
            expected=expectation(call),
        ),
        decoded_body(call, body),
    )
    shown = [("ETag", f'"{part.etag}"')]
    shown.extend(
        (checksums.PREFIX + found.algorithm.lower(), checksums.encode_digest(found)) for found in part.checksums
    )
    return empty_response(200, *shown)


async def complete_upload(call: Call, body: Body) -> Response:
    """CompleteMultipartUpload."""
    name, size = upload_id(call), call.headers.get("x-amz-mp-object-size")
    named = checksums.completed(call.headers, call.names)
    document = await read_document(call, body, names_object=True)
    if size is not None and not (size.isascii() and size.isdigit() and len(size) < 20):
        raise Fault("InvalidRequest", "Value for x-amz-mp-object-size header is invalid.")
    record = await call.objects.complete_upload(
        call.principal,
        CompleteRequest(
            bucket=call.bucket,
            key=call.key,
            upload_id=name,
            parts=parse_parts(document),
            condition=conditions.write_condition(call.headers, call.names),
            checksum=named.checksum,
            checksum_type=named.type,
            checksum_parts=named.parts,
            size_bytes=None if size is None else int(size),
        ),
    )
    return xml_response(
        "CompleteMultipartUploadResult",
        element("Location", _location(call)),
        element("Bucket", call.bucket),
        element("Key", call.key),
        element("ETag", f'"{record.etag}"'),
        checksums.checksum_elements(record.checksums, len(record.parts)),
        headers=[] if record.is_null else [("x-amz-version-id", record.version_id)],
    )


async def abort_upload(call: Call, body: Body) -> Response:
    """AbortMultipartUpload."""
    await call.objects.abort_upload(call.principal, call.bucket, call.key, upload_id(call))
    return empty_response(204)


async def list_parts(call: Call, body: Body) -> Response:
    """ListParts."""
    limit = min(call.number("max-parts", PAGE_MAX), PAGE_MAX)
    marker = call.number("part-number-marker", 0)
    await call.barrier()
    upload = call.objects.upload(call.principal, call.bucket, call.key, upload_id(call))
    found = call.objects.list_parts(
        call.principal, call.bucket, call.key, upload.upload_id, start=marker, limit=limit + 1
    )
    shown = found[:limit]
    owner = owner_fields(call, upload.owner)
    return xml_response(
        "ListPartsResult",
        element("Bucket", call.bucket),
        element("Key", call.key),
        element("UploadId", upload.upload_id),
        f"<Initiator>{owner}</Initiator><Owner>{owner}</Owner>",
        element("StorageClass", upload.storage_class),
        element("PartNumberMarker", marker),
        element("NextPartNumberMarker", shown[-1].number if shown else marker),
        element("MaxParts", limit),
        element("IsTruncated", len(found) > limit > 0),
        _algorithm_elements(upload),
        "".join(_part_row(part) for part in shown),
    )


async def list_uploads(call: Call, body: Body) -> Response:
    """ListMultipartUploads."""
    asked = question(call, "max-uploads")
    key_marker, id_marker = call.query.get("key-marker", ""), call.query.get("upload-id-marker", "")
    await call.barrier()
    page = call.objects.list_uploads(
        call.principal,
        call.bucket,
        prefix=asked.prefix,
        key_marker=key_marker,
        upload_id_marker=id_marker if key_marker else "",
        delimiter=asked.delimiter,
        limit=asked.limit,
    )
    owners = Owners(call)
    after = ""
    if page.truncated:
        after = (
            f"<NextKeyMarker>{asked.encode(page.next_key)}</NextKeyMarker>"
            f"{element('NextUploadIdMarker', page.next_upload_id)}"
        )
    rows = (
        f"<Upload><Key>{asked.encode(upload.key)}</Key><UploadId>{upload.upload_id}</UploadId>"
        f"<Initiator>{owner_fields(call, upload.owner)}</Initiator>{owners.xml(upload.owner)}"
        f"<StorageClass>{upload.storage_class}</StorageClass><Initiated>{iso_time(upload.started_ms)}</Initiated>"
        f"{_algorithm_elements(upload)}</Upload>"
        for upload in page.entries
    )
    return xml_response(
        "ListMultipartUploadsResult",
        f"<Bucket>{escape(call.bucket)}</Bucket>{asked.elements()}<KeyMarker>{asked.encode(key_marker)}</KeyMarker>"
        f"<UploadIdMarker>{escape(id_marker)}</UploadIdMarker>{after}<MaxUploads>{asked.limit}</MaxUploads>"
        f"<IsTruncated>{'true' if page.truncated else 'false'}</IsTruncated>",
        *rows,
        prefix_rows(page.prefixes, asked.encode),
    )


def upload_id(call: Call) -> str:
    """The upload id of the request. Raises NoSuchUpload for anything that cannot be one."""
    name = call.query["uploadId"]
    if not _UPLOAD_ID.fullmatch(name):
        raise NoSuchUpload(upload_id=name)
    return name


def parse_parts(document: bytes) -> tuple[NamedPart, ...]:
    """The parts that a completion names, in its order. Raises MalformedXML; the order is judged by the service."""
    if not document:
        raise xml.MalformedXML
    root = xml.parse(document, "CompleteMultipartUpload")
    xml.require_names(root, "Part")
    parts = tuple(_named_part(part) for part in root)
    if not parts or len(parts) > PARTS_MAX:
        raise xml.MalformedXML
    return parts


def _named_part(part: Element) -> NamedPart:
    fields: dict[str, str] = {}
    for child in part:
        name = xml.local_name(child)
        if name not in _PART_FIELDS or name in fields:
            raise xml.MalformedXML(f"{name} is not known here, or is given twice.")
        fields[name] = (child.text or "").strip()
    number, etag = fields.get("PartNumber"), fields.get("ETag")
    if not number or etag is None or not (number.isascii() and number.isdigit() and len(number) < 7):
        raise xml.MalformedXML
    digests = tuple(
        Checksum(algorithm, checksums.decode_digest(algorithm, fields[name], name))
        for algorithm, name in ELEMENT_NAMES.items()
        if fields.get(name)
    )
    return NamedPart(number=int(number), etag=etag.strip('"'), checksums=digests)


def _part_row(part: PartRecord) -> str:
    digests = checksums.checksum_elements(part.checksums, typed=False)
    return (
        f"<Part><PartNumber>{part.number}</PartNumber><LastModified>{iso_time(part.modified_ms)}</LastModified>"
        f"<ETag>&quot;{part.etag}&quot;</ETag>{digests}<Size>{part.size_bytes}</Size></Part>"
    )


def _algorithm_headers(upload: UploadRecord) -> list[tuple[str, str]]:
    if not upload.checksum_algorithm:
        return []
    kind = ChecksumType(upload.checksum_type).name
    return [("x-amz-checksum-algorithm", upload.checksum_algorithm), ("x-amz-checksum-type", kind)]


def _algorithm_elements(upload: UploadRecord) -> str:
    if not upload.checksum_algorithm:
        return ""
    kind = ChecksumType(upload.checksum_type).name
    return element("ChecksumAlgorithm", upload.checksum_algorithm) + element("ChecksumType", kind)


def _location(call: Call) -> str:
    # A reference without scheme and host: behind a proxy the node does not know what clients call it.
    return f"/{xml.url_encode(call.bucket)}/{xml.url_encode(call.key)}"
