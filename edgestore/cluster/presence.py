"""This node's own row: announced at each start, watched from then on.

Rule: two starts under one identity take the row from each other; whoever loses it again and again has both stopped. A
node that reads that it was removed stops by itself, and the others have shut it out already.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from edgestore.catalog import Table, commands
from edgestore.cluster.certificates import is_shut_out
from edgestore.config import ClusterConfig
from edgestore.errors import ConfigError, Denied, EdgeStoreError
from edgestore.meta import Meta
from edgestore.net import Caller, Method, Peers, Reply, Rights
from edgestore.records import SHUT_OUT, SITE_TENANT, NodeRecord, NodeState

log = logging.getLogger("edgestore.cluster")

WAITED_MAX = 20
"""So many looks a removed voter waits for the incarnation that does without it."""
TAKEN_MAX = 3
"""A row that was taken this often within one life is not a late message of an earlier start."""


class StandingQuestion(msgspec.Struct, frozen=True, array_like=True):
    """Where the caller is reached. The catalog cannot say so of one that moved before it has arrived, which takes a
    leader that reaches it."""

    address: str = ""


class StandingAnswer(msgspec.Struct, frozen=True, array_like=True):
    """What the caller is to hear of itself: its number and state where it was shut out, else zeros. `addresses`: where
    the members are that this node is connected to."""

    number: int = 0
    state: int = 0
    addresses: dict[str, str] = {}


@dataclass(slots=True)
class Presence:
    """`start_nonce`: random, new at each start. `stop`: the node may not go on."""

    meta: Meta
    peers: Peers
    config: ClusterConfig
    member: str
    start_nonce: bytes
    announcement: Callable[[bytes], commands.UpdateNode]
    """The command that announces this start, given the nonce."""
    stop: Callable[[EdgeStoreError], None]
    _announced: bool = False
    _doubts: asyncio.Event = field(default_factory=asyncio.Event)
    _moved: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By member: the address in its row, and the one that it told instead."""
    _taken: int = 0
    _waited: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        """Follows the table of nodes."""
        self.meta.watch((Table.NODES,), lambda _: self._changed.set())
        self.peers.serve(Method.STATUS, self._tell_standing, rights=Rights.NONE)
        self.follow()

    def follow(self) -> None:
        """Dials whom the catalog names, drops whom it shut out."""
        known = self.peers.known()
        for node in self.meta.state.nodes():
            if node.member == self.member:
                continue
            if is_shut_out(node, self.meta):
                self.peers.forget(node.member)
            elif known.get(node.member) != (address := self._address(node)):
                try:
                    self.peers.know(node.member, address)
                except ConfigError as error:  # what one member says of itself must not stop the others
                    log.warning("address-refused member=%s error=%s", node.member, error)
        self.peers.review()

    def _address(self, node: NodeRecord) -> str:
        """What a member told of itself counts until its row changes."""
        before, told = self._moved.get(node.member, ("", ""))
        if before == node.address:
            return told
        self._moved.pop(node.member, None)  # the row may come back to where it was
        return node.address

    async def acquaint(self) -> None:
        """Until cancelled, from the first moment: whom the log names before this node has arrived may be the leader,
        without whom it never arrives."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            self.follow()

    async def announce(self) -> None:
        """Needs a quorum."""
        await self.meta.propose(SITE_TENANT, self.announcement(self.start_nonce))
        self._announced = True

    async def run(self) -> None:
        """Until cancelled, or until the node must stop."""
        while True:
            self._check_row()
            try:
                async with asyncio.timeout(self.config.identity_check_ms / 1000 if self._is_leaving() else None):
                    await self._changed.wait()
            except TimeoutError:
                self._waited += 1
            self._changed.clear()
            self.follow()
            if self._announced and self._lost():
                await self._take_back()

    async def doubt(self) -> None:
        """Until cancelled: who loses its connections, or knows no leader, asks whether it still is a member. One that
        was shut out cannot learn it from the log; nor can one that moved, whom the leader looks for where it was."""
        question = msgspec.msgpack.encode(StandingQuestion(self.announcement(self.start_nonce).address or ""))
        self.peers.on_disconnected(lambda _: self._doubts.set())
        while True:
            await asyncio.sleep(self.config.doubt_ms / 1000)
            if not self._doubts.is_set() and self.meta.status().leader:
                continue
            self._doubts.clear()
            for member in self.peers.known():
                try:
                    answer = await self.peers.call(member, Method.STATUS, question, timeout_s=self.config.ask_timeout_s)
                    standing = msgspec.msgpack.decode(answer.head, type=StandingAnswer)
                    state = NodeState(standing.state) if standing.state else None
                except (EdgeStoreError, ValueError):
                    continue
                self._judge(standing.number, state)
                for other, address in standing.addresses.items():
                    if not self.peers.is_connected(other):
                        self._heard(self.meta.state.node_of(other), address)

    async def _tell_standing(self, caller: Caller, head: bytes, payload: memoryview) -> Reply:
        row = self.meta.state.node_of(caller.member) if caller.member else None
        answer = StandingAnswer()
        if row is not None and is_shut_out(row, self.meta):
            answer = StandingAnswer(row.number, row.state)
        elif row is not None and caller.rights is Rights.MEMBER:
            with suppress(ValueError):
                self._heard(row, msgspec.msgpack.decode(head, type=StandingQuestion).address)
            known = self.peers.known().items()
            answer = StandingAnswer(
                addresses={member: address for member, address in known if self.peers.is_connected(member)}
            )
        return Reply(msgspec.msgpack.encode(answer))

    def _heard(self, row: NodeRecord | None, address: str) -> None:
        if row is None or row.member == self.member or not address or address == self._address(row):
            return
        log.info("peer-moved member=%s from=%s to=%s", row.member, row.address, address)
        self._moved[row.member] = (row.address, address)
        self.follow()

    def _is_leaving(self) -> bool:
        """A member that was shut out votes until the next incarnation begins without it."""
        return any(node.state in SHUT_OUT and not is_shut_out(node, self.meta) for node in self.meta.state.nodes())

    def _row(self) -> NodeRecord | None:
        return self.meta.state.node_of(self.member)

    def _lost(self) -> bool:
        row = self._row()
        return row is not None and row.start_nonce != self.start_nonce

    def _check_row(self) -> None:
        row = self._row()
        if row is None or not (is_shut_out(row, self.meta) or (row.state in SHUT_OUT and self._waited >= WAITED_MAX)):
            return
        self._judge(row.number, row.state)

    def _judge(self, number: int, state: NodeState | None) -> None:
        if state is NodeState.REMOVED:
            self.stop(Denied(f"node {number} was removed from the site: wipe the folder and join again"))
        elif state is NodeState.QUARANTINED:
            self.stop(
                Denied(
                    f"node {number} runs twice: its folder was copied. Both are stopped and shut out; remove the "
                    "node, and let each machine join anew with an empty folder"
                )
            )

    async def _take_back(self) -> None:
        """The other start does the same: that is how both know."""
        self._taken += 1
        log.warning("identity-taken times=%d", self._taken)
        try:
            if self._taken >= TAKEN_MAX:
                await self.meta.propose(SITE_TENANT, commands.QuarantineMember(self.member))
            else:
                await asyncio.sleep(self.config.identity_check_ms / 1000)
                await self.announce()
        except EdgeStoreError as error:
            log.warning("identity-check-postponed error=%s", error)
            self._changed.set()
            await asyncio.sleep(self.config.identity_check_ms / 1000)
