"""Every S3 error: one table of codes, one from the exception tree to codes, and the XML that carries them.

Rule: nothing but this file knows which status and code an error has; an answer names what is known (bucket, key, sizes)
but never a secret, a signature that would have been right, or a path of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgestore import errors
from edgestore.protocols.s3.xml import XML_HEAD, escape_strictly

CODES: Mapping[str, tuple[int, str]] = {
    "AccessDenied": (403, "Access Denied"),
    "AuthorizationHeaderMalformed": (400, "The authorization header is malformed."),
    "AuthorizationQueryParametersError": (400, "The authorization query parameters are malformed."),
    "BadDigest": (400, "The Content-MD5 or checksum value that you specified did not match what the server received."),
    "BadRequest": (400, "Bad Request"),
    "BucketAlreadyExists": (409, "The requested bucket name is not available. Select a different name and try again."),
    "BucketAlreadyOwnedByYou": (409, "The bucket that you tried to create already exists, and you own it."),
    "BucketNotEmpty": (
        409,
        "The bucket that you tried to delete is not empty. You must delete all versions in the bucket.",
    ),
    "ConditionalRequestConflict": (409, "A conflicting operation occurred. Fetch the object's ETag and try again."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed object size."),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed size"),
    "IllegalLocationConstraintException": (400, "The location constraint is not that of this site."),
    "IllegalVersioningConfigurationException": (
        400,
        "The versioning configuration specified in the request is invalid.",
    ),
    "IncompleteBody": (400, "You did not provide the number of bytes specified by the Content-Length HTTP header."),
    "InsufficientStorage": (507, "The disk has no room left. Deleting still works; free space or add a disk."),
    "InternalError": (500, "An internal error occurred. Try again."),
    "InvalidAccessKeyId": (403, "The AWS access key ID that you provided does not exist in our records."),
    "InvalidArgument": (400, "Invalid Argument"),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidBucketState": (409, "The request is not valid for the current state of the bucket."),
    "InvalidDigest": (400, "The Content-MD5 or checksum value that you specified is not valid."),
    "InvalidPart": (
        400,
        "One or more of the specified parts could not be found. The part might not have been uploaded, or the "
        "specified entity tag might not have matched the part's entity tag.",
    ),
    "InvalidPartNumber": (416, "The requested partnumber is not satisfiable"),
    "InvalidPartOrder": (400, "The list of parts was not in ascending order. Parts must be ordered by part number."),
    "InvalidRange": (416, "The requested range is not satisfiable"),
    "InvalidRequest": (400, "Invalid Request"),
    "InvalidStorageClass": (400, "The storage class that you specified is not valid. This site has STANDARD."),
    "InvalidToken": (400, "The provided token is malformed or otherwise not valid."),
    "InvalidURI": (400, "The specified URI couldn't be parsed."),
    "KeyTooLongError": (400, "Your key is too long."),
    "MalformedTrailerError": (400, "The request contained trailing data that was not well-formed."),
    "MalformedXML": (
        400,
        "The XML that you provided was not well formed or did not validate against our published schema.",
    ),
    "MaxMessageLengthExceeded": (400, "Your request was too large."),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "MissingRequestBodyError": (400, "Request Body is empty"),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchUpload": (
        404,
        "The specified multipart upload does not exist. The upload ID may be invalid, or the upload may have been "
        "aborted or completed.",
    ),
    "NoSuchVersion": (404, "The version ID specified in the request does not match an existing version."),
    "NotImplemented": (501, "A header or parameter that you provided implies functionality that is not implemented."),
    "NotModified": (304, "Not Modified"),
    "OperationAborted": (409, "A conflicting operation is in progress against this resource. Try again."),
    "PreconditionFailed": (412, "At least one of the preconditions that you specified did not hold."),
    "RequestHeaderSectionTooLarge": (400, "Your request headers exceed the maximum allowed size."),
    "RequestTimeTooSkewed": (403, "The difference between the request time and the server's time is too large."),
    "RequestTimeout": (
        400,
        "Your socket connection to the server was not read from or written to within the timeout period.",
    ),
    "ServiceUnavailable": (503, "Service is unable to handle request. Try again."),
    "SignatureDoesNotMatch": (
        403,
        "The request signature that the server calculated does not match the signature that you provided. Check your "
        "secret access key and signing method.",
    ),
    "SlowDown": (503, "Please reduce your request rate."),
    "TooManyBuckets": (400, "You have attempted to create more buckets than allowed."),
    "XAmzContentSHA256Mismatch": (400, "The provided 'x-amz-content-sha256' header does not match what was computed."),
}

# The first row that the error is an instance of decides: subclasses stand before their parents.
TREE: tuple[tuple[type[errors.EdgeStoreError], str], ...] = (
    (errors.InvalidName, "InvalidArgument"),
    (errors.TooLarge, "EntityTooLarge"),
    (errors.TooSmall, "EntityTooSmall"),
    (errors.BadDigest, "BadDigest"),
    (errors.IncompleteBody, "IncompleteBody"),
    (errors.InvalidPart, "InvalidPart"),
    (errors.InvalidPartOrder, "InvalidPartOrder"),
    (errors.InvalidRange, "InvalidRange"),
    (errors.NotSupported, "NotImplemented"),
    (errors.BadRequest, "InvalidRequest"),
    (errors.InvalidCredentials, "SignatureDoesNotMatch"),
    (errors.Denied, "AccessDenied"),
    (errors.NoSuchBucket, "NoSuchBucket"),
    (errors.NoSuchVersion, "NoSuchVersion"),
    (errors.NoSuchUpload, "NoSuchUpload"),
    (errors.NoSuchKey, "NoSuchKey"),
    (errors.NotFound, "NoSuchKey"),
    (errors.PreconditionFailed, "PreconditionFailed"),
    (errors.BucketNotEmpty, "BucketNotEmpty"),
    (errors.DeleteMarkerMethod, "MethodNotAllowed"),
    (
        errors.StaleChunk,
        "ServiceUnavailable",
    ),  # the node's writer was closed while it was cut off: the same again works
    (errors.AlreadyApplied, "ServiceUnavailable"),
    (errors.Conflict, "OperationAborted"),
    (errors.StorageFull, "InsufficientStorage"),
    (errors.TooBusy, "SlowDown"),
    (errors.Unavailable, "ServiceUnavailable"),
    (errors.EdgeStoreError, "InternalError"),
)

# Fields of errors that may be shown, and what S3 calls them. Names that begin with a capital are S3's already.
SHOWN_FIELDS: Mapping[str, str] = {
    "access_key": "AWSAccessKeyId",
    "argument": "ArgumentName",
    "argument_value": "ArgumentValue",
    "bucket": "BucketName",
    "condition": "Condition",
    "header": "Header",
    "key": "Key",
    "limit_bytes": "MaxSizeAllowed",
    "method": "Method",
    "part_number": "PartNumber",
    "region": "Region",
    "size_bytes": "ProposedSize",
    "upload_id": "UploadId",
    "version": "VersionId",
    "version_id": "VersionId",
}


class Fault(errors.BadRequest):
    """An S3 error that only this protocol knows, by its code; capitalised fields become elements of the answer."""

    def __init__(self, code: str, message: str = "", **fields: object) -> None:
        super().__init__(message or CODES[code][1], **fields)
        self.code = code


def code_of(error: errors.EdgeStoreError) -> str:
    """The S3 code of an error."""
    if isinstance(error, Fault):
        return error.code
    if isinstance(error, errors.InvalidCredentials):
        reason = str(error.fields.get("reason", ""))
        return reason if reason in CODES else "SignatureDoesNotMatch"
    code = error.fields.get("code")
    if isinstance(code, str) and code in CODES:
        return code
    if isinstance(error, errors.BucketExists):
        return "BucketAlreadyOwnedByYou" if error.fields.get("owned") else "BucketAlreadyExists"
    return next(code for kind, code in TREE if isinstance(error, kind))


def status_of(error: errors.EdgeStoreError) -> int:
    """The HTTP status of an error."""
    return CODES[code_of(error)][0]


def message_of(error: errors.EdgeStoreError, code: str) -> str:
    """S3's own words where they say all, ours where they say more. What broke inside the node stays inside."""
    if code in (
        "InternalError",
        "NoSuchKey",
        "NoSuchBucket",
        "NoSuchUpload",
        "NoSuchVersion",
        "AccessDenied",
        "BucketNotEmpty",
    ):
        return CODES[code][1] if code != "AccessDenied" or not str(error) else str(error)
    return str(error) or CODES[code][1]


def fault_headers(error: errors.EdgeStoreError, code: str) -> list[tuple[str, str]]:
    """Headers that the error adds to its answer: delete markers, Retry-After, the size of an unsatisfiable range."""
    headers: list[tuple[str, str]] = []
    marker = error.fields.get("delete_marker_version")
    if marker is not None:
        headers.append(("x-amz-delete-marker", "true"))
        headers.append(("x-amz-version-id", str(marker)))
    if isinstance(error, errors.Unavailable) and not isinstance(error, errors.StorageFull):
        headers.append(("Retry-After", str(max(1, round(error.retry_after_s)))))
    if code == "InvalidRange" and "ActualObjectSize" in error.fields:
        headers.append(("Content-Range", f"bytes */{error.fields['ActualObjectSize']}"))
    if code == "MethodNotAllowed" and isinstance(error, errors.DeleteMarkerMethod):
        headers.append(("Allow", "DELETE"))
    return headers


def fault_xml(error: errors.EdgeStoreError, *, resource: str, request_id: str, host_id: str) -> bytes:
    """The error document."""
    code = code_of(error)
    parts = [
        XML_HEAD,
        "<Error><Code>",
        code,
        "</Code><Message>",
        escape_strictly(message_of(error, code)),
        "</Message>",
    ]
    parts.extend(
        f"<{name}>{escape_strictly(str(value))}</{name}>" for name, value in _shown(error).items() if value is not None
    )
    parts.append(
        f"<Resource>{escape_strictly(resource)}</Resource><RequestId>{request_id}</RequestId><HostId>{host_id}</HostId></Error>"
    )
    return "".join(parts).encode()


def fault_element(error: errors.EdgeStoreError, key: str, version: str | None) -> str:
    """One failed deletion inside a DeleteResult."""
    code = code_of(error)
    version_id = f"<VersionId>{escape_strictly(version)}</VersionId>" if version else ""
    message = escape_strictly(message_of(error, code))
    return (
        f"<Error><Key>{escape_strictly(key)}</Key>{version_id}<Code>{code}</Code><Message>{message}</Message></Error>"
    )


def _shown(error: errors.EdgeStoreError) -> dict[str, object]:
    if code_of(error) == "InternalError":
        return {}
    return {
        SHOWN_FIELDS.get(name, name): value
        for name, value in error.fields.items()
        if name in SHOWN_FIELDS or name[:1].isupper()
    }
