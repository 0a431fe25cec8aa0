"""Brings one fragment to this disk: the fragment itself where somebody has it, else made of k others.

Rule: within a reserve of memory and a rate of its own, behind clients; what comes is checked against its page CRCs and
synced before it counts. Asking twice does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from edgestore.chunks.budget import ByteBudget
from edgestore.chunks.facts import Facts, Source
from edgestore.chunks.pieces import Pace, brought, made, made_bytes
from edgestore.chunks.remote import Calls, encode
from edgestore.chunks.site_store import SiteStore
from edgestore.config import RepairConfig
from edgestore.errors import BadRequest, EdgeStoreError, TooBusy
from edgestore.net import Caller, Lane, Method, Reply
from edgestore.observe import Metrics
from edgestore.placement import FRAGMENTS_MAX
from edgestore.records import CHUNK_MAX_BYTES, PAGE_BYTES, ChunkRef

YIELD_S = 0.01
LINE_FACTOR = 8
"""So many requests for each one that is served may stand in line."""


class RepairHead(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks an owner to fetch shard `shard` of a chunk. The rest is what the extent says of where the others are."""

    chunk: ChunkRef
    k: int
    m: int
    epoch: int
    elsewhere: tuple[tuple[int, int], ...]
    missing: tuple[int, ...]
    shard: int

    def source(self) -> Source:
        """Raises BadRequest where there can be no such fragment."""
        if not (
            self.k >= 1
            and self.m >= 0
            and self.k + self.m <= FRAGMENTS_MAX
            and 0 <= self.shard < self.k + self.m
            and 0 < self.chunk.size_bytes <= CHUNK_MAX_BYTES
        ):
            raise BadRequest("there is no such fragment")
        return Source(self.chunk, self.k, self.m, self.epoch, dict(self.elsewhere), frozenset(self.missing))


def head_of(source: Source, shard: int) -> RepairHead:
    """The request for a fragment."""
    elsewhere, missing = tuple(sorted(source.elsewhere.items())), tuple(sorted(source.missing))
    return RepairHead(source.chunk, source.k, source.m, source.epoch, elsewhere, missing, shard)


_decode = msgspec.msgpack.Decoder(RepairHead).decode


class Throttle:
    """A rate in bytes: who takes more waits until it is paid off. What was not used in the last second is lost."""

    def __init__(self, bytes_per_s: Callable[[], int]) -> None:
        self._bytes_per_s = bytes_per_s
        self._paid_s = 0.0

    async def take(self, count: int) -> None:
        """Waits for its turn."""
        bytes_per_s = self._bytes_per_s()
        if not bytes_per_s:
            return
        now_s = asyncio.get_running_loop().time()
        begin_s = max(self._paid_s, now_s - 1.0)
        self._paid_s = begin_s + count / bytes_per_s
        if begin_s > now_s:
            await asyncio.sleep(begin_s - now_s)


@dataclass(frozen=True, slots=True)
class Clients:
    """What repair knows of them. `are_short`: some wait for memory of this node; `are_there`: the site has some."""

    are_short: Callable[[], bool]
    are_there: Callable[[], bool]


class Mover:
    """The receiving side of repair on one node."""

    def __init__(self, site: SiteStore, peers: Calls, config: RepairConfig, metrics: Metrics, clients: Clients) -> None:
        self._site, self._peers, self._config, self._metrics, self._clients = site, peers, config, metrics, clients
        self.memory = ByteBudget(config.memory_bytes)
        # What a fetch takes of `memory` covers its decoding too, so that this one never makes anybody wait.
        self.gather = site.gather_behind(ByteBudget(config.memory_bytes))
        self._throttle = Throttle(self._bytes_per_s)
        self._serving = asyncio.Semaphore(config.served_max)
        self._asked = 0
        peers.serve(Method.FRAGMENT_REPAIR, self._serve)

    async def _serve(self, caller: Caller, head: bytes, payload: memoryview) -> Reply:
        """Answered when the fragment is synced here."""
        try:
            asked = _decode(head)
        except msgspec.MsgspecError as error:
            raise BadRequest("the head of the request cannot be read") from error
        if self._asked >= LINE_FACTOR * self._config.served_max:
            raise TooBusy("too many fragments are being fetched here")
        self._asked += 1
        try:
            async with self._serving:
                await self.pull(asked.source(), asked.shard)
        finally:
            self._asked -= 1
        return Reply()

    async def bring(self, source: Source, shard: int, node: int) -> None:
        """Has a node fetch a fragment; returns when it is synced there. Raises Unavailable, Corrupt, StorageFull."""
        sites = self._site.sites
        if node == sites.own_number:
            await self.pull(source, shard)
            return
        head, timeout_s = encode(head_of(source, shard)), self._config.fetch_timeout_s
        await self._peers.call(sites.member(node), Method.FRAGMENT_REPAIR, head, timeout_s=timeout_s, lane=Lane.BULK)

    async def pull(self, source: Source, shard: int) -> None:
        """Brings it here, where it is not."""
        if await self._site.local.keeps(source.chunk.chunk_id, source.k, source.m, shard):
            return
        await self._put(source, lambda: self._fetch(source, shard))

    async def rebuild(self, source: Source, shard: int) -> None:
        """Makes a fragment of this node anew of the others."""
        await self._put(source, lambda: self._rebuilt(source, shard))

    async def _fetch(self, source: Source, shard: int) -> tuple[Facts, memoryview]:
        """As it is, or made of others. Who is gone is asked last: it would be waited for until the request's time is
        over."""
        try:
            return await brought(self.gather, source, shard, self._pace(), self.gather.at_hand(source, shard))
        except EdgeStoreError:
            try:
                return await self._rebuilt(source, shard)
            except EdgeStoreError:
                return await brought(self.gather, source, shard, self._pace())

    async def _rebuilt(self, source: Source, shard: int) -> tuple[Facts, memoryview]:
        return await made(self.gather, source, shard, self._pace())

    async def _put(self, source: Source, get: Callable[[], Awaitable[tuple[Facts, memoryview]]]) -> None:
        """Within the limits."""
        held_bytes = source.chunk.size_bytes + made_bytes(source)
        await self.memory.take(held_bytes)
        try:
            facts, data = await get()
            await self._site.put_behind(facts, data)
        finally:
            self.memory.give(held_bytes)
        self._metrics.count("repair_fragments_total")
        self._metrics.count("repair_bytes_total", len(data))

    def _bytes_per_s(self) -> int:
        limit, beside = self._config.bytes_per_s, self._config.beside_clients_bytes_per_s
        return beside if beside and self._clients.are_there() else limit

    def _pace(self) -> Pace:
        pages = max(1, self._config.piece_bytes // PAGE_BYTES)
        return Pace(pages * PAGE_BYTES if self._clients.are_there() else CHUNK_MAX_BYTES, self.wait_for_turn)

    async def wait_for_turn(self, size_bytes: int) -> None:
        """Clients first, then the rate."""
        for _ in range(self._config.yields_max):
            if not self._clients.are_short():
                break
            await asyncio.sleep(YIELD_S)
        await self._throttle.take(size_bytes)
