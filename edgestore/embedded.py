"""The embedded backend: a core in this process, no server and no port."""

from __future__ import annotations

from collections.abc import AsyncIterator

from edgestore.chunks import IteratorBody
from edgestore.config import load_config
from edgestore.core import Core, root_keys_of_environment
from edgestore.disk import SystemFiles
from edgestore.errors import PreconditionFailed
from edgestore.objects import PutRequest
from edgestore.records import Condition, ListedVersion, VersionKind, VersionRecord
from edgestore.store_types import Page, Version, shown_text, wire_text

PAGE_KEYS = 1000


class EmbeddedBackend:
    """`Backend` on a `Core`, as root."""

    def __init__(self, core: Core) -> None:
        self._core, self._objects, self._root = core, core.objects, core.tenants.root()

    @classmethod
    async def open(cls, folder: str) -> EmbeddedBackend:
        """Opens a data folder. Raises InUse where a node or another process has it."""
        config = load_config(folder)
        return cls(await Core.open(SystemFiles(folder), config, root_keys=root_keys_of_environment()))

    @property
    def core(self) -> Core:
        """The core, for the command line."""
        return self._core

    async def create_bucket(self, name: str) -> None:
        """See Backend."""
        await self._objects.create_bucket(self._root, name)

    async def delete_bucket(self, name: str) -> None:
        """See Backend."""
        await self._objects.delete_bucket(self._root, name)

    async def list_buckets(self) -> list[str]:
        """See Backend."""
        return sorted(bucket.name for bucket in await self._objects.list_buckets(self._root))

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
        """See Backend."""
        body = IteratorBody(self._core.chunks.pool, pieces, size_bytes)
        request = PutRequest(bucket, key, _wire(headers), _wire(metadata), condition=condition)
        return _version(key, await self._objects.put(self._root, request, body))

    async def head(self, bucket: str, key: str, version_id: str | None, *, local: bool) -> Version:
        """See Backend."""
        return _version(key, await self._objects.head(self._root, bucket, key, version_id, local=local))

    async def read(
        self, bucket: str, version: Version, offset: int, length: int, *, local: bool
    ) -> AsyncIterator[bytes]:
        """See Backend."""
        reader = await self._objects.open(self._root, bucket, version.key, version.version_id, local=local)
        try:
            if reader.record.etag != version.etag:
                raise PreconditionFailed("the version was replaced while it was read: get the object again")
            async for view in reader.read(offset, length):
                yield bytes(view)
        finally:
            reader.close()

    async def delete(self, bucket: str, key: str, version_id: str | None, condition: Condition) -> str:
        """See Backend."""
        return (await self._objects.delete(self._root, bucket, key, version_id, condition)).version_id

    async def list_page(self, bucket: str, prefix: str, token: str, *, local: bool) -> Page:
        """See Backend."""
        if not local:
            await self._objects.barrier()
        page = self._objects.list_objects(self._root, bucket, prefix=prefix, start_after=token, limit=PAGE_KEYS)
        found = [_listed(key, row, is_latest=True) for key, row in page.entries]
        return Page(found, page.next if page.truncated else "")

    async def versions_page(self, bucket: str, prefix: str, token: str, *, local: bool) -> Page:
        """See Backend."""
        if not local:
            await self._objects.barrier()
        key, _, version = token.rpartition("\n")
        page = self._objects.list_versions(
            self._root, bucket, prefix=prefix, key_marker=key, version_marker=version, limit=PAGE_KEYS
        )
        found = [_listed(key, row, is_latest=latest) for key, row, latest in page.entries]
        return Page(found, f"{page.next_key}\n{page.next_version}" if page.truncated else "")

    async def close(self) -> None:
        """See Backend."""
        await self._core.close()


def _wire(values: dict[str, str]) -> dict[str, str]:
    return {name: wire_text(value) for name, value in values.items()}


def _version(key: str, record: VersionRecord) -> Version:
    return Version(
        key,
        record.version_id,
        record.etag,
        record.size_bytes,
        record.modified_ms,
        metadata={name: shown_text(value) for name, value in record.metadata.items()},
        headers={name: shown_text(value) for name, value in record.headers.items()},
    )


def _listed(key: str, row: ListedVersion, *, is_latest: bool) -> Version:
    marker = row.kind is VersionKind.DELETE_MARKER
    return Version(key, row.version_id, row.etag, row.size_bytes, row.modified_ms, is_latest, marker)
