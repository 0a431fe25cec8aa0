"""What the Python face hands out and takes: versions, entries, bodies, and the backend that stands behind it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Protocol

from edgestore.records import Condition

PIECE_BYTES = 1024 * 1024
_NO_BODIES: tuple[type, ...] = (str, int, float, dict, type(None))

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

    async def head(self, bucket: str, key: str, version_id: str | None) -> Version:
        """One version."""
        ...

    def read(self, bucket: str, version: Version, offset: int, length: int) -> AsyncIterator[bytes]:
        """Bytes of exactly this version."""
        ...

    async def delete(self, bucket: str, key: str, version_id: str | None, condition: Condition) -> str:
        """Returns the id of the version removed or the delete marker written; empty for none."""
        ...

    async def list_page(self, bucket: str, prefix: str, token: str) -> Page:
        """Current versions."""
        ...

    async def versions_page(self, bucket: str, prefix: str, token: str) -> Page:
        """All versions and delete markers."""
        ...

    async def close(self) -> None:
        """Frees everything."""
        ...


def pieces_of(body: BodyInput) -> tuple[AsyncGenerator[bytes, None], int | None]:
    """A body as pieces and its size, None where that is not known. Files and iterators are read in threads."""
    if isinstance(body, bytes | bytearray | memoryview):
        return _one(bytes(body)), len(bytes(body))
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
