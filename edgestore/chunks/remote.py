"""The fragments of other nodes: each call of a shelf is one request. The heads are formats of this room.

A fragment is at most 4 MiB, so it travels whole in one frame: nothing is half there, and a request may come twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Protocol

import msgspec

from edgestore.chunks.facts import Buffer, Facts
from edgestore.chunks.shelf import LocalShelf, Shelf
from edgestore.chunks.site import Sites
from edgestore.errors import Corrupt, Unavailable


class FragmentMethod(IntEnum):
    """The requests of this room; the numbers are stable."""

    PUT = 22
    READ = 23
    HAS = 24
    DROP = 25


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


class HasHead(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Asks which shards of these chunks are there."""

    chunk_ids: tuple[bytes, ...]


class DropHead(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Forgets shards of a chunk; all where none is named."""

    chunk_id: bytes
    shards: tuple[int, ...] = ()


class Answered(Protocol):
    """What comes back from another node."""

    @property
    def head(self) -> Any: ...
    @property
    def payload(self) -> Any: ...


class Call(Protocol):
    """One request to a member over its bulk connections. Raises Unavailable, or what the other side raised."""

    async def __call__(
        self, member: str, method: FragmentMethod, head: bytes, payload: Sequence[Buffer], *, timeout_s: float
    ) -> Answered: ...


encode = msgspec.msgpack.Encoder().encode
_read_answer = msgspec.msgpack.Decoder(ReadAnswer)
_shards = msgspec.msgpack.Decoder(list[tuple[int, ...]])


class RemoteShelf:
    """The disk of another node."""

    def __init__(self, call: Call, member: str, timeout_s: float) -> None:
        self._call, self._member, self._timeout_s = call, member, timeout_s

    async def _ask(self, method: FragmentMethod, head: Any, payload: Sequence[Buffer] = ()) -> Answered:
        if not self._member:
            raise Unavailable("the node is not known here yet")
        return await self._call(self._member, method, encode(head), payload, timeout_s=self._timeout_s)

    async def put(self, facts: Facts, data: Buffer) -> None:
        """See Shelf."""
        await self._ask(FragmentMethod.PUT, facts, (data,))

    async def read(self, chunk_id: bytes, shard: int, start: int, stop: int) -> tuple[Facts, int, memoryview]:
        """See Shelf. Nothing that another node says is believed before it checks out."""
        answer = await self._ask(FragmentMethod.READ, ReadHead(chunk_id, shard, start, stop))
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

    async def has(self, chunk_ids: Sequence[bytes]) -> list[tuple[int, ...]]:
        """See Shelf."""
        answer = await self._ask(FragmentMethod.HAS, HasHead(tuple(chunk_ids)))
        try:
            found = _shards.decode(answer.head)
        except msgspec.MsgspecError as error:
            raise Corrupt("the answer of another node cannot be read", member=self._member) from error
        if len(found) != len(chunk_ids):
            raise Corrupt("the answer of another node is not about these chunks", member=self._member)
        return found

    async def drop(self, chunk_id: bytes, shards: Sequence[int] = ()) -> None:
        """See Shelf."""
        await self._ask(FragmentMethod.DROP, DropHead(chunk_id, tuple(shards)))


class Shelves:
    """The shelf of every node of the site, by number."""

    def __init__(self, sites: Sites, local: LocalShelf, call: Call, timeout_s: float) -> None:
        self._sites, self.local, self._call, self._timeout_s = sites, local, call, timeout_s

    def of(self, number: int) -> Shelf:
        """The own one is the disk itself."""
        if number == self._sites.own_number:
            return self.local
        return RemoteShelf(self._call, self._sites.member(number), self._timeout_s)
