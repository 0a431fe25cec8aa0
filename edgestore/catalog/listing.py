"""Pages of keys, versions and uploads in S3's order.

Rule: the time of a page depends on what it returns, not on what it skips: a common prefix is passed by a few steps or
one seek.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice

from edgestore.catalog import rows
from edgestore.catalog.keys import (
    BUCKET_PREFIX_BYTES,
    ORDER_BYTES,
    TERMINATOR,
    UPLOAD_ID_BYTES,
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

STEPS_BEFORE_SEEK = 16
"""A seek costs about as much as 16 rows read in order."""


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
    """Current versions behind `start_after`. A common prefix given as `start_after` is skipped whole.

    A key inside a common prefix given as `start_after` does not hide the prefix where keys of it lie behind.
    """
    page = ObjectPage()
    if limit <= 0:
        return page
    base = row(state.group, Table.HEADS, bucket.owner, number(bucket.bucket_id))
    folded, separator = prefix.encode(), delimiter.encode()
    start = base + _first_key(folded, start_after.encode(), separator, behind=True)
    stop = successor(base + folded)
    if start >= stop:
        return page
    if separator:
        _fold(page, state, (base, start, stop), (len(folded), separator), limit)
        return page
    found, decode = state.view.scan(start, stop), rows.listed
    page.entries = [(raw[BUCKET_PREFIX_BYTES:].decode(), decode(value)) for raw, value in islice(found, limit)]
    if page.entries:
        page.next = page.entries[-1][0]
        page.truncated = next(found, None) is not None
    return page


def _fold(
    page: ObjectPage, state: State, rows_of: tuple[bytes, bytes, bytes], fold: tuple[int, bytes], limit: int
) -> None:
    """Fills a page; `rows_of`: (base, start, stop), `fold`: (bytes of the prefix, delimiter)."""
    base, start, stop = rows_of
    skipped, separator = fold
    found, common, steps, count = state.view.scan(start, stop), None, 0, 0
    while (pair := next(found, None)) is not None:
        key = pair[0][BUCKET_PREFIX_BYTES:]
        if common is not None and key.startswith(common):
            steps += 1
            if steps >= STEPS_BEFORE_SEEK:
                found, steps = state.view.scan(base + successor(common), stop), 0
            continue
        if count == limit:
            page.truncated = True
            return
        count += 1
        cut = key.find(separator, skipped)
        if cut < 0:
            page.next = key.decode()
            page.entries.append((page.next, rows.listed(pair[1])))
            continue
        common, steps = key[: cut + len(separator)], 0
        page.next = common.decode()
        page.prefixes.append(page.next)


def _first_key(prefix: bytes, marker: bytes, separator: bytes, *, behind: bool) -> bytes:
    """The smallest key that a page may begin with: behind a common prefix, behind the marker, or at it."""
    if not marker or marker < prefix:
        return prefix
    if separator and marker.startswith(prefix):
        cut = marker.find(separator, len(prefix))
        if cut >= 0 and cut + len(separator) == len(marker):
            return successor(marker)
    return marker + b"\x00" if behind else marker


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
    folded, separator, marker = prefix.encode(), delimiter.encode(), key_marker.encode()
    walk = VersionWalk(state, bucket, folded)
    first = _first_key(folded, marker, separator, behind=version_marker is None)
    if version_marker is not None and first == marker and marker:
        walk.seek_behind(marker, version_marker)
    else:
        walk.seek(first)
    common, steps, count = None, 0, 0
    while (found := walk.next_row()) is not None:
        key, value, is_latest = found
        if common is not None and key.startswith(common):
            steps += 1
            if steps >= STEPS_BEFORE_SEEK:
                walk.seek(successor(common))
                steps = 0
            continue
        if count == limit:
            page.truncated = True
            return page
        count += 1
        cut = key.find(separator, len(folded)) if separator else -1
        if cut < 0:
            version = rows.listed(value)
            page.next_key, page.next_version = key.decode(), version.version_id
            page.entries.append((page.next_key, version, is_latest))
            continue
        common, steps = key[: cut + len(separator)], 0
        page.next_key, page.next_version = common.decode(), ""
        page.prefixes.append(page.next_key)
    return page


class VersionWalk:
    """The versions of a bucket in order: two tables merged, the head of a key before its other versions."""

    def __init__(self, state: State, bucket: BucketRecord, prefix: bytes) -> None:
        self._state, self._bucket = state, bucket
        self._heads = row(state.group, Table.HEADS, bucket.owner, number(bucket.bucket_id))
        self._others = row(state.group, Table.VERSIONS, bucket.owner, number(bucket.bucket_id))
        self._heads_end = successor(self._heads + prefix)
        self._others_end = successor(self._others + escape_prefix(prefix))
        self._last_key: bytes | None = None
        self.seek(prefix)

    def seek(self, at: bytes) -> None:
        """Goes on with the first key from `at` on."""
        self._open(self._heads + at, self._others + escape_prefix(at))

    def _open(self, head_at: bytes, other_at: bytes) -> None:
        view = self._state.view
        self._head_rows = view.scan(head_at, self._heads_end) if head_at < self._heads_end else iter(())
        self._other_rows = view.scan(other_at, self._others_end) if other_at < self._others_end else iter(())
        self._head = next(self._head_rows, None)
        self._other = next(self._other_rows, None)

    def seek_behind(self, key: bytes, version: tuple[int, ...]) -> None:
        """Goes on behind a version of `key`, which may be gone by now; () is the null version."""
        data = self._state.view.get(self._heads + key)
        head = rows.listed(data) if data is not None else None
        place = self._place(key, head, version)
        if place is None:
            self.seek(key)
            return
        head_is_behind = head is not None and (head.log_index, head.position) < place
        others = self._others + escape(key)
        behind = others + order(*place) + b"\x00"
        hidden = head is not None or next(self._state.view.scan(others, behind), None) is not None
        self._open(self._heads + key + (b"" if head_is_behind else b"\x00"), behind)
        self._last_key = key if hidden and not head_is_behind else None

    def _place(self, key: bytes, head: ListedVersion | None, version: tuple[int, ...]) -> tuple[int, int] | None:
        """Log index and position of a version; None for a null version that is gone."""
        if version:
            return version[1], version[2]
        if head is not None and head.is_null:
            return head.log_index, head.position
        rest = number(self._bucket.bucket_id) + key
        pointer = self._state.view.get(row(self._state.group, Table.NULLS, self._bucket.owner, rest))
        return rows.position(pointer) if pointer is not None else None

    def next_row(self) -> tuple[bytes, bytes, bool] | None:
        """(key, version row, whether it is the newest of its key)."""
        head, other = self._head, self._other
        head_key = head[0][BUCKET_PREFIX_BYTES:] if head is not None else None
        other_key = None
        if other is not None:
            other_key = unescape(other[0][BUCKET_PREFIX_BYTES : -ORDER_BYTES - len(TERMINATOR)])
        if head is not None and head_key is not None and (other_key is None or head_key <= other_key):
            self._head = next(self._head_rows, None)
            key, value = head_key, head[1]
        elif other is not None and other_key is not None:
            self._other = next(self._other_rows, None)
            key, value = other_key, other[1]
        else:
            return None
        is_latest, self._last_key = key != self._last_key, key
        return key, value, is_latest


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
    """Unfinished uploads behind (key_marker, upload_id_marker), by key, then upload id."""
    page = UploadPage()
    if limit <= 0:
        return page
    folded, separator, marker = prefix.encode(), delimiter.encode(), key_marker.encode()
    base = row(state.group, Table.UPLOADS, bucket.owner, number(bucket.bucket_id))
    stop = successor(base + escape_prefix(folded))
    first = _first_key(folded, marker, separator, behind=not upload_id_marker)
    start = base + escape_prefix(first)
    if upload_id_marker and first == marker and marker:
        start = base + escape(marker) + upload_bytes(upload_id_marker) + b"\x00"
    found = state.view.scan(start, stop) if start < stop else iter(())
    common, steps, count = None, 0, 0
    while (pair := next(found, None)) is not None:
        key = unescape(pair[0][BUCKET_PREFIX_BYTES : -UPLOAD_ID_BYTES - len(TERMINATOR)])
        if common is not None and key.startswith(common):
            steps += 1
            if steps >= STEPS_BEFORE_SEEK:
                found, steps = state.view.scan(base + escape_prefix(successor(common)), stop), 0
            continue
        if count == limit:
            page.truncated = True
            return page
        count += 1
        cut = key.find(separator, len(folded)) if separator else -1
        if cut < 0:
            upload = rows.upload(pair[1])
            page.entries.append(upload)
            page.next_key, page.next_upload_id = upload.key, upload.upload_id
            continue
        common, steps = key[: cut + len(separator)], 0
        page.next_key, page.next_upload_id = common.decode(), ""
        page.prefixes.append(page.next_key)
    return page
