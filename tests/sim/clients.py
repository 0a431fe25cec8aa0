"""The clients of a simulated run: every operation of the object service, each checked against the model."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from hashlib import md5

from edgestore.chunks import bytes_body
from edgestore.core import Core
from edgestore.errors import (
    Corrupt,
    DiskFailed,
    EdgeStoreError,
    NoSuchKey,
    NoSuchVersion,
    PreconditionFailed,
    StaleChunk,
    StorageFull,
    Unavailable,
)
from edgestore.objects import (
    ColdObject,
    CompleteRequest,
    CopyRequest,
    NamedPart,
    PartRequest,
    PutRequest,
    SmallObject,
    UploadRequest,
)
from edgestore.records import IfAbsent, IfMatch, Principal, VersionRecord
from tests.sim.model import Entry, Knowledge, Lost, Refused, digest

BUCKETS = ("plain", "versioned")
KEYS_PER_CLIENT = 5
SIZES = (0, 10, 300, 8192, 8193, 20_000, 70_000, 300_000)
VERSIONS_OF_A_KEY_MAX = 6


class Bodies:
    """Every body that was ever sent, by its name and by the ETags that it may be stored under: a version may be found
    damaged before anybody has read it, or heard of it."""

    def __init__(self) -> None:
        self.by_digest: dict[str, bytes] = {}
        self.by_etag: dict[str, str] = {}

    def keep(self, *parts: bytes) -> str:
        """The name of what they are together."""
        body = b"".join(parts)
        name = digest(body)
        self.by_digest[name] = body
        self.by_etag[md5(body).hexdigest()] = name
        if len(parts) > 1:
            self.by_etag[f"{md5(b''.join(md5(part).digest() for part in parts)).hexdigest()}-{len(parts)}"] = name
        return name


class Client:
    """Operates on keys of its own, so that each key's operations are in order; reads and copies those of others too."""

    def __init__(self, name: str, rng: random.Random, bodies: Bodies) -> None:
        self.name, self.rng, self.bodies = name, rng, bodies
        self.keys: dict[tuple[str, str], Knowledge] = {}
        self.acknowledged = 0
        self.may_be_damaged: Callable[[Corrupt], bool] = lambda error: False

    async def run(self, core: Core, root: Principal) -> None:
        """Until the power fails or the disk does."""
        while core.failed is None:
            await asyncio.sleep(self.rng.expovariate(400))
            try:
                await self.step(core, root)
            except (Unavailable, StorageFull):
                await asyncio.sleep(0.01)
            except StaleChunk as error:
                raise Refused(f"a new chunk was taken for an old one: {error}") from error
            except DiskFailed as error:
                await asyncio.sleep(0.1)
                if core.failed is None:
                    raise Refused(f"the disk failed, and the node goes on: {error}") from error
            except Corrupt as error:
                if not self.may_be_damaged(error):
                    raise
            else:
                self.acknowledged += 1

    async def step(self, core: Core, root: Principal) -> None:
        """One operation."""
        bucket, name = self.rng.choice(BUCKETS), f"{self.name}/{self.rng.randrange(KEYS_PER_CLIENT)}"
        key = self.keys.setdefault((bucket, name), Knowledge(bucket == "versioned"))
        actions: tuple[Callable[..., Awaitable[None]], ...]
        actions = (self.put, self.put_small, self.delete, self.multipart, self.read, self.create_only)
        actions += (self.copy, self.delete_version, self.replace_only, self.read_others_slowly)
        action = self.rng.choices(actions, weights=(5, 6, 3, 1, 3, 1, 3, 3, 1, 1))[0]
        if len(key.entries) > VERSIONS_OF_A_KEY_MAX:
            action = self.delete_version
        await action(core, root, bucket, name, key)

    def _body(self) -> bytes:
        size = self.rng.choice(SIZES)
        return self.rng.randbytes(size) if self.rng.random() < 0.5 else (b"edge " * (size // 5 + 1))[:size]

    def _stored(self, key: Knowledge, entry: Entry, record: VersionRecord) -> None:
        assert entry.body is not None
        self.bodies.by_etag[record.etag] = entry.body
        key.acknowledge(entry, record.version_id, record.etag)

    # --- writing ---------------------------------------------------------------------------------------

    async def put(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        """Through the streaming path."""
        body = self._body()
        entry = key.begin(self.bodies.keep(body))
        record = await core.objects.put(root, PutRequest(bucket, name), bytes_body(core.chunks.pool, body))
        self._stored(key, entry, record)

    async def put_small(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        """Through the fast lane's path."""
        body = self._body()[:100_000]
        entry = key.begin(self.bodies.keep(body))
        future = asyncio.get_running_loop().create_future()

        def done(record: object, error: EdgeStoreError | None) -> None:
            if not future.done():
                future.set_result((record, error))

        core.objects.put_small(root, PutRequest(bucket, name), body, done)
        record, error = await future
        if error is not None:
            raise error
        self._stored(key, entry, record)

    async def create_only(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        """If-None-Match: wins only where the key is not there."""
        before, body = key.current(), self._body()
        entry = key.begin(self.bodies.keep(body))
        request = PutRequest(bucket, name, condition=IfAbsent())
        try:
            record = await core.objects.put(root, request, bytes_body(core.chunks.pool, body))
        except PreconditionFailed:
            key.refuse(entry)
            if before == {None}:
                raise Lost(f"{bucket}/{name} was refused as present, and it is not there") from None
            return
        if None not in before:
            raise Lost(f"{bucket}/{name} was taken for absent, and it is there: {before}")
        self._stored(key, entry, record)

    async def replace_only(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        """If-Match: wins only over the version that it names."""
        newest = key.newest()
        if newest is None or newest.etag is None:
            return
        etag = newest.etag if self.rng.random() < 0.7 else "0" * 32
        body = self._body()
        entry = key.begin(self.bodies.keep(body))
        request = PutRequest(bucket, name, condition=IfMatch(etag))
        try:
            record = await core.objects.put(root, request, bytes_body(core.chunks.pool, body))
        except PreconditionFailed:
            key.refuse(entry)
            if etag == newest.etag:
                raise Lost(f"{bucket}/{name} is not the version that was acknowledged: {newest}") from None
            return
        if etag != newest.etag:
            raise Lost(f"{bucket}/{name} was replaced although another version was named: {newest}")
        self._stored(key, entry, record)

    async def copy(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        """Of any key of any client, by reference or by its bytes. Its owner may delete it meanwhile."""
        owner = f"client-{self.rng.randrange(4)}"
        source_bucket, source_name = self.rng.choice(BUCKETS), f"{owner}/{self.rng.randrange(KEYS_PER_CLIENT)}"
        algorithm = "CRC32C" if self.rng.random() < 0.2 else ""
        try:
            source = await core.objects.head(root, source_bucket, source_name)
        except NoSuchKey:
            return
        body = self.bodies.by_etag.get(source.etag)
        if body is None:
            return
        entry = key.begin(body)
        request = CopyRequest(source_bucket, source_name, source, bucket, name, algorithm=algorithm)
        try:
            record = await core.objects.copy(root, request)
        except (NoSuchKey, NoSuchVersion, StaleChunk):
            key.refuse(entry)
            return
        self._stored(key, entry, record)

    async def multipart(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        """Two parts."""
        bodies = [self.rng.randbytes(40_000), self.rng.randbytes(500)]
        upload = await core.objects.create_upload(root, UploadRequest(bucket, name))
        named = []
        for number, body in enumerate(bodies, 1):
            part_request = PartRequest(bucket, name, upload.upload_id, number)
            part = await core.objects.put_part(root, part_request, bytes_body(core.chunks.pool, body))
            named.append(NamedPart(number, part.etag))
        if self.rng.random() < 0.2:
            await core.objects.abort_upload(root, bucket, name, upload.upload_id)
            return
        entry = key.begin(self.bodies.keep(*bodies))
        record = await core.objects.complete_upload(root, CompleteRequest(bucket, name, upload.upload_id, tuple(named)))
        self._stored(key, entry, record)

    async def delete(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        """Of the current version."""
        entry = key.begin(None)
        deleted = await core.objects.delete(root, bucket, name)
        key.acknowledge(entry, deleted.version_id or None)

    async def delete_version(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        """One version for good, mostly an old one."""
        named = [entry for entry in key.entries if entry.version is not None]
        if not named:
            return
        if not key.versioned:
            entry = key.begin(None)
            await core.objects.delete(root, bucket, name, "null")
            key.acknowledge(entry, None)
            return
        entry = self.rng.choice(named)
        entry.certain = False
        await core.objects.delete(root, bucket, name, entry.version)
        key.entries.remove(entry)

    # --- reading ---------------------------------------------------------------------------------------

    async def read(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        """A read between the writes of the same client sees the last of them: whole, or a range of it."""
        if self.rng.random() < 0.4:
            await self._read_range(core, root, bucket, name, key)
            return
        try:
            found = await read(core, root, bucket, name)
        except StorageFull as error:
            raise Refused(f"{bucket}/{name} is not read because the disk is full: {error}") from error
        if found not in key.current():
            raise Lost(f"{bucket}/{name}: read {found}, known {key.entries}")

    async def _read_range(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        newest = key.newest()
        if newest is None or newest.body is None:
            return
        body = self.bodies.by_digest[newest.body]
        offset = self.rng.randrange(len(body) + 1)
        length = self.rng.randint(0, len(body) - offset)
        try:
            reader = await core.objects.open(root, bucket, name)
        except NoSuchKey as error:
            raise Lost(f"{bucket}/{name} is not there, known {key.entries}") from error
        try:
            found = b"".join([bytes(view) async for view in reader.read(offset, length)])
        finally:
            reader.close()
        if found != body[offset : offset + length]:
            raise Lost(f"{bucket}/{name}: bytes {offset}+{length} are others than those of {newest}")

    async def read_others_slowly(self, core: Core, root: Principal, *_: object) -> None:
        """What a pinned reader has begun stays readable, whoever deletes it meanwhile (rule 6)."""
        bucket = self.rng.choice(BUCKETS)
        name = f"client-{self.rng.randrange(4)}/{self.rng.randrange(KEYS_PER_CLIENT)}"
        try:
            reader = await core.objects.open(root, bucket, name)
        except NoSuchKey:
            return
        try:
            await asyncio.sleep(self.rng.uniform(0.01, 0.2))
            found = b"".join([bytes(view) async for view in reader.read()])
        finally:
            reader.close()
        expected = self.bodies.by_etag.get(reader.record.etag)
        if expected is not None and digest(found) != expected:
            raise Lost(f"{bucket}/{name}: a slow read of {reader.record.etag} found {digest(found)}, not {expected}")


async def read(core: Core, root: Principal, bucket: str, name: str, version: str | None = None) -> str | None:
    """The digest of an object, read by both paths; None where it is not there."""
    try:
        small = core.objects.get_small(root, bucket, name, version)
        if isinstance(small, SmallObject) and core.clock.boot_ms() % 2:
            return digest(bytes(small.body))
        if isinstance(small, ColdObject) and core.clock.boot_ms() % 2:
            return digest(bytes(await fetched(core, small)))
        reader = await core.objects.open(root, bucket, name, version)
    except (NoSuchKey, NoSuchVersion):
        return None
    try:
        return digest(b"".join([bytes(view) async for view in reader.read()]))
    finally:
        reader.close()


async def fetched(core: Core, cold: ColdObject) -> memoryview:
    """What the callback of a reader thread brings."""
    future: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()

    def done(view: memoryview | None, error: EdgeStoreError | None) -> None:
        if future.done():
            return
        if view is not None:
            future.set_result(view)
        else:
            future.set_exception(error or EdgeStoreError())

    core.objects.fetch(cold, done)
    return await future
