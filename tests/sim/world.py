"""One simulated run: a real core on a simulated disk, clients, crashes at any step, and a model of what was
acknowledged.

Rule: everything follows from the seed; a run that fails prints it, and the same seed fails again in the same way.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import sys
import warnings
from dataclasses import dataclass, field

from edgestore.catalog import list_objects
from edgestore.chunks import bytes_body
from edgestore.config import ChunksConfig, Config, ConsensusConfig, DiskConfig, MetaConfig, ObjectsConfig
from edgestore.core import Core
from edgestore.errors import Corrupt, EdgeStoreError, NoSuchKey, NoSuchVersion, StorageFull, Unavailable
from edgestore.objects import (
    ColdObject,
    CompleteRequest,
    NamedPart,
    PartRequest,
    PutRequest,
    SmallObject,
    UploadRequest,
)
from edgestore.records import IfAbsent, Principal, Versioning
from tests.sim.disk import CrashAtSync, Disk, SimFiles, SimIndex
from tests.sim.loop import Crash, SimClock, SimLoop

BUCKETS = ("plain", "versioned")
CLIENTS = 4
KEYS_PER_CLIENT = 5
SIZES = (0, 10, 300, 8192, 8193, 20_000, 70_000, 300_000)

CONFIG = Config(
    disk=DiskConfig(
        reserve_bytes=256 * 1024,
        journal_file_bytes=256 * 1024,
        journal_idle_mark_ms=50,
        segment_bytes=512 * 1024,
        segment_dead_ratio=0.3,
        compaction_bytes_per_s=64 * 1024 * 1024,
        scrub_interval_ms=50,
        scrub_bytes_per_s=64 * 1024 * 1024,
        open_files_max=4,
    ),
    consensus=ConsensusConfig(entry_operations_max=8, entry_bytes_max=64 * 1024),
    meta=MetaConfig(flush_operations_max=40, flush_journal_bytes_max=512 * 1024),
    chunks=ChunksConfig(
        pool_bytes=4 * 1024 * 1024, pool_read_reserve_bytes=1024 * 1024, reclaim_interval_ms=20, sweep_interval_ms=30
    ),
    objects=ObjectsConfig(part_min_bytes=1000),
)


@dataclass
class Knowledge:
    """What a client knows of one key: its content as last acknowledged, and what an unanswered operation may have
    made of it."""

    current: str | None = None
    maybe: list[str | None] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


class Violation(AssertionError):
    """A promise was broken."""


def digest(body: bytes) -> str:
    """Names a body."""
    return hashlib.sha256(body).hexdigest()[:16]


class Client:
    """Operates on keys of its own, so that each key's operations are in order."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name, self.rng = name, rng
        self.keys: dict[tuple[str, str], Knowledge] = {}
        self.acknowledged = 0

    async def run(self, core: Core, root: Principal) -> None:
        """Until the power fails or the disk does."""
        while core.failed is None:
            await asyncio.sleep(self.rng.expovariate(400))
            try:
                await self.step(core, root)
            except (Unavailable, StorageFull):
                await asyncio.sleep(0.01)
            else:
                self.acknowledged += 1

    async def step(self, core: Core, root: Principal) -> None:
        """One operation."""
        bucket, name = self.rng.choice(BUCKETS), f"{self.name}/{self.rng.randrange(KEYS_PER_CLIENT)}"
        key = self.keys.setdefault((bucket, name), Knowledge())
        actions = (self.put, self.put_small, self.delete, self.multipart, self.read, self.create_only)
        action = self.rng.choices(actions, weights=(5, 6, 3, 1, 3, 1))[0]
        await action(core, root, bucket, name, key)

    def _body(self) -> bytes:
        size = self.rng.choice(SIZES)
        return self.rng.randbytes(size) if self.rng.random() < 0.5 else (b"edge " * (size // 5 + 1))[:size]

    async def put(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        """Through the streaming path."""
        body = self._body()
        key.maybe.append(digest(body))
        record = await core.objects.put(root, PutRequest(bucket, name), bytes_body(core.chunks.pool, body))
        self._acknowledged(key, body, record.version_id)

    async def put_small(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        """Through the fast lane's path."""
        body = self._body()[:100_000]
        key.maybe.append(digest(body))
        future = asyncio.get_running_loop().create_future()

        def done(record: object, error: EdgeStoreError | None) -> None:
            if not future.done():
                future.set_result((record, error))

        core.objects.put_small(root, PutRequest(bucket, name), body, done)
        record, error = await future
        if error is not None:
            raise error
        self._acknowledged(key, body, record.version_id)

    async def create_only(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        """If-None-Match: wins only where the key is not there."""
        body = self._body()
        key.maybe.append(digest(body))
        request = PutRequest(bucket, name, condition=IfAbsent())
        try:
            record = await core.objects.put(root, request, bytes_body(core.chunks.pool, body))
        except Unavailable:
            raise
        except EdgeStoreError:
            if key.current is None and key.maybe == [digest(body)]:
                raise Violation(f"{bucket}/{name} was refused as present, and it is not there") from None
            key.maybe.remove(digest(body))
            return
        self._acknowledged(key, body, record.version_id)

    async def multipart(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        """Two parts."""
        bodies = [self.rng.randbytes(40_000), self.rng.randbytes(500)]
        upload = await core.objects.create_upload(root, UploadRequest(bucket, name))
        named = []
        for number, body in enumerate(bodies, 1):
            request = PartRequest(bucket, name, upload.upload_id, number)
            part = await core.objects.put_part(root, request, bytes_body(core.chunks.pool, body))
            named.append(NamedPart(number, part.etag))
        if self.rng.random() < 0.2:
            await core.objects.abort_upload(root, bucket, name, upload.upload_id)
            return
        key.maybe.append(digest(b"".join(bodies)))
        record = await core.objects.complete_upload(root, CompleteRequest(bucket, name, upload.upload_id, tuple(named)))
        self._acknowledged(key, b"".join(bodies), record.version_id)

    async def delete(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        """Of the current version."""
        key.maybe.append(None)
        await core.objects.delete(root, bucket, name)
        key.current, key.maybe = None, []

    async def read(self, core: Core, root: Principal, bucket: str, name: str, key: Knowledge) -> None:
        """A read between the writes of the same client sees the last of them."""
        found = await read(core, root, bucket, name)
        if found not in (key.current, *key.maybe):
            raise Violation(f"{bucket}/{name}: read {found}, acknowledged {key.current}, in flight {key.maybe}")

    @staticmethod
    def _acknowledged(key: Knowledge, body: bytes, version: str) -> None:
        key.current, key.maybe = digest(body), []
        if version != "null":
            key.versions[version] = digest(body)


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


class World:
    """A seed's disk and clients, over several lives of the node."""

    def __init__(self, seed: int, *, lives: int | None = None) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.disk = Disk(self.rng)
        self.clients = [Client(f"client-{number}", random.Random(seed * 31 + number)) for number in range(CLIENTS)]
        self.lives = lives if lives is not None else self.rng.randint(2, 4)
        self.now_s = 1000.0
        self.steps = 0
        self.trace = hashlib.sha256()

    def run(self) -> str:
        """All lives, the last one without a crash. Returns the digest of everything that happened."""
        for life in range(self.lives):
            self._live(last=life == self.lives - 1)
        return self.trace.hexdigest()

    def _live(self, *, last: bool) -> None:
        loop = SimLoop(start_s=self.now_s)
        if not last:
            self._plan_crash(loop)
        files = SimFiles(self.disk, loop)
        try:
            loop.run(self._life(files, loop, last=last))
        except Crash:
            self.disk.crash_at = self.disk.crash_at_sync = None
            self.disk.lose_power()
        else:
            self._check_failures(loop)
            self.disk.crash_at = self.disk.crash_at_sync = None
        finally:
            self._bury(loop)
        self.steps += loop.steps
        self.now_s = loop.now_s + 1
        self.trace.update(f"{loop.steps} {loop.now_s:.9f} {self.disk.operations}".encode())

    def _plan_crash(self, loop: SimLoop) -> None:
        """At any step, at any call of the disk, or before a sync that has much to lose: of many writes to a segment, as
        compaction makes them, or of a large frame of the journal."""
        kind = self.rng.random()
        if kind < 0.3:
            loop.crash_at = self.rng.randint(1, 4000)
        elif kind < 0.55:
            self.disk.crash_at = self.disk.operations + self.rng.randint(1, 800)
        elif kind < 0.8:
            self.disk.crash_at_sync = CrashAtSync("segments/", 6, 0, self.rng.randint(1, 8))
        else:
            self.disk.crash_at_sync = CrashAtSync("journal/", 1, 4096, self.rng.randint(1, 60))

    @staticmethod
    def _bury(loop: SimLoop) -> None:
        """What was running never runs again: not even its clean-up may reach the disk."""
        loop.abandon()
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                gc.collect()
        finally:
            sys.unraisablehook = hook

    @staticmethod
    def _check_failures(loop: SimLoop) -> None:
        for context in loop.failures:
            raise Violation(f"unhandled in a callback: {context}") from context.get("exception")

    async def _life(self, files: SimFiles, loop: SimLoop, *, last: bool) -> None:
        rng = self.rng
        core = await Core.open(files, CONFIG, clock=SimClock(loop), entropy=rng.randbytes, open_store=SimIndex.open)
        root = core.tenants.root()
        await self._prepare(core, root)
        await self._check(core, root)
        running = [loop.create_task(client.run(core, root)) for client in self.clients]
        done, _ = await asyncio.wait(running, timeout=rng.uniform(0.05, 0.6), return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        await asyncio.sleep(0.2)
        await self._check(core, root)
        await core.close()
        if last:
            self.trace.update(repr(sorted(self.disk.entries)).encode())

    async def _prepare(self, core: Core, root: Principal) -> None:
        for name in BUCKETS:
            try:
                core.objects.bucket(root, name)
            except EdgeStoreError:
                await core.objects.create_bucket(root, name)
        await core.objects.set_versioning(root, "versioned", Versioning.ENABLED)

    async def _check(self, core: Core, root: Principal) -> None:
        """Nothing acknowledged is lost, nothing is half there, names and counts agree."""
        present: dict[str, int] = dict.fromkeys(BUCKETS, 0)
        for client in self.clients:
            for (bucket, name), key in client.keys.items():
                try:
                    found = await read(core, root, bucket, name)
                except Corrupt as error:
                    raise Violation(f"{bucket}/{name} is damaged: {error}") from error
                if found not in (key.current, *key.maybe):
                    raise Violation(f"{bucket}/{name}: found {found}, acknowledged {key.current}, maybe {key.maybe}")
                key.current, key.maybe = found, []
                present[bucket] += found is not None
                for version, body in key.versions.items():
                    if (seen := await read(core, root, bucket, name, version)) != body:
                        raise Violation(f"{bucket}/{name} version {version}: found {seen}, acknowledged {body}")
        for name in BUCKETS:
            bucket = core.objects.bucket(root, name)
            listed = list_objects(core.meta.state, bucket, limit=10_000)
            usage = core.meta.state.usage(bucket)
            if not len(listed.entries) == usage.current_objects == present[name]:
                raise Violation(
                    f"{name}: {len(listed.entries)} listed, {usage.current_objects} counted, {present[name]} known"
                )


def run_seed(seed: int) -> World:
    """One run. Raises with the seed in the message."""
    world = World(seed)
    try:
        world.run()
    except Exception as error:
        raise Violation(f"seed {seed}: {error!r}") from error
    return world
