"""Pages of keys, versions and uploads in S3's order.

Rule: the time of a page depends on what it returns, not on what it skips: a common prefix is passed by one seek.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from edgestore.catalog import rows
from edgestore.catalog.keys import (
    BUCKET_PREFIX_BYTES,
    ORDER_BYTES,
    TERMINATOR,
    Table,
    escape,
    escape_prefix,
    number,
    order,
    row,
    successor,
    unescape,
)
from edgestore.catalog.state import State, upload_bytes
from edgestore.records import BucketRecord, ListedVersion, UploadRecord


@dataclass(slots=True)
class ObjectPage:
    """`entries` and `prefixes` in order; `next`: the last key or common prefix of the page, to go on behind."""

    entries: list[tuple[str, ListedVersion]] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next: str = ""
    truncated: bool = False


@dataclass(slots=True)
class VersionPage:
    """Entries are (key, version, whether it is the newest of its key)."""

    entries: list[tuple[str, ListedVersion, bool]] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next_key: str = ""
    next_version: str = ""
    truncated: bool = False


@dataclass(slots=True)
class UploadPage:
    """Unfinished uploads by key, then upload id."""

    entries: list[UploadRecord] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    next_key: str = ""
    next_upload_id: str = ""
    truncated: bool = False


def list_objects(
    state: State,
    bucket: BucketRecord,
    *,
    prefix: str = "",
    start_after: str = "",
    delimiter: str = "",
    limit: int = 1000,
) -> ObjectPage:
    """Current versions behind `start_after`. A common prefix given as `start_after` is skipped whole."""
    page = ObjectPage()
    if limit <= 0:
        return page
    base = row(state.group, Table.HEADS, bucket.owner, number(bucket.bucket_id))
    folded, separator = prefix.encode(), delimiter.encode()
    start = _start(base, folded, start_after.encode(), separator)
    stop = successor(base + folded) if folded else successor(base)
    if not separator:
        _fill(page, state.view.scan(start, stop), limit)
        return page
    count = 0
    while start < stop:
        jumped = False
        for raw, value in state.view.scan(start, stop):
            key = raw[BUCKET_PREFIX_BYTES:]
            if count == limit:
                page.truncated = True
                return page
            count += 1
            cut = key.find(separator, len(folded))
            if cut < 0:
                page.next = key.decode()
                page.entries.append((page.next, rows.listed(value)))
                continue
            common = key[: cut + len(separator)]
            page.next = common.decode()
            page.prefixes.append(page.next)
            start, jumped = successor(base + common), True
            break
        if not jumped:
            break
    return page


def _fill(page: ObjectPage, found: Iterator[tuple[bytes, bytes]], limit: int) -> None:
    decode, entries = rows.listed, page.entries
    for count, (raw, value) in enumerate(found):
        if count == limit:
            page.truncated = True
            break
        entries.append((raw[BUCKET_PREFIX_BYTES:].decode(), decode(value)))
    if entries:
        page.next = entries[-1][0]


def _start(base: bytes, prefix: bytes, after: bytes, separator: bytes) -> bytes:
    """Where a page begins."""
    if not after or after < prefix:
        return base + prefix
    if separator and after.startswith(prefix):
        cut = after.find(separator, len(prefix))
        if cut >= 0 and cut + len(separator) == len(after):
            return successor(base + after)
    return base + after + b"\x00"


def list_versions(
    state: State,
    bucket: BucketRecord,
    *,
    prefix: str = "",
    key_marker: str = "",
    version_marker: tuple[int, ...] | None = None,
    delimiter: str = "",
    limit: int = 1000,
) -> VersionPage:
    """All versions and delete markers behind (key_marker, version_marker), newest first for each key."""
    page = VersionPage()
    if limit <= 0:
        return page
    folded, separator = prefix.encode(), delimiter.encode()
    walk = _Walk(state, bucket, folded)
    at = _first_key(folded, key_marker.encode(), separator, behind=version_marker is None)
    skip_to = version_marker if key_marker and version_marker is not None else None
    count = 0
    while (key := walk.next_key(at)) is not None:
        cut = key.find(separator, len(folded)) if separator else -1
        if cut >= 0:
            if count == limit:
                page.truncated = True
                return page
            common = key[: cut + len(separator)]
            page.prefixes.append(common.decode())
            page.next_key, page.next_version = page.prefixes[-1], ""
            at, count = _behind(common), count + 1
            continue
        for version, latest in walk.versions(key, skip_to if key == key_marker.encode() else None):
            if count == limit:
                page.truncated = True
                return page
            page.entries.append((key.decode(), version, latest))
            page.next_key, page.next_version = page.entries[-1][0], version.version_id
            count += 1
        at = key + b"\x00"
    return page


def _behind(common: bytes) -> bytes:
    try:
        return successor(common)
    except ValueError:
        return common + b"\xff" * 1024


def _first_key(prefix: bytes, marker: bytes, separator: bytes, *, behind: bool) -> bytes:
    """The smallest key that a page may begin with."""
    if not marker or marker < prefix:
        return prefix
    if separator and marker.startswith(prefix) and marker.endswith(separator):
        cut = marker.find(separator, len(prefix))
        if cut + len(separator) == len(marker):
            return _behind(marker)
    return marker + b"\x00" if behind else marker


class _Walk:
    """The keys of a bucket that have a head or other versions, and their versions."""

    def __init__(self, state: State, bucket: BucketRecord, prefix: bytes) -> None:
        self._state, self._bucket = state, bucket
        self._heads = row(state.group, Table.HEADS, bucket.owner, number(bucket.bucket_id))
        self._others = row(state.group, Table.VERSIONS, bucket.owner, number(bucket.bucket_id))
        self._heads_end = successor(self._heads + prefix)
        self._others_end = successor(self._others + escape_prefix(prefix))
        self._found: dict[bytes, bytes] = {}

    def next_key(self, at: bytes) -> bytes | None:
        """The first key from `at` on that has versions."""
        head = next(self._state.view.scan(self._heads + at, self._heads_end), None)
        other = next(self._state.view.scan(self._others + escape_prefix(at), self._others_end), None)
        keys = []
        if head is not None:
            keys.append(head[0][len(self._heads) :])
        if other is not None:
            keys.append(unescape(other[0][len(self._others) : -ORDER_BYTES - len(TERMINATOR)]))
        return min(keys, default=None)

    def versions(self, key: bytes, after: tuple[int, ...] | None) -> Iterator[tuple[ListedVersion, bool]]:
        """Newest first; behind version `after` of the key where one is given."""
        head = self._state.view.get(self._heads + key)
        latest = after is None
        if head is not None and after is None:
            yield rows.listed(head), True
            latest = False
        prefix = self._others + escape(key)
        start = prefix
        if after is not None:
            start = self._behind(key, head, prefix, after)
        for _, value in self._state.view.scan(start, prefix + b"\xff" * (ORDER_BYTES + 1)):
            yield rows.listed(value), latest
            latest = False

    def _behind(self, key: bytes, head: bytes | None, prefix: bytes, after: tuple[int, ...]) -> bytes:
        place = after[1:]
        if not after:
            record = rows.listed(head) if head is not None else None
            if record is not None and record.is_null:
                return prefix
            pointer = self._state.view.get(
                row(self._state.group, Table.NULLS, self._bucket.owner, number(self._bucket.bucket_id) + key)
            )
            if pointer is None:
                return prefix
            place = rows.position(pointer)
        return prefix + order(*place) + b"\x00"


def list_uploads(
    state: State,
    bucket: BucketRecord,
    *,
    prefix: str = "",
    key_marker: str = "",
    upload_id_marker: str = "",
    delimiter: str = "",
    limit: int = 1000,
) -> UploadPage:
    """Unfinished uploads behind (key_marker, upload_id_marker)."""
    page = UploadPage()
    if limit <= 0:
        return page
    folded, separator = prefix.encode(), delimiter.encode()
    base = row(state.group, Table.UPLOADS, bucket.owner, number(bucket.bucket_id))
    stop = successor(base + escape_prefix(folded))
    marker = key_marker.encode()
    if marker and upload_id_marker:
        start = base + escape(marker) + upload_bytes(upload_id_marker) + b"\x00"
    else:
        start = base + escape_prefix(_first_key(folded, marker, separator, behind=True))
    count = 0
    while start < stop:
        for _, value in state.view.scan(start, stop):
            if count == limit:
                page.truncated = True
                return page
            count += 1
            upload = rows.upload(value)
            key = upload.key.encode()
            cut = key.find(separator, len(folded)) if separator else -1
            if cut >= 0:
                common = key[: cut + len(separator)]
                page.prefixes.append(common.decode())
                page.next_key, page.next_upload_id = page.prefixes[-1], ""
                start = base + escape_prefix(_behind(common))
                break
            page.entries.append(upload)
            page.next_key, page.next_upload_id = upload.key, upload.upload_id
        else:
            break
    return page
