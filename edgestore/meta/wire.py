"""What the metas of a site ask each other, as bytes, and the one port that shares requests out by group.

Rule: every request may come twice, late, or not at all: operations carry their ids, pieces of a snapshot their offset.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from edgestore.errors import BadRequest, Unavailable
from edgestore.net import Answer, Caller, Lane, Method, Reply
from edgestore.records import Member

if TYPE_CHECKING:  # a lone node loads none of it
    from edgestore.net import Peers

T = TypeVar("T")

Group = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.-]*[A-Za-z0-9_-]$")]
"""Of a file in a folder: never `..`, never a path."""
SnapshotId = Annotated[bytes, msgspec.Meta(max_length=16)]


class Propose(msgspec.Struct, frozen=True, array_like=True):
    """Operations for the leader's next entries; the payload is the array of them, as they go into the entry."""

    group: Group


class OpenSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """`snapshot_id`: chosen by the receiver, the same when it asks again."""

    group: Group
    snapshot_id: SnapshotId


class SnapshotFile(msgspec.Struct, frozen=True, array_like=True):
    """One file of a snapshot."""

    name: Name
    size_bytes: Size


class Manifest(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot consists of. Its index and term stand in its rows; its members are those of `incarnation`.
    `checkpoint_id`: no other checkpoint has it."""

    snapshot_id: SnapshotId
    checkpoint_id: SnapshotId
    incarnation: int
    members: tuple[Member, ...]
    files: Annotated[tuple[SnapshotFile, ...], msgspec.Meta(max_length=4096)]


class ReadPiece(msgspec.Struct, frozen=True, array_like=True):
    """A piece of file number `file` of the manifest."""

    group: Group
    snapshot_id: SnapshotId
    file: Size
    offset: Size
    length: Size


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """Of the payload: CRC32C over its bytes."""

    crc32c: int


class CloseSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """It was received, or given up."""

    group: Group
    snapshot_id: SnapshotId


Handler = Callable[[str, Any, memoryview], Awaitable[Reply]]
"""Takes the member that asks, the request, and the payload."""
REQUESTS: dict[Method, type[Any]] = {
    Method.PROPOSE: Propose,
    Method.SNAPSHOT_OPEN: OpenSnapshot,
    Method.SNAPSHOT_READ: ReadPiece,
    Method.SNAPSHOT_CLOSE: CloseSnapshot,
}

encode = msgspec.msgpack.Encoder().encode


def decode(data: bytes | memoryview, kind: type[T]) -> T:
    """Raises BadRequest."""
    try:
        return msgspec.msgpack.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadRequest(f"that is no {kind.__name__}: {error}") from error


class MetaPort:
    """The groups of one node on its peers."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._handlers: dict[tuple[Method, int], Handler] = {}
        for method in REQUESTS:
            peers.serve(method, self._handler_of(method))

    @classmethod
    def of(cls, peers: Peers) -> MetaPort:
        """The one port of these peers."""
        port: MetaPort | None = peers.ports.get(cls)
        if port is None:
            port = peers.ports[cls] = cls(peers)
        return port

    def serve(self, method: Method, group: int, handler: Handler) -> None:
        """Requests of the group go there from now on."""
        self._handlers[method, group] = handler

    def leave(self, group: int) -> None:
        """The group is closed."""
        for method in REQUESTS:
            self._handlers.pop((method, group), None)

    async def call(
        self,
        member: str,
        method: Method,
        request: msgspec.Struct,
        payload: Sequence[bytes] = (),
        *,
        timeout_s: float,
        lane: Lane = Lane.CONTROL,
    ) -> Answer:
        """Raises Unavailable, and whatever the other one raised."""
        return await self._peers.call(member, method, encode(request), payload, timeout_s=timeout_s, lane=lane)

    def _handler_of(self, method: Method) -> Callable[[Caller, bytes, memoryview], Awaitable[Reply]]:
        async def handle(caller: Caller, head: bytes, payload: memoryview) -> Reply:
            request = decode(head, REQUESTS[method])
            handler = self._handlers.get((method, request.group))
            if handler is None:
                raise Unavailable(f"group {request.group} is not open here")
            return await handler(caller.member, request, payload)

        return handle
