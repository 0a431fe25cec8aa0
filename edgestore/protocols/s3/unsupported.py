"""What S3 has and this site does not yet: sub-resources and headers that are answered 501, by name.

Rule: a header or parameter that would change what a request means is refused, never ignored. Those accepted without
effect
(listed in the compatibility table) mean here what they would mean on a bucket without the feature.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgestore.errors import NotSupported
from edgestore.protocols.s3.faults import Fault
from edgestore.protocols.s3.headers import require_storage_class
from edgestore.protocols.s3.names import HeaderNames

BUCKET_SUBRESOURCES = frozenset(
    [
        "abac",
        "accelerate",
        "analytics",
        "cors",
        "encryption",
        "intelligent-tiering",
        "inventory",
        "lifecycle",
        "logging",
        "metadataConfiguration",
        "metadataInventoryTable",
        "metadataJournalTable",
        "metadataTable",
        "metrics",
        "notification",
        "object-lock",
        "ownershipControls",
        "policy",
        "policyStatus",
        "publicAccessBlock",
        "replication",
        "replication-metrics",
        "requestPayment",
        "session",
        "tagging",
        "website",
    ]
)
OBJECT_SUBRESOURCES = frozenset(
    [
        "annotation",
        "annotations",
        "append",
        "encryption",
        "legal-hold",
        "renameObject",
        "restore",
        "retention",
        "select",
        "select-type",
        "tagging",
        "torrent",
    ]
)

# Begins of header names, all of which ask for something that is not there.
_REFUSED_PREFIXES = (
    "x-amz-server-side-encryption",
    "x-amz-copy-source-server-side-encryption",
    "x-amz-object-lock-",
    "x-amz-grant-",
    "x-amz-fwd-",
    "x-amz-website-redirect-location",
    "x-amz-write-offset-bytes",
    "x-amz-rename-source",
    "x-amz-tagging-count",
    "x-amz-client-token",
    "x-amz-create-session-mode",
    "x-amz-skip-destination-validation",
    "x-amz-restore",
    "x-amz-annotation",
)

# Header -> the values that ask for nothing. Any other value is refused.
_HARMLESS_VALUES: Mapping[str, frozenset[str]] = {
    "x-amz-acl": frozenset(("private", "bucket-owner-full-control")),
    "x-amz-tagging": frozenset(("",)),
    "x-amz-tagging-directive": frozenset(("COPY",)),
    "x-amz-annotation-directive": frozenset(("COPY",)),
    "x-amz-bucket-object-lock-enabled": frozenset(("false",)),
    "x-amz-object-ownership": frozenset(("BucketOwnerEnforced",)),
    "x-amz-bucket-namespace": frozenset(("global",)),
    "x-amz-transition-default-minimum-object-size": frozenset(),
}


def refuse_unsupported_headers(headers: Mapping[str, str], names: HeaderNames) -> None:
    """Raises NotSupported (501) for a header that asks for what is not there."""
    for name in names.others:
        harmless = _HARMLESS_VALUES.get(name)
        if harmless is not None:
            if headers[name].strip() not in harmless:
                raise _refusal(name)
        elif name.startswith(_REFUSED_PREFIXES):
            raise _refusal(name)
        elif name.startswith("x-amz-copy-source-") and "x-amz-copy-source" not in headers:
            raise Fault("InvalidArgument", f"{name} needs x-amz-copy-source.", ArgumentName=name)
        elif name == "x-amz-storage-class":
            require_storage_class(headers)
        elif name == "x-amz-security-token":
            raise Fault("InvalidToken", "This site issues no session tokens.")


def refuse_unsupported_query(level: str, query: Mapping[str, str]) -> None:
    """Raises NotSupported (501) for a sub-resource that is not there."""
    missing = OBJECT_SUBRESOURCES if level == "object" else BUCKET_SUBRESOURCES
    for name in query:
        if name in missing:
            raise NotSupported(f"The {name} sub-resource is not implemented.", ResourceType=name.upper(), Header=name)
        if name[:10].lower() == "x-amz-serv":
            raise _refusal(name)


def _refusal(name: str) -> NotSupported:
    return NotSupported(
        "A header you provided implies functionality that is not implemented", Header=name, additionalMessage=name
    )
