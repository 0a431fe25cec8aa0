"""What peers may ask of this node's fragments. Every request may come twice, and none is believed unchecked."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from edgestore.chunks.facts import Facts
from edgestore.chunks.remote import Calls, DropHead, ReadAnswer, ReadHead, encode
from edgestore.chunks.shelf import Intake
from edgestore.errors import BadRequest
from edgestore.net import Caller, Method, Reply
from edgestore.records import CHUNK_MAX_BYTES

T = TypeVar("T")

_put = msgspec.msgpack.Decoder(Facts)
_read = msgspec.msgpack.Decoder(ReadHead)
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

    def serve(self, peers: Calls) -> None:
        """From now on members are answered."""
        peers.serve(Method.FRAGMENT_PUT, self.put)
        peers.serve(Method.FRAGMENT_READ, self.read)
        peers.serve(Method.FRAGMENT_DROP, self.drop)

    async def put(self, caller: Caller, head: bytes, payload: memoryview) -> Reply:
        """Answered when the fragment is synced."""
        await self._intake.put(_decoded(_put, head), payload)
        return Reply()

    async def read(self, caller: Caller, head: bytes, payload: memoryview) -> Reply:
        """The block's facts, and whole pages."""
        asked = _decoded(_read, head)
        if not 0 <= asked.start <= asked.stop <= CHUNK_MAX_BYTES:
            raise BadRequest("a fragment has no such range")
        facts, start, data = await self._shelf.read(asked.chunk_id, asked.shard, asked.start, asked.stop)
        return Reply(encode(ReadAnswer(facts, start)), (data,))

    async def drop(self, caller: Caller, head: bytes, payload: memoryview) -> Reply:
        """Also where there is nothing to drop."""
        asked = _decoded(_drop, head)
        await self._shelf.drop(asked.chunk_id, asked.shards)
        return Reply()
