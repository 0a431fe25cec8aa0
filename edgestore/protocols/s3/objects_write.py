"""PutObject and DeleteObject: what the request promises about its bytes goes to the object service."""

from __future__ import annotations

from msgspec import structs

from edgestore.errors import EdgeStoreError
from edgestore.objects import Body, PutRequest
from edgestore.protocols.http import Response
from edgestore.protocols.s3 import checksums, conditions, headers
from edgestore.protocols.s3.bodies import (
    chunked_decoder,
    decoded_body,
    decoded_bytes,
    expectation,
    require_no_trailer,
)
from edgestore.protocols.s3.call import Call, Reply, empty_response
from edgestore.records import VersionRecord


def put_request(call: Call) -> PutRequest:
    """The request for the object service, from headers alone."""
    given, names = call.headers, call.names
    return PutRequest(
        bucket=call.bucket,
        key=call.key,
        headers=headers.system_headers(given, names),
        metadata=headers.user_metadata(given, names),
        condition=conditions.write_condition(given, names),
        expected=expectation(call),
    )


async def put_object(call: Call, body: Body) -> Response:
    """PutObject in the slow lane."""
    request = put_request(call)
    record = await call.objects.put(call.principal, request, decoded_body(call, body))
    return _put_response(record)


def put_hot(call: Call, body: bytes, reply: Reply) -> bool:
    """PutObject in the fast lane: answered by the callback of the commit.

    Headers, then key and bucket, then the body: in the order of the slow lane, so that both refuse for the same cause.
    """

    def done(record: VersionRecord | None, error: EdgeStoreError | None) -> None:
        reply(_put_response(record) if record is not None else error or EdgeStoreError())

    request = put_request(call)
    if call.verified.is_chunked:
        decoder = chunked_decoder(call)
        call.objects.check_put(call.principal, request, decoder.decoded_bytes)
        body, trailing = decoded_bytes(call, decoder, body)
        if trailing:
            request = structs.replace(request, expected=expectation(call, trailing))
    else:
        require_no_trailer(call)
    call.objects.put_small(call.principal, request, body, done)
    return True


async def delete_object(call: Call, body: Body) -> Response:
    """DeleteObject: of the current version (or a delete marker is written), or of one version for good."""
    condition = conditions.delete_condition(call.headers)
    deleted = await call.objects.delete(call.principal, call.bucket, call.key, call.version(), condition)
    response = empty_response(204)
    if deleted.delete_marker:
        response.headers.append(("x-amz-delete-marker", "true"))
    if deleted.version_id and (deleted.version_id != "null" or call.is_versioned()):
        response.headers.append(("x-amz-version-id", deleted.version_id))
    return response


def _put_response(record: VersionRecord) -> Response:
    shown = [("ETag", f'"{record.etag}"')]
    if record.checksums:
        shown.extend(checksums.checksum_headers(record.checksums))
    if not record.is_null:
        shown.append(("x-amz-version-id", record.version_id))
    return Response(200, shown, b"")
