"""What the Python face hands out and takes: versions, entries, bodies, and the backend that stands behind it."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Literal, Protocol

from edgestore.errors import BadRequest, InvalidName, TooLarge
from edgestore.objects import check_key
from edgestore.records import Condition, IfAbsent, IfMatch, parse_version_id

PIECE_BYTES = 1024 * 1024
_NO_BODIES: tuple[type, ...] = (str, int, float, dict, type(None))

SYSTEM_HEADERS = (
    "Content-Type",
    "Cache-Control",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Expires",
)
"""What is stored with an object and given back with it, as S3 has it."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

METADATA_MAX_BYTES = 2048
"""Of names and values together, as S3 has it."""

BodyInput = bytes | bytearray | memoryview | os.PathLike[str] | IO[bytes] | Iterable[bytes] | AsyncIterable[bytes]


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one key. `etag` without quotes; `modified_ms` since 1970."""

    key: str
    version_id: str
    etag: str
    size_bytes: int
    modified_ms: int
    is_latest: bool = True
    is_delete_marker: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing. `token` goes on behind it; empty at the end."""

    versions: list[Version]
    token: str = ""


Consistency = Literal["linearizable", "local"]
"""What a read sees: everything that was acknowledged before it began, or what the node that is asked has applied."""


class Backend(Protocol):
    """The store itself: a core in this process, or a node over the network. Raises errors of the tree."""

    async def create_bucket(self, name: str) -> None:
        """Creates a bucket."""
        ...

    async def delete_bucket(self, name: str) -> None:
        """Deletes an empty bucket."""
        ...

    async def list_buckets(self) -> list[str]:
        """Names, sorted."""
        ...

    async def put(
        self,
        bucket: str,
        key: str,
        pieces: AsyncIterator[bytes],
        size_bytes: int | None,
        *,
        metadata: dict[str, str],
        headers: dict[str, str],
        condition: Condition,
    ) -> Version:
        """Stores an object."""
        ...

    async def head(self, bucket: str, key: str, version_id: str | None, *, local: bool) -> Version:
        """One version. `local`, here and below: as the node that is asked knows it."""
        ...

    def read(self, bucket: str, version: Version, offset: int, length: int, *, local: bool) -> AsyncIterator[bytes]:
        """Bytes of exactly this version."""
        ...

    async def delete(self, bucket: str, key: str, version_id: str | None, condition: Condition) -> str:
        """Returns the id of the version removed or the delete marker written; empty for none."""
        ...

    async def list_page(self, bucket: str, prefix: str, token: str, *, local: bool) -> Page:
        """Current versions."""
        ...

    async def versions_page(self, bucket: str, prefix: str, token: str, *, local: bool) -> Page:
        """All versions and delete markers."""
        ...

    async def close(self) -> None:
        """Frees everything."""
        ...


def checked_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """Names in lower case, as they come back. Raises BadRequest for what cannot travel in a header."""
    for name, value in metadata.items():
        if not _TOKEN.fullmatch(name):
            raise BadRequest(f"metadata name {name!r}: letters, digits and !#$%&'*+.^_`|~- only")
        _require_line(f"metadata {name!r}", value)
    size = sum(len(name) + len(wire_text(value)) for name, value in metadata.items())
    if size > METADATA_MAX_BYTES:
        raise TooLarge(
            f"the metadata has {size} bytes, {METADATA_MAX_BYTES} are allowed: store it as an object of its own",
            limit_bytes=METADATA_MAX_BYTES,
        )
    return {name.lower(): value for name, value in metadata.items()}


def check_version(key: str, version_id: str | None = None) -> None:
    """What names a version. Raises InvalidName, TooLarge."""
    check_key(key)
    if version_id is not None and version_id != "null" and parse_version_id(version_id) is None:
        raise InvalidName(f"{key!r}: {version_id!r} is no version id", key=key)


def check_prefix(prefix: str) -> None:
    """Raises InvalidName for one that no key can begin with."""
    try:
        prefix.encode()
    except UnicodeEncodeError as error:
        raise InvalidName("the prefix is not valid UTF-8") from error


def put_condition(condition: Condition) -> Condition:
    """An ETag may stand in quotes, as the wire has it. Raises BadRequest for what only deletes compare."""
    if not isinstance(condition, IfMatch):
        return condition
    if condition.size_bytes is not None or condition.modified_ms is not None:
        raise BadRequest("only deletes compare size_bytes and modified_ms: name the ETag")
    return IfMatch(condition.etag.strip('"'))


def delete_condition(condition: Condition) -> Condition:
    """The same for a delete, which needs something to delete. Raises BadRequest for IfAbsent."""
    if isinstance(condition, IfAbsent):
        raise BadRequest("a delete takes IfMatch: there is nothing to delete where the key is absent")
    if condition is None:
        return None
    return IfMatch(condition.etag.strip('"'), condition.size_bytes, condition.modified_ms)


def checked_headers(headers: dict[str, str]) -> dict[str, str]:
    """By their usual names. Raises BadRequest for one that is not stored with objects."""
    usual = {name.lower(): name for name in SYSTEM_HEADERS}
    for name, value in headers.items():
        if name.lower() not in usual:
            raise BadRequest(f"header {name!r} is not stored with objects; these are: {', '.join(SYSTEM_HEADERS)}")
        _require_line(name, value)
    return {usual[name.lower()]: value for name, value in headers.items()}


def _require_line(name: str, value: str) -> None:
    if _CONTROL.search(value) or value != value.strip():
        raise BadRequest(f"{name}: the value must be one line of text without blanks around it")


def wire_text(text: str) -> str:
    """As it is stored and travels: the bytes of its UTF-8, one character each."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def shown_text(text: str) -> str:
    """The way back; what is no UTF-8 is shown as latin-1."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def pieces_of(body: BodyInput) -> tuple[AsyncGenerator[bytes, None], int | None]:
    """A body as pieces and its size, None where that is not known. Files and iterators are read in threads."""
    if isinstance(body, bytes | bytearray | memoryview):
        data = bytes(body)
        return _one(data), len(data)
    if isinstance(body, os.PathLike):
        return _file_pieces(os.fspath(body)), os.stat(body).st_size
    if isinstance(body, AsyncIterable):
        return _async_pieces(body), None
    if hasattr(body, "read"):
        return _threaded(iter(lambda: body.read(PIECE_BYTES), b"")), None
    if isinstance(body, _NO_BODIES):
        raise TypeError("a body is bytes, a path (pathlib.Path), a binary file, or an iterator of bytes")
    return _threaded(iter(body)), None


async def _one(data: bytes) -> AsyncGenerator[bytes, None]:
    yield data


async def _async_pieces(body: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    async for piece in body:
        yield piece


async def _file_pieces(path: str) -> AsyncGenerator[bytes, None]:
    file = await asyncio.to_thread(open, path, "rb")
    try:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece
    finally:
        file.close()


async def _threaded(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    end = object()
    while (piece := await asyncio.to_thread(next, pieces, end)) is not end:
        yield piece  # type: ignore[misc]
