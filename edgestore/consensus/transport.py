"""Messages of every group of a node over its peers: one topic and one method, shared out by group.

Rule: nothing leaves a group before term and vote are on the disk (rule 2); what must wait is bounded, and lost where
there is more of it, as any message may be.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from edgestore.consensus.messages import Fetch, Fetched, Message, decode, decode_message, encode
from edgestore.errors import BadRequest, Unavailable
from edgestore.net import Caller, Method, Reply, Topic

if TYPE_CHECKING:  # a lone node loads none of it
    from edgestore.net import Peers

log = logging.getLogger("edgestore.consensus")

HELD_MAX = 256


class Listener(Protocol):
    """One group of the node."""

    def on_message(self, sender: str, message: Message) -> None:
        """Whatever its incarnation."""
        ...

    async def on_fetch(self, sender: str, fetch: Fetch) -> Fetched:
        """Answers a learner."""
        ...

    def on_connected(self, member: str) -> None:
        """What was sent to it before may be lost."""
        ...


class RaftPort:
    """The groups of one node on its peers."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._groups: dict[int, Listener] = {}
        self._encoded: tuple[Message | None, bytes] = (None, b"")
        """The newest message and its bytes: the same one goes to several members."""
        peers.on_message(Topic.RAFT, self._received)
        peers.serve(Method.RAFT_FETCH, self._fetch)
        peers.on_connected(self._connected)

    @classmethod
    def of(cls, peers: Peers) -> RaftPort:
        """The one port of these peers."""
        port: RaftPort | None = peers.ports.get(cls)
        if port is None:
            port = peers.ports[cls] = cls(peers)
        return port

    def join(self, group: int, listener: Listener) -> None:
        """Messages of the group go there from now on."""
        self._groups[group] = listener

    def leave(self, group: int) -> None:
        """The group is closed."""
        self._groups.pop(group, None)

    @property
    def is_alone(self) -> bool:
        """One group only: no other has something for the same sync."""
        return len(self._groups) <= 1

    def send(self, member: str, message: Message) -> bool:
        """Whether it is on its way."""
        if self._encoded[0] is not message:
            self._encoded = message, encode(message)
        return self._peers.send(member, Topic.RAFT, self._encoded[1])

    async def fetch(self, member: str, fetch: Fetch, timeout_s: float) -> Fetched:
        """Raises Unavailable, and whatever else the member raised."""
        answer = await self._peers.call(member, Method.RAFT_FETCH, encode(fetch), timeout_s=timeout_s)
        try:
            return decode(answer.head, Fetched)
        except ValueError as error:
            raise Unavailable(f"{member} answered what is no answer: {error}") from error

    def is_connected(self, member: str) -> bool:
        """Whether something could be sent to it now."""
        return self._peers.is_connected(member)

    def known(self) -> list[str]:
        """Every member that there is an address of, sorted."""
        return sorted(self._peers.known())

    def _received(self, caller: Caller, head: bytes) -> None:
        try:
            message = decode_message(head)
        except ValueError as error:
            log.warning("message-refused member=%s reason=%s", caller.member, error)
            return
        if (group := self._groups.get(message.group)) is not None:
            group.on_message(caller.member, message)

    def _connected(self, member: str) -> None:
        for group in list(self._groups.values()):
            group.on_connected(member)

    async def _fetch(self, caller: Caller, head: bytes, payload: memoryview) -> Reply:
        try:
            fetch = decode(head, Fetch)
        except ValueError as error:
            raise BadRequest(f"that is no fetch: {error}") from error
        if (group := self._groups.get(fetch.group)) is None:
            raise Unavailable(f"group {fetch.group} is not open here")
        return Reply(encode(await group.on_fetch(caller.member, fetch)))


class Outbox:
    """What one group sends. Messages wait until term and vote are synced."""

    def __init__(self, port: RaftPort | None, may_leave: Callable[[], bool]) -> None:
        self._port, self._may_leave = port, may_leave
        self._held: list[tuple[str, Message]] = []

    def send(self, member: str, message: Message) -> bool:
        """False where it is known to be lost."""
        if self._port is None:
            return False
        if self._may_leave():
            self.release()  # a sync that somebody else asked for has made room: what waits leaves first
            return self._port.send(member, message)
        if len(self._held) >= HELD_MAX:
            return False
        self._held.append((member, message))
        return True

    def release(self) -> None:
        """Called when a sync is done."""
        if self._port is not None and self._held and self._may_leave():
            held, self._held = self._held, []
            for member, message in held:
                self._port.send(member, message)

    def drop(self) -> None:
        """What was said in an incarnation that is over."""
        self._held.clear()
