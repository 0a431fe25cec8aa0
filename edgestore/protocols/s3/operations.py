"""THE operation table: (method, what the request is about, sub-resource) -> what is done.

Rule: a request that is in no row is refused by name: 501 for what S3 has and this site has not, 405 for the rest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from edgestore.objects import Body
from edgestore.protocols.http import Response
from edgestore.protocols.s3 import buckets, copy, delete, listing, multipart, objects_read, objects_write, owners
from edgestore.protocols.s3.call import Call, Reply
from edgestore.protocols.s3.faults import Fault
from edgestore.protocols.s3.unsupported import refuse_unsupported_query

Handler = Callable[[Call, Body], Awaitable[Response]]
HotHandler = Callable[[Call, bytes, Reply], bool]


@dataclass(frozen=True, slots=True)
class Operation:
    """One row. `hot`: the same operation for the fast lane, if it has one; `takes`: which of `NARROWING` it takes."""

    name: str
    run: Handler
    hot: HotHandler | None = None
    takes: tuple[str, ...] = ()


NARROWING = ("versionId", "partNumber")
"""Parameters that say which version or part is meant: where one means nothing, the request asks for something else than
it would get, and is refused."""


OPERATIONS: Mapping[tuple[str, str, str | None], Operation] = {
    ("GET", "service", None): Operation("ListBuckets", buckets.list_buckets),
    ("PUT", "bucket", None): Operation("CreateBucket", buckets.create_bucket),
    ("HEAD", "bucket", None): Operation("HeadBucket", buckets.head_bucket),
    ("DELETE", "bucket", None): Operation("DeleteBucket", buckets.delete_bucket),
    ("GET", "bucket", "location"): Operation("GetBucketLocation", buckets.get_location),
    ("GET", "bucket", "versioning"): Operation("GetBucketVersioning", buckets.get_versioning),
    ("PUT", "bucket", "versioning"): Operation("PutBucketVersioning", buckets.put_versioning),
    ("GET", "bucket", "acl"): Operation("GetBucketAcl", owners.get_bucket_acl),
    ("PUT", "bucket", "acl"): Operation("PutBucketAcl", owners.put_bucket_acl),
    ("GET", "bucket", None): Operation("ListObjects", listing.list_objects),
    ("GET", "bucket", "list-type"): Operation("ListObjectsV2", listing.list_objects_v2),
    ("GET", "bucket", "versions"): Operation("ListObjectVersions", listing.list_versions),
    ("GET", "bucket", "uploads"): Operation("ListMultipartUploads", multipart.list_uploads),
    ("POST", "bucket", "delete"): Operation("DeleteObjects", delete.delete_objects),
    ("GET", "object", None): Operation("GetObject", objects_read.get_object, objects_read.get_hot, NARROWING),
    ("HEAD", "object", None): Operation("HeadObject", objects_read.head_object, objects_read.head_hot, NARROWING),
    ("PUT", "object", None): Operation("PutObject", objects_write.put_object, objects_write.put_hot),
    ("PUT", "object", "copy"): Operation("CopyObject", copy.copy_object),
    ("DELETE", "object", None): Operation("DeleteObject", objects_write.delete_object, takes=("versionId",)),
    ("GET", "object", "acl"): Operation("GetObjectAcl", owners.get_object_acl, takes=("versionId",)),
    ("PUT", "object", "acl"): Operation("PutObjectAcl", owners.put_object_acl, takes=("versionId",)),
    ("GET", "object", "attributes"): Operation(
        "GetObjectAttributes", objects_read.get_attributes, takes=("versionId",)
    ),
    ("POST", "object", "uploads"): Operation("CreateMultipartUpload", multipart.create_upload),
    ("PUT", "object", "uploadId"): Operation("UploadPart", multipart.put_part, takes=("partNumber",)),
    ("PUT", "object", "uploadId copy"): Operation("UploadPartCopy", copy.copy_part, takes=("partNumber",)),
    ("POST", "object", "uploadId"): Operation("CompleteMultipartUpload", multipart.complete_upload),
    ("DELETE", "object", "uploadId"): Operation("AbortMultipartUpload", multipart.abort_upload),
    ("GET", "object", "uploadId"): Operation("ListParts", multipart.list_parts),
}

SUB_RESOURCES = frozenset(row[2] for row in OPERATIONS if row[2] is not None and " " not in row[2]) - {"copy"}
_COPY_SOURCE = "x-amz-copy-source"


def find_operation(method: str, level: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Operation:
    """The row of a request. Raises NotSupported, or Fault(MethodNotAllowed, InvalidArgument)."""
    sub_resource: str | None = None
    if query:
        refuse_unsupported_query(level, query)
        named = [name for name in query if name in SUB_RESOURCES and (name != "delete" or level == "bucket")]
        if len(named) > 1:
            raise Fault(
                "InvalidArgument",
                f"Conflicting query string parameters: {', '.join(sorted(named))}",
                ArgumentName="ResourceType",
                ArgumentValue=named[0],
            )
        sub_resource = named[0] if named else None
    if method == "PUT" and _COPY_SOURCE in headers and level == "object":
        # An empty copy source is a broken copy, never a put of nothing.
        sub_resource = "copy" if sub_resource is None else f"{sub_resource} copy"
    operation = OPERATIONS.get((method, level, sub_resource))
    if operation is None:
        raise Fault("MethodNotAllowed", Method=method, ResourceType=(sub_resource or level).upper())
    if query:
        for name in NARROWING:
            if name in query and name not in operation.takes:
                raise Fault(
                    "InvalidArgument",
                    f"This operation does not accept {name}.",
                    ArgumentName=name,
                    ArgumentValue=query[name],
                )
    return operation
