"""The one exception tree. It is split by what the caller can do; each protocol maps it to its own codes in one table.

Rule: an error carries what it knows as fields (`EdgeStoreError.fields`), never only as text, and its message says what
happened, why, and what to do.
"""

from __future__ import annotations


class EdgeStoreError(Exception):
    """Root of the tree. `fields` holds what is known (key, node, offset), for logs and protocol answers."""

    def __init__(self, message: str = "", **fields: object) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().split("\n")[0])
        self.fields = fields


# --- the caller must change the request ---------------------------------------------------------


class BadRequest(EdgeStoreError):
    """The request is not valid: change it before sending it again."""


class InvalidName(BadRequest):
    """A bucket, key or other name breaks the naming rules."""


class TooLarge(BadRequest):
    """A body, header, key or document is over its limit (`limit_bytes`)."""


class TooSmall(BadRequest):
    """A part other than the last is under the minimum part size."""


class BadDigest(BadRequest):
    """The bytes that arrived do not have the checksum that the request names."""


class IncompleteBody(BadRequest):
    """The body ended before its announced length. Nothing was stored."""


class InvalidPart(BadRequest):
    """A part named in the completion is missing or has another ETag."""


class InvalidPartOrder(BadRequest):
    """The parts in the completion are not in ascending order."""


class InvalidRange(BadRequest):
    """The requested range lies outside the object (`size_bytes`)."""


class NotSupported(BadRequest):
    """The feature is known but not there yet; ignoring it would change the meaning of the request."""


# --- the caller may not -------------------------------------------------------------------------


class Denied(EdgeStoreError):
    """The key is valid but may not do this."""


class InvalidToken(Denied):
    """The join token is unknown, used, too old, or its secret is wrong: make another on a member."""


class MemberRemoved(Denied):
    """The member was removed or put in quarantine, and never comes back under this identity."""


class InvalidCredentials(Denied):
    """The access key is unknown or the signature does not match (`reason`)."""


# --- it is not there ----------------------------------------------------------------------------


class NotFound(EdgeStoreError):
    """What the request names does not exist."""


class NoSuchBucket(NotFound):
    """The bucket does not exist."""


class NoSuchKey(NotFound):
    """The key has no current version (`delete_marker_version` is set when a delete marker hides it)."""


class NoSuchVersion(NotFound):
    """The key has no such version."""


class NoSuchUpload(NotFound):
    """The multipart upload does not exist: it was completed, aborted, or never begun."""


class NoSuchAccessKey(NotFound):
    """The access key does not exist."""


class NoSuchNode(NotFound):
    """The site has no such node."""


class NoSuchLayout(NotFound):
    """The layout epoch does not exist or has retired (`epoch`)."""


class NoSuchExtent(NotFound):
    """The extent went: its last name was dropped."""


# --- the state is another than the caller thought --------------------------------------------------


class Conflict(EdgeStoreError):
    """The state changed or is another than the request expects: read again, then decide."""


class PreconditionFailed(Conflict):
    """A condition of the request (If-Match, If-None-Match, ...) does not hold (`condition`)."""


class BucketExists(Conflict):
    """The bucket name is taken (`owned` is true when the caller owns it)."""


class BucketNotEmpty(Conflict):
    """The bucket still holds versions or delete markers."""


class AccessKeyExists(Conflict):
    """The access key is taken."""


class DeleteMarkerMethod(Conflict):
    """The version named is a delete marker and cannot be read."""


class StaleChunk(Conflict):
    """A chunk may no longer be named: its writer is closed or its number is below the low-water mark (rule 6)."""


class StaleExtent(Conflict):
    """The extent has other chunks or places than the command expects: look again, then decide."""


class AlreadyApplied(Conflict):
    """The operation id is older than the memory of applied operations; its outcome can no longer be told (rule 9)."""


class InUse(Conflict):
    """Another process has the data folder open."""


# --- try again later ------------------------------------------------------------------------------


class Unavailable(EdgeStoreError):
    """It cannot be done now. `retry_after_s` says when to try again."""

    def __init__(self, message: str = "", *, retry_after_s: float = 1.0, **fields: object) -> None:
        super().__init__(message, **fields)
        self.retry_after_s = retry_after_s


class StorageFull(Unavailable):
    """The disk has no room left beside its reserve. Deleting works; free space or add a disk."""


class TooBusy(Unavailable):
    """A bounded queue or buffer pool is full: slow down."""


class RetryOperation(Unavailable):
    """The members of the group changed before the operation was applied: send it again under the same id (rule 4)."""


class StaleFragments(Unavailable):
    """Too few fragments count by now, or the layout epoch is closed: rebuild, place by the newest layout
    (`layout_epoch`), propose again (rule 1)."""


class Closing(Unavailable):
    """The node is shutting down."""


class NotLeader(Unavailable):
    """Another member leads the group (`leader`, empty where none is known): nothing was appended here."""


# --- page someone ---------------------------------------------------------------------------------


class Corrupt(EdgeStoreError):
    """Stored bytes do not check out (`path`, `offset`). They are never served; see `edgestore doctor`."""


class StoreDamaged(Corrupt):
    """An ordered store (catalog or segment index) does not open or a block of it does not check out. The segment index
    is derived from the segments and is rebuilt at the next start."""


class UnknownFormat(Corrupt):
    """The bytes check out, and another version of edgestore wrote them: start that one."""


class DiskFailed(EdgeStoreError):
    """The disk refused a write or a sync. The node stops: what it acknowledged before is safe, nothing after is."""


class ConfigError(BadRequest):
    """A setting is unknown or out of range."""


# --- what is known of a command that failed -------------------------------------------------------


def is_refusal(error: EdgeStoreError) -> bool:
    """Whether a command was judged and refused, so that what it would have named is garbage. Else it may have happened,
    or may yet: what is named decides."""
    if isinstance(error, StaleFragments):
        return True
    return not isinstance(error, Unavailable | AlreadyApplied | DiskFailed)
