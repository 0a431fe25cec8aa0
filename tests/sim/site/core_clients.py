"""Clients of a whole site: they put, get, copy, replace and delete through any node, give up, and write down what they
were told.

Rule: bodies are unique, so a body names the write that it came from; one try an operation, so what was not answered may
have happened once, or never.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from edgestore.chunks import bytes_body
from edgestore.core import Core
from edgestore.errors import (
    AlreadyApplied,
    Corrupt,
    DiskFailed,
    InUse,
    NoSuchBucket,
    NoSuchKey,
    NoSuchUpload,
    NoSuchVersion,
    PreconditionFailed,
    StaleChunk,
    Unavailable,
)
from edgestore.objects import CompleteRequest, CopyRequest, NamedPart, PartRequest, PutRequest, UploadRequest
from edgestore.records import CHUNK_MAX_BYTES, IfAbsent, IfMatch, VersionRecord
from tests.sim.clients import read
from tests.sim.model import Lost, Refused, digest
from tests.sim.site.cores import CoreSite
from tests.sim.site.linearizability import UNKNOWN, Kind, Operation
from tests.sim.site.lives import NodeDied
from tests.sim.site.machines import Machine
from tests.sim.site.register_clients import History

REGISTERS, VERSIONS = "registers", "versions"
"""A bucket whose keys are registers, and one that keeps versions."""
KEYS = ("a", "b", "c", "d")
SIZES = (20, 3000, 9000, 40_000, 140_000, 300_000, 900_000, 5_000_000)
WEIGHTS = (12, 8, 8, 6, 6, 4, 2, 1)
"""The largest are of two chunks, and one of fifty: more would make a seed slow."""
LARGEST_SLAB_BYTES = 2 * CHUNK_MAX_BYTES
"""Where less is reserved nobody sends a body of a whole chunk, which takes up to so much with its parity."""
LARGE_BYTES, LARGE_WITHIN_S = 900_000, 10.0
PATIENCE_S = 8.0
UNANSWERED = (Unavailable, NodeDied, TimeoutError, DiskFailed, InUse, StaleChunk, AlreadyApplied)
"""Whatever it was, nobody knows whether it was done. StaleChunk: the node was taken for dead, and its writer closed;
AlreadyApplied: it was too old to tell when it came."""


@dataclass
class Ledger:
    """What all clients were told of versions. `maybe_gone`: their deletion was asked for, and not answered."""

    history: History = field(default_factory=History)
    bodies: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    versions: dict[tuple[str, str], str] = field(default_factory=dict)
    """(key, version id) of the versioned bucket: digest."""
    gone: set[tuple[str, str]] = field(default_factory=set)
    maybe_gone: set[tuple[str, str]] = field(default_factory=set)
    acknowledged: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    """By ETag how many versions may have come about of a body: one a request, answered or not."""
    flips: set[bytes] = field(default_factory=set)
    """Chunks of which somebody damaged a fragment."""

    def keep(self, body: bytes) -> str:
        """Its name."""
        name = digest(body)
        self.bodies[name] = body
        return name


class CoreClient:
    """One thing at a time, through a node that it chooses anew each time."""

    def __init__(self, site: CoreSite, number: int, ledger: Ledger) -> None:
        self.site, self.ledger, self.name = site, ledger, f"client-{number}"
        self.rng = random.Random(f"{site.seed} core {self.name}")
        self.mean_wait_s = self.rng.choice((0.005, 0.03, 0.1))
        self._seen: dict[str, tuple[str, str] | None] = {}
        self._sent = 0

    async def run(self) -> None:
        """Until somebody cancels it."""
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / self.mean_wait_s))
            await self.step()

    async def step(self) -> None:
        """One operation."""
        machine = self.rng.choice(self.site.machines)
        if machine.service is None or not machine.service.core.arrived.is_set():
            return
        actions: tuple[Callable[[Machine], Awaitable[None]], ...]
        actions = (self.write, self.read, self.put_version, self.read_version, self.delete_version)
        actions += (self.copy_version, self.multipart, self.read_slowly)
        await self.rng.choices(actions, weights=(6, 6, 4, 4, 2, 2, 1, 1))[0](machine)

    def body(self) -> bytes:
        """One that nobody else sends; half of them shrink."""
        self._sent += 1
        sizes = len(SIZES) if self.site.config.chunks.slab_bytes >= LARGEST_SLAB_BYTES else len(SIZES) - 1
        size = self.rng.choices(SIZES[:sizes], weights=WEIGHTS[:sizes])[0]
        start = f"{self.name} {self._sent} ".encode()
        rest = self.rng.randbytes(size) if self.rng.random() < 0.5 else b"edge " * (size // 5)
        return start + rest

    async def ask(self, machine: Machine, work: Callable[[Core, Any], Coroutine[Any, Any, Any]]) -> Any:
        """Inside the node; one that joins anew serves nobody yet. Raises NodeDied, TimeoutError and what it raises."""
        service, life = machine.service, machine.life
        if service is None or life is None or not service.core.arrived.is_set():
            raise NodeDied(machine.name)
        core = service.core
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await life.ask(work(core, core.tenants.root()))
        except DiskFailed:
            if core.failed is None and not life.crashed:
                await asyncio.sleep(0.2)
                if core.failed is None and not life.crashed:
                    raise Refused(f"the disk of {machine} failed, and it goes on") from None
            raise

    # --- registers ---------------------------------------------------------------------------------------

    async def write(self, machine: Machine) -> None:
        """A value, a swap, or a delete."""
        key, what = self.rng.choice(KEYS), self.rng.random()
        call = self.ledger.history.place()
        if what < 0.15:
            await self._written(key, Kind.WRITE, None, None, call, self._delete(machine, key))
            return
        body = self.body()
        value = self.ledger.keep(body)
        if what < 0.4 and key in self._seen:
            seen = self._seen[key]
            condition = IfAbsent() if seen is None else IfMatch(seen[1])
            work = self._put(machine, PutRequest(REGISTERS, key, condition=condition), body)
            await self._written(key, Kind.SWAP, value, seen[0] if seen is not None else None, call, work)
            return
        await self._written(key, Kind.WRITE, value, None, call, self._put(machine, PutRequest(REGISTERS, key), body))

    async def _written(
        self, key: str, kind: Kind, value: str | None, expected: str | None, call: int, work: Awaitable[Any]
    ) -> None:
        history = self.ledger.history
        try:
            answer, swapped = await work, True
        except (PreconditionFailed, NoSuchKey):
            answer, swapped = None, False
        except NoSuchBucket:  # the node is behind, and has said no before it did anything
            return
        except (*UNANSWERED, asyncio.CancelledError) as error:
            history.add(key, Operation(call, UNKNOWN, kind, value, expected, who=self.name))
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        self.ledger.acknowledged += 1
        history.add(key, Operation(call, history.place(), kind, value, expected, swapped, self.name))
        if swapped and value is not None:
            self.ledger.etags[answer.etag] = value
            self._seen[key] = (value, answer.etag)
        elif swapped:
            self._seen[key] = None

    async def _put(self, machine: Machine, request: PutRequest, body: bytes) -> VersionRecord:
        is_small = len(body) <= 100_000 and self.rng.random() < 0.5
        put = put_small if is_small else put_streaming
        return await self.ask(machine, lambda core, root: put(core, root, request, body))  # type: ignore[no-any-return]

    async def _delete(self, machine: Machine, key: str) -> Any:
        return await self.ask(machine, lambda core, root: core.objects.delete(root, REGISTERS, key))

    async def read(self, machine: Machine) -> None:
        """A register, from this node."""
        await self.read_key(machine, self.rng.choice(KEYS))

    async def read_key(self, machine: Machine, key: str) -> bool:
        """Returns whether it was answered."""
        history = self.ledger.history
        call = history.place()
        try:
            value = await self.ask(machine, lambda core, root: read(core, root, REGISTERS, key))
        except UNANSWERED:
            return False
        except Corrupt as error:
            self._check_damage(error, machine)
            return False
        if value is not None and value not in self.ledger.bodies:
            raise Lost(f"{REGISTERS}/{key} at {machine}: its bytes are nobody's")
        history.add(key, Operation(call, history.place(), Kind.READ, value, who=f"{self.name}@{machine}"))
        return True

    async def read_slowly(self, machine: Machine) -> None:
        """What a reader has begun stays readable and the same, whoever replaces it meanwhile (rule 6)."""
        key, rng = self.rng.choice(KEYS), self.rng

        async def work(core: Core, root: Any) -> tuple[str, str]:
            reader = await core.objects.open(root, REGISTERS, key)
            try:
                await asyncio.sleep(rng.choice((0.05, 0.5, 2.0)))
                found = b"".join([bytes(view) async for view in reader.read()])
            finally:
                reader.close()
            return reader.record.etag, digest(found)

        try:
            etag, found = await self.ask(machine, work)
        except (*UNANSWERED, NoSuchKey):
            return
        except Corrupt as error:
            self._check_damage(error, machine)
            return
        expected = self.ledger.etags.get(etag)
        if found not in self.ledger.bodies or (expected is not None and found != expected):
            raise Lost(f"{REGISTERS}/{key} at {machine}: a slow read found other bytes than it began with")

    # --- versions ----------------------------------------------------------------------------------------

    def _some_version(self) -> tuple[str, str] | None:
        there = sorted(self.ledger.versions.keys() - self.ledger.gone - self.ledger.maybe_gone)
        return self.rng.choice(there) if there else None

    def _made(self, key: str, record: VersionRecord, name: str) -> None:
        self.ledger.versions[key, record.version_id] = name
        self.ledger.etags[record.etag] = name
        self.ledger.acknowledged += 1

    async def put_version(self, machine: Machine) -> None:
        """A new one."""
        key, body = self.rng.choice(KEYS), self.body()
        name = self.ledger.keep(body)
        self.ledger.asked[hashlib.md5(body, usedforsecurity=False).hexdigest()] += 1
        try:
            record = await self._put(machine, PutRequest(VERSIONS, key), body)
        except (*UNANSWERED, NoSuchBucket):
            return
        self._made(key, record, name)

    async def put_large(self, machine: Machine, size_bytes: int = LARGE_BYTES) -> bool:
        """Through the path of large bodies, and again where it was refused. Returns whether it was taken in time."""
        until_s = self.site.loop.now_s + LARGE_WITHIN_S
        while self.site.loop.now_s < until_s:
            self._sent += 1
            body = f"{self.name} {self._sent} ".encode() + self.rng.randbytes(size_bytes)
            name, key = self.ledger.keep(body), self.rng.choice(KEYS)
            self.ledger.asked[hashlib.md5(body, usedforsecurity=False).hexdigest()] += 1
            try:
                request = PutRequest(VERSIONS, key)
                record = await self.ask(
                    machine, lambda core, root, request=request, body=body: put_streaming(core, root, request, body)
                )
            except UNANSWERED:
                await asyncio.sleep(0.2)
                continue
            self._made(key, record, name)
            return True
        return False

    async def copy_version(self, machine: Machine) -> None:
        """Of one version, as a version of another key."""
        source = self._some_version()
        if source is None:
            return
        key, name = self.rng.choice(KEYS), self.ledger.versions[source]

        async def work(core: Core, root: Any) -> VersionRecord:
            found = await core.objects.head(root, VERSIONS, source[0], source[1])
            self.ledger.asked[found.etag] += 1
            return await core.objects.copy(root, CopyRequest(VERSIONS, source[0], found, VERSIONS, key))

        try:
            record = await self.ask(machine, work)
        except UNANSWERED:
            return
        except (NoSuchKey, NoSuchVersion):
            self._check_gone(source, machine)
            return
        self._made(key, record, name)

    async def multipart(self, machine: Machine) -> None:
        """Two parts, each through a node of its own."""
        key, bodies = self.rng.choice(KEYS), [self.body() + bytes(1000), self.body()]
        name = self.ledger.keep(b"".join(bodies))
        others = self.site.arrived() or [machine]
        try:
            upload = await self.ask(
                machine, lambda core, root: core.objects.create_upload(root, UploadRequest(VERSIONS, key))
            )
            named = []
            for number, body in enumerate(bodies, 1):
                request = PartRequest(VERSIONS, key, upload.upload_id, number)

                async def put_part(core: Core, root: Any, request: PartRequest = request, body: bytes = body) -> Any:
                    return await core.objects.put_part(root, request, bytes_body(core.chunks.pool, body))

                part = await self.ask(self.rng.choice(others), put_part)
                named.append(NamedPart(number, part.etag))
            complete = CompleteRequest(VERSIONS, key, upload.upload_id, tuple(named))
            record = await self.ask(
                self.rng.choice(others), lambda core, root: core.objects.complete_upload(root, complete)
            )
        except UNANSWERED:
            return
        except NoSuchUpload as error:
            raise Lost(f"an upload of {VERSIONS}/{key} that was begun is not there: {error}") from error
        self._made(key, record, name)

    async def read_version(self, machine: Machine) -> None:
        """One that was acknowledged."""
        place = self._some_version()
        if place is not None:
            await self.read_place(machine, place)

    async def read_place(self, machine: Machine, place: tuple[str, str]) -> bool:
        """Returns whether it was answered."""
        try:
            found = await self.ask(machine, lambda core, root: read(core, root, VERSIONS, *place))
        except UNANSWERED:
            return False
        except Corrupt as error:
            self._check_damage(error, machine)
            return False
        if found is None:
            self._check_gone(place, machine)
        elif found != self.ledger.versions[place]:
            raise Lost(f"{place} at {machine} holds other bytes than were acknowledged")
        return True

    def _check_damage(self, error: Corrupt, machine: Machine) -> None:
        """While somebody flips bits a node that is away may be one too many."""
        if not self.ledger.flips:
            raise Lost(f"{machine} cannot read what was acknowledged, and nobody damaged it: {error}") from error

    def _check_gone(self, place: tuple[str, str], machine: Machine) -> None:
        if place not in self.ledger.gone | self.ledger.maybe_gone:
            raise Lost(f"version {place} of {VERSIONS} was acknowledged, and {machine} does not know it")

    async def delete_version(self, machine: Machine) -> None:
        """For good."""
        place = self._some_version()
        if place is None or len(self.ledger.versions) - len(self.ledger.gone) < 5:
            return
        self.ledger.maybe_gone.add(place)
        try:
            await self.ask(machine, lambda core, root: core.objects.delete(root, VERSIONS, *place))
        except UNANSWERED:
            return
        self.ledger.gone.add(place)
        self.ledger.acknowledged += 1


async def put_streaming(core: Core, root: Any, request: PutRequest, body: bytes) -> VersionRecord:
    """Through the path of bodies that come over the wire."""
    return await core.objects.put(root, request, bytes_body(core.chunks.pool, body))


async def put_small(core: Core, root: Any, request: PutRequest, body: bytes) -> VersionRecord:
    """Through the fast lane's path."""
    future: asyncio.Future[VersionRecord] = asyncio.get_running_loop().create_future()

    def done(record: VersionRecord | None, error: BaseException | None) -> None:
        if future.done():
            return
        if record is not None:
            future.set_result(record)
        else:
            future.set_exception(error or AssertionError("neither a version nor an error"))

    core.objects.put_small(root, request, body, done)
    return await future
