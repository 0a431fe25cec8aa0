"""Compares a node with what its clients know: every version's bytes, every listing and count, every chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from edgestore.catalog import list_objects, list_versions
from edgestore.catalog.keys import PREFIX_BYTES, Table, row, successor
from edgestore.core import Core
from edgestore.disk.scrubber import scrub
from edgestore.errors import Corrupt, StorageFull
from edgestore.records import SITE_TENANT, BucketUsage, Principal, VersionKind
from tests.sim.clients import BUCKETS, Bodies, Client, read
from tests.sim.model import Damaged, Entry, Knowledge, Leaked, Lost, Miscounted, Refused
from tests.unit.catalog.audit import audit

SETTLING_S = 5.0


class Check:
    """One look at everything, while nobody writes. `victims`: the chunks that were damaged on purpose."""

    def __init__(self, core: Core, root: Principal, bodies: Bodies, victims: set[bytes]) -> None:
        self.core, self.root, self.bodies, self.victims = core, root, bodies, victims
        self.damaged = 0

    async def run(self, clients: Iterable[Client]) -> None:
        """Nothing acknowledged is lost, nothing is half there, names and counts agree."""
        keys = {place: key for client in clients for place, key in client.keys.items()}
        for name in BUCKETS:
            mine = {key: known for (bucket, key), known in keys.items() if bucket == name}
            await self._check_bucket(name, mine)
        try:
            audit(self.core.catalog_store)  # type: ignore[arg-type]
        except AssertionError as error:
            raise Miscounted(f"rows of the catalog contradict each other: {error}") from error

    async def _check_bucket(self, name: str, keys: dict[str, Knowledge]) -> None:
        state = self.core.meta.state
        bucket = self.core.objects.bucket(self.root, name)
        found: dict[str, list[Entry]] = {}
        sizes = 0
        for key, version, is_latest in list_versions(state, bucket, limit=100_000).entries:
            if is_latest != (key not in found):
                raise Miscounted(f"{name}/{key}: {version.version_id} is listed as the newest: {is_latest}")
            body = None
            if version.kind is VersionKind.OBJECT:
                body = await self._body_of(name, key, version.version_id, version.etag)
                sizes += len(self.bodies.by_digest.get(body, b""))
            found.setdefault(key, []).append(Entry(version.version_id, body, etag=version.etag))
        for key in found.keys() - keys.keys():
            raise Lost(f"{name}/{key}: nobody asked for it")
        for key, known in keys.items():
            current = await self._current(name, key, found.get(key, []))
            if current not in known.current():
                raise Lost(f"{name}/{key}: found {current}, known {known.entries}")
            known.adopt(found.get(key, []), f"{name}/{key}")
        present = sorted(key for key, entries in found.items() if entries[0].body is not None)
        listed = [key for key, _ in list_objects(state, bucket, limit=100_000).entries]
        if listed != present:
            raise Miscounted(f"{name}: {listed} listed, {present} there")
        usage = state.usage(bucket)
        counted = BucketUsage(len(present), sum(map(len, found.values())), sizes, usage.uploads)
        if usage != counted:
            raise Miscounted(f"{name}: {usage} counted, {counted} there")

    async def _body_of(self, bucket: str, key: str, version: str, etag: str) -> str:
        """By its bytes; by its ETag where they were damaged on purpose."""
        try:
            body = await read(self.core, self.root, bucket, key, version)
        except Corrupt as error:
            return self._damaged_body(bucket, key, version, etag, error)
        if body is None:
            raise Lost(f"{bucket}/{key} version {version} is listed, and it is not there")
        if body not in self.bodies.by_digest:
            raise Lost(f"{bucket}/{key} version {version}: its bytes are nobody's")
        self.bodies.by_etag[etag] = body
        return body

    def _damaged_body(self, bucket: str, key: str, version: str, etag: str, error: Corrupt) -> str:
        core = self.core
        record = core.objects._find(core.objects.bucket(self.root, bucket), key, version)
        extents = core.meta.state.extents(core.objects.bucket(self.root, bucket).owner, record.extents)
        chunks = {chunk.chunk_id for extent in extents if extent is not None for chunk in extent.chunks}
        body = self.bodies.by_etag.get(etag)
        if body is None or not chunks & self.victims:
            raise Damaged(f"{bucket}/{key} version {version} is damaged: {error}") from error
        self.damaged += 1
        return body

    async def _current(self, bucket: str, key: str, entries: list[Entry]) -> str | None:
        try:
            return await read(self.core, self.root, bucket, key)
        except Corrupt:
            return entries[0].body if entries else None  # judged as a version already


async def check_chunks(core: Core, victims: set[bytes]) -> None:
    """When reclaim and sweep have nothing left to do, disk and catalog name the same chunks, but for those `victims`
    whose block cannot be read."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + SETTLING_S
    while True:
        prefix = row(0, Table.CHUNKS, SITE_TENANT)
        named = {key[PREFIX_BYTES:] for key, _ in core.catalog_store.scan(prefix, successor(prefix))}
        stored = set(core.segments.chunk_ids())
        if missing := named - stored - victims:
            raise Lost(f"no fragment of {len(missing)} named chunks: {sorted(missing)[0].hex()}")
        condemned = core.meta.state.condemned(1)
        if named - stored <= victims and stored <= named and not condemned:
            return
        if loop.time() > deadline_s:
            raise Leaked(f"{len(stored - named)} fragments that nothing names, condemned {condemned}")
        await asyncio.sleep(0.02)


async def check_damage_is_found(core: Core, victims: set[bytes]) -> None:
    """A scrub finds what reads have met, and nothing else."""
    report = await scrub(core.segments, core.config.disk)
    if not (core.disk_health["damaged_fragments"] or core.disk_health["unreadable_segments"]):
        raise Damaged("a damaged fragment was met, and the node does not report it")
    for line in report.corrupt:
        if not any(victim.hex() in line for victim in victims):
            raise Damaged(f"nobody damaged it: {line}")


async def check_full_disk(core: Core, root: Principal, clients: Iterable[Client]) -> None:
    """A full disk still deletes."""
    there = [(client, *place, key) for client in clients for place, key in client.keys.items() if key.newest()]
    for client, bucket, name, key in there[:1]:
        await _until_accepted(partial(client.delete, core, root, bucket, name, key))


async def check_room_again(core: Core, root: Principal, clients: Iterable[Client]) -> None:
    """Writes are taken again when there is room."""
    there = [(client, *place, key) for client in clients for place, key in client.keys.items()]
    for client, bucket, name, key in there[:1]:
        await _until_accepted(partial(client.put, core, root, bucket, name, key))


async def _until_accepted(operation: Callable[[], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + SETTLING_S
    while True:
        try:
            await operation()
        except StorageFull as error:
            if loop.time() > deadline_s:
                raise Refused(f"for {SETTLING_S} s: {error}") from error
            await asyncio.sleep(0.05)
        else:
            return
