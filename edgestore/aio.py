"""The store for asyncio: `await open("data")` in this process, `connect(url, ...)` over the network; one interface.

Rule: names and conditions are checked here, before either backend sees them: to one they are text in a URL.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from types import TracebackType
from typing import get_args

from edgestore.client import RemoteBackend
from edgestore.embedded import EmbeddedBackend
from edgestore.errors import BadRequest, EdgeStoreError
from edgestore.objects import check_bucket_name, check_key
from edgestore.records import Condition
from edgestore.store_types import (
    Backend,
    BodyInput,
    Consistency,
    Version,
    check_prefix,
    check_version,
    checked_headers,
    checked_metadata,
    delete_condition,
    pieces_of,
    put_condition,
)


@contextmanager
def _about(bucket: str, key: str) -> Iterator[None]:
    """An error that leaves says which object it is about."""
    try:
        yield
    except EdgeStoreError as error:
        error.args = (f"{bucket}/{key}: {error}",)
        raise


class Object:
    """One version of one key, to be read."""

    def __init__(self, backend: Backend, bucket: str, version: Version, *, local: bool) -> None:
        self._backend, self._bucket, self.version, self._local = backend, bucket, version, local

    def stream(self, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Checked bytes from `offset` on, `length` of them or all."""
        if offset < 0 or (length is not None and length < 0):
            raise BadRequest("offset and length are not negative")
        left = max(0, self.version.size_bytes - offset)
        length = left if length is None else min(length, left)
        return self._backend.read(self._bucket, self.version, offset, length, local=self._local)

    async def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """The same in one piece."""
        return b"".join([piece async for piece in self.stream(offset, length)])


class Bucket:
    """One bucket. `consistency`: what its reads see."""

    def __init__(self, backend: Backend, name: str, *, consistency: Consistency = "linearizable") -> None:
        check_bucket_name(name)
        if consistency not in get_args(Consistency):
            raise BadRequest(f"consistency is 'linearizable' or 'local', not {consistency!r}")
        self._backend, self.name, self._local = backend, name, consistency == "local"

    async def put(
        self,
        key: str,
        body: BodyInput,
        *,
        metadata: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        condition: Condition = None,
    ) -> Version:
        """Stores an object; it is on the disk when this returns. Raises PreconditionFailed, StorageFull, ..."""
        check_key(key)
        checked = put_condition(condition)
        named, described = checked_metadata(metadata or {}), checked_headers(headers or {})
        pieces, size = pieces_of(body)
        with _about(self.name, key):
            async with aclosing(pieces):
                return await self._backend.put(
                    self.name, key, pieces, size, metadata=named, headers=described, condition=checked
                )

    async def get(self, key: str, version_id: str | None = None) -> Object:
        """The current version, or a named one. Raises NoSuchKey, NoSuchVersion."""
        return Object(self._backend, self.name, await self.head(key, version_id), local=self._local)

    async def head(self, key: str, version_id: str | None = None) -> Version:
        """What is known of a version, without its bytes."""
        check_version(key, version_id)
        with _about(self.name, key):
            return await self._backend.head(self.name, key, version_id, local=self._local)

    async def delete(self, key: str, version_id: str | None = None, *, condition: Condition = None) -> str:
        """Deletes the current version or a named one; deleting what is not there succeeds."""
        check_version(key, version_id)
        checked = delete_condition(condition)
        with _about(self.name, key):
            return await self._backend.delete(self.name, key, version_id, checked)

    async def list(self, prefix: str = "") -> AsyncIterator[Version]:
        """Current versions in the order of their keys."""
        check_prefix(prefix)
        token = ""
        while True:
            page = await self._backend.list_page(self.name, prefix, token, local=self._local)
            for version in page.versions:
                yield version
            token = page.token
            if not token:
                return

    async def versions(self, prefix: str = "") -> AsyncIterator[Version]:
        """All versions and delete markers, the newest of each key first."""
        check_prefix(prefix)
        token = ""
        while True:
            page = await self._backend.versions_page(self.name, prefix, token, local=self._local)
            for version in page.versions:
                yield version
            token = page.token
            if not token:
                return


class Store:
    """Buckets. Close it, or use it in `async with`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def create_bucket(self, name: str) -> Bucket:
        """Raises BucketExists, InvalidName."""
        bucket = self.bucket(name)
        await self._backend.create_bucket(name)
        return bucket

    def bucket(self, name: str, *, consistency: Consistency = "linearizable") -> Bucket:
        """A bucket that exists; operations on it raise NoSuchBucket where it does not. Raises InvalidName.

        `consistency="local"`: its reads see what the node that is asked has applied. They may be old, by milliseconds
        or, on a node that is cut off, by as long as it was; and they need no other node for what lies on this one.
        """
        return Bucket(self._backend, name, consistency=consistency)

    async def buckets(self) -> list[str]:
        """Names, sorted."""
        return await self._backend.list_buckets()

    async def delete_bucket(self, name: str) -> None:
        """Raises BucketNotEmpty, InvalidName."""
        check_bucket_name(name)
        await self._backend.delete_bucket(name)

    async def close(self) -> None:
        """Makes everything durable and frees the folder or the connections."""
        await self._backend.close()

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


async def open(folder: str | os.PathLike[str]) -> Store:
    """Opens the store in a data folder of this machine. Raises InUse, Corrupt."""
    return Store(await EmbeddedBackend.open(os.fspath(folder)))


def connect(url: str, *, access_key: str, secret_key: str, region: str = "us-east-1") -> Store:
    """The store behind a node's S3 endpoint."""
    return Store(RemoteBackend(url, access_key, secret_key, region=region))
