"""The fragments of other nodes: each call of a shelf is one request. The heads are formats of this room.

A fragment is at most 4 MiB, so it travels whole in one frame: nothing is half there, and a request may come twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from edgestore.chunks.facts import Buffer, Facts
from edgestore.chunks.shelf import LocalShelf, Shelf
from edgestore.chunks.site import Sites
from edgestore.errors import Corrupt, DiskFailed, StorageFull, TooBusy, Unavailable
from edgestore.net import Answer, Caller, Lane, Method, Outcome, Reply, Rights, Work

T = TypeVar("T")
Handler = Callable[[Caller, bytes, memoryview], Awaitable[Reply]]


class ReadHead(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks for bytes [start, stop) of a fragment."""

    chunk_id: bytes
    shard: int
    start: int
    stop: int


class ReadAnswer(msgspec.Struct, frozen=True, array_like=True):
    """The payload begins at byte `start` of the fragment."""

    facts: Facts
    start: int


class DropHead(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Forgets shards of a chunk; all where none is named."""

    chunk_id: bytes
    shards: tuple[int, ...] = ()


class Calls(Protocol):
    """What this room needs of `net.Peers`."""

    async def call(
        self,
        member: str,
        method: Method,
        head: bytes,
        payload: Sequence[Buffer] = (),
        *,
        timeout_s: float,
        lane: Lane = Lane.CONTROL,
    ) -> Answer:
        """One request to a member. Raises Unavailable, or what the other side raised."""
        ...

    def serve(self, method: Method, handler: Handler, *, rights: Rights = Rights.MEMBER) -> None:
        """Who answers a method."""
        ...


encode = msgspec.msgpack.Encoder().encode
_read_answer = msgspec.msgpack.Decoder(ReadAnswer)


class RemoteShelf:
    """The disk of another node."""

    def __init__(self, peers: Calls, sites: Sites, number: int, timeout_s: float) -> None:
        self._peers, self._sites, self._number, self._timeout_s = peers, sites, number, timeout_s
        self._member = sites.member(number)

    async def _ask(self, method: Method, head: Any, payload: Sequence[Buffer] = ()) -> Answer:
        if not self._member:
            raise Unavailable("the node is not known here yet")
        return await self._peers.call(
            self._member, method, encode(head), payload, timeout_s=self._timeout_s, lane=Lane.BULK
        )

    async def _seen(self, work: Work, size_bytes: int, call: Awaitable[T]) -> T:
        """Tells how it went. A full disk, a fragment that is not there, and a call that is broken off are no faults."""
        loop = asyncio.get_running_loop()
        begun_s, outcome = loop.time(), None
        try:
            result = await call
        except Corrupt:
            outcome = Outcome.DAMAGED
            raise
        except (DiskFailed, Unavailable) as error:
            outcome = None if isinstance(error, StorageFull | TooBusy) else Outcome.FAILED
            raise
        else:
            outcome = Outcome.GOOD
            return result
        finally:
            if outcome is not None:
                self._sites.saw(self._number, work, outcome, loop.time() - begun_s, size_bytes)

    async def put(self, facts: Facts, data: Buffer) -> None:
        """See Shelf."""
        await self._seen(Work.WRITE, len(data), self._ask(Method.FRAGMENT_PUT, facts, (data,)))

    async def read(self, chunk_id: bytes, shard: int, start: int, stop: int) -> tuple[Facts, int, memoryview]:
        """See Shelf. Nothing that another node says is believed before it checks out."""
        return await self._seen(Work.READ, stop - start, self._read(chunk_id, shard, start, stop))

    async def _read(self, chunk_id: bytes, shard: int, start: int, stop: int) -> tuple[Facts, int, memoryview]:
        answer = await self._ask(Method.FRAGMENT_READ, ReadHead(chunk_id, shard, start, stop))
        try:
            found = _read_answer.decode(answer.head)
        except msgspec.MsgspecError as error:
            raise Corrupt("the answer of another node cannot be read", member=self._member) from error
        facts, data = found.facts, memoryview(answer.payload).cast("B")
        if (facts.chunk_id, facts.shard) != (chunk_id, shard):
            raise Corrupt("another fragment came than was asked for", chunk_id=chunk_id.hex(), shard=shard)
        facts.check_shape()
        covered = found.start <= start and found.start + len(data) >= min(stop, facts.stored_bytes)
        if not covered and start < facts.stored_bytes:
            raise Corrupt("fewer bytes came than were asked for", chunk_id=chunk_id.hex(), shard=shard)
        facts.check(found.start, data)
        return facts, found.start, data

    async def drop(self, chunk_id: bytes, shards: Sequence[int] = ()) -> None:
        """See Shelf."""
        await self._ask(Method.FRAGMENT_DROP, DropHead(chunk_id, tuple(shards)))


class Shelves:
    """The shelf of every node of the site, by number."""

    def __init__(self, sites: Sites, local: LocalShelf, peers: Calls, timeout_s: float) -> None:
        self._sites, self.local, self._peers, self._timeout_s = sites, local, peers, timeout_s

    def of(self, number: int) -> Shelf:
        """The own one is the disk itself."""
        if number == self._sites.own_number:
            return self.local
        return RemoteShelf(self._peers, self._sites, number, self._timeout_s)
