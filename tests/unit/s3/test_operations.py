"""The operation table: every request finds its row or is refused by name."""

from __future__ import annotations

import pytest

from edgestore.errors import EdgeStoreError
from edgestore.protocols.s3.faults import code_of
from edgestore.protocols.s3.operations import OPERATIONS, find_operation


@pytest.mark.parametrize(
    ("method", "level", "query", "headers", "name"),
    [
        ("GET", "service", {}, {}, "ListBuckets"),
        ("GET", "bucket", {}, {}, "ListObjects"),
        ("GET", "bucket", {"list-type": "2", "prefix": "a"}, {}, "ListObjectsV2"),
        ("GET", "bucket", {"versions": ""}, {}, "ListObjectVersions"),
        ("GET", "object", {"versionId": "null", "x-id": "GetObject"}, {}, "GetObject"),
        ("GET", "object", {"response-content-type": "a/b", "partNumber": "1"}, {}, "GetObject"),
        ("PUT", "object", {"delete": ""}, {}, "PutObject"),
        ("PUT", "object", {}, {"x-amz-copy-source": "/b/k"}, "CopyObject"),
        ("PUT", "object", {}, {"x-amz-copy-source": ""}, "CopyObject"),
        ("PUT", "object", {"uploadId": "u", "partNumber": "1"}, {}, "UploadPart"),
        ("PUT", "object", {"uploadId": "u", "partNumber": "1"}, {"x-amz-copy-source": ""}, "UploadPartCopy"),
        ("POST", "object", {"uploads": ""}, {}, "CreateMultipartUpload"),
        ("POST", "object", {"uploadId": "u"}, {}, "CompleteMultipartUpload"),
        ("GET", "object", {"uploadId": "u"}, {}, "ListParts"),
        ("POST", "bucket", {"delete": ""}, {}, "DeleteObjects"),
    ],
)
def test_request_finds_its_row(
    method: str, level: str, query: dict[str, str], headers: dict[str, str], name: str
) -> None:
    assert find_operation(method, level, query, headers).name == name


@pytest.mark.parametrize(
    ("method", "level", "query", "headers", "code"),
    [
        ("POST", "service", {}, {}, "MethodNotAllowed"),
        ("POST", "object", {}, {}, "MethodNotAllowed"),
        ("DELETE", "service", {}, {}, "MethodNotAllowed"),
        ("PATCH", "object", {}, {}, "MethodNotAllowed"),
        ("DELETE", "bucket", {"versioning": ""}, {}, "MethodNotAllowed"),
        ("PUT", "object", {"acl": ""}, {"x-amz-copy-source": "/b/k"}, "MethodNotAllowed"),
        ("GET", "object", {"acl": "", "uploadId": "u"}, {}, "InvalidArgument"),
        ("GET", "bucket", {"versions": "", "uploads": ""}, {}, "InvalidArgument"),
        ("PUT", "object", {"tagging": ""}, {}, "NotImplemented"),
        ("DELETE", "bucket", {"policy": ""}, {}, "NotImplemented"),
        ("POST", "object", {"select": "", "select-type": "2"}, {}, "NotImplemented"),
        ("PUT", "object", {"partNumber": "1"}, {}, "InvalidArgument"),
        ("PUT", "object", {"partNumber": "1"}, {"x-amz-copy-source": "/b/k"}, "InvalidArgument"),
        ("PUT", "object", {"versionId": "null"}, {}, "InvalidArgument"),
        ("DELETE", "object", {"partNumber": "1"}, {}, "InvalidArgument"),
        ("DELETE", "object", {"uploadId": "u", "versionId": "null"}, {}, "InvalidArgument"),
        ("POST", "object", {"uploads": "", "partNumber": "1"}, {}, "InvalidArgument"),
        ("POST", "object", {"uploadId": "u", "partNumber": "1"}, {}, "InvalidArgument"),
        ("DELETE", "bucket", {"versionId": "null"}, {}, "InvalidArgument"),
    ],
)
def test_request_without_a_row_is_refused_by_name(
    method: str, level: str, query: dict[str, str], headers: dict[str, str], code: str
) -> None:
    with pytest.raises(EdgeStoreError) as refused:
        find_operation(method, level, query, headers)
    assert code_of(refused.value) == code


def test_names_of_operations_are_unique() -> None:
    names = [operation.name for operation in OPERATIONS.values()]
    assert len(names) == len(set(names))
