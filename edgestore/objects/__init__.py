"""The object service: buckets, versions and multipart uploads over catalog and chunks; who may do what."""

from edgestore.chunks import Body, Unit
from edgestore.objects.buckets import BucketPolicy
from edgestore.objects.names import check_bucket_name, check_key
from edgestore.objects.reader import ColdObject, ObjectReader, SmallObject
from edgestore.objects.requests import (
    CompleteRequest,
    CopyPartRequest,
    CopyRequest,
    Expected,
    NamedPart,
    PartRequest,
    PutRequest,
    UploadRequest,
)
from edgestore.objects.service import ObjectService

__all__ = [
    "Body",
    "BucketPolicy",
    "ColdObject",
    "CompleteRequest",
    "CopyPartRequest",
    "CopyRequest",
    "Expected",
    "NamedPart",
    "ObjectReader",
    "ObjectService",
    "PartRequest",
    "PutRequest",
    "SmallObject",
    "Unit",
    "UploadRequest",
    "check_bucket_name",
    "check_key",
]
