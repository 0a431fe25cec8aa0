"""What peers may ask of this node's fragments. Every request may come twice, and none is believed unchecked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from edgestore.chunks.facts import Buffer, Facts
from edgestore.chunks.remote import DropHead, FragmentMethod, HasHead, ReadAnswer, ReadHead, encode
from edgestore.chunks.shelf import Intake
from edgestore.errors import BadRequest
from edgestore.records import CHUNK_MAX_BYTES

HAS_CHUNKS_MAX = 1024

Answer = tuple[bytes, Sequence[Buffer]]
Handler = Callable[[bytes, memoryview], Awaitable[Answer]]
T = TypeVar("T")

_put = msgspec.msgpack.Decoder(Facts)
_read = msgspec.msgpack.Decoder(ReadHead)
_has = msgspec.msgpack.Decoder(HasHead)
_drop = msgspec.msgpack.Decoder(DropHead)


def _decoded(decoder: msgspec.msgpack.Decoder[T], head: bytes) -> T:
    try:
        return decoder.decode(head)
    except msgspec.MsgspecError as error:
        raise BadRequest("the head of the request cannot be read") from error


class FragmentServer:
    """Answers requests on the own disk; intake has a reserve of its own."""

    def __init__(self, intake: Intake) -> None:
        self._intake, self._shelf = intake, intake.shelf

    @property
    def intake_bytes(self) -> int:
        """What other nodes' fragments on their way to the disk hold."""
        return self._intake.budget.taken_bytes

    def handlers(self) -> dict[FragmentMethod, Handler]:
        """For the node to register with its peers."""
        return {
            FragmentMethod.PUT: self.put,
            FragmentMethod.READ: self.read,
            FragmentMethod.HAS: self.has,
            FragmentMethod.DROP: self.drop,
        }

    async def put(self, head: bytes, payload: memoryview) -> Answer:
        """Answered when the fragment is synced."""
        await self._intake.put(_decoded(_put, head), payload)
        return b"", ()

    async def read(self, head: bytes, payload: memoryview) -> Answer:
        """The block's facts, and whole pages."""
        asked = _decoded(_read, head)
        if not 0 <= asked.start <= asked.stop <= CHUNK_MAX_BYTES:
            raise BadRequest("a fragment has no such range")
        facts, start, data = await self._shelf.read(asked.chunk_id, asked.shard, asked.start, asked.stop)
        return encode(ReadAnswer(facts, start)), (data,)

    async def has(self, head: bytes, payload: memoryview) -> Answer:
        """The shards of each chunk."""
        asked = _decoded(_has, head)
        if len(asked.chunk_ids) > HAS_CHUNKS_MAX:
            raise BadRequest(f"at most {HAS_CHUNKS_MAX} chunks at once")
        return encode(await self._shelf.has(asked.chunk_ids)), ()

    async def drop(self, head: bytes, payload: memoryview) -> Answer:
        """Also where there is nothing to drop."""
        asked = _decoded(_drop, head)
        await self._shelf.drop(asked.chunk_id, asked.shards)
        return b"", ()
