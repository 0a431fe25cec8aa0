"""This node's own row: announced at each start, watched from then on.

Rule: two starts under one identity take the row from each other; whoever loses it again and again has both stopped. A
node that reads that it was removed stops by itself, and the others have shut it out already.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from edgestore.catalog import Table, commands
from edgestore.config import ClusterConfig
from edgestore.errors import Denied, EdgeStoreError
from edgestore.meta import Meta
from edgestore.net import Peers
from edgestore.records import SITE_TENANT, NodeRecord, NodeState

log = logging.getLogger("edgestore.cluster")

TAKEN_MAX = 3
"""A row that was taken this often within one life is not a late message of an earlier start."""


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
    _taken: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> None:
        """Follows the table of nodes."""
        self.meta.watch((Table.NODES,), lambda _: self._changed.set())
        self.follow()

    def follow(self) -> None:
        """Dials whom the catalog names, drops whom it shut out."""
        known = self.peers.known()
        for node in self.meta.state.nodes():
            if node.member == self.member:
                continue
            if node.state in (NodeState.REMOVED, NodeState.QUARANTINED):
                self.peers.forget(node.member)
            elif known.get(node.member) != node.address:
                self.peers.know(node.member, node.address)
        self.peers.review()

    async def announce(self) -> None:
        """Needs a quorum."""
        await self.meta.propose(SITE_TENANT, self.announcement(self.start_nonce))
        self._announced = True

    async def run(self) -> None:
        """Until cancelled, or until the node must stop."""
        while True:
            self._check_row()
            await self._changed.wait()
            self._changed.clear()
            self.follow()
            if self._announced and self._lost():
                await self._take_back()

    def _row(self) -> NodeRecord | None:
        return self.meta.state.node_of(self.member)

    def _lost(self) -> bool:
        row = self._row()
        return row is not None and row.start_nonce != self.start_nonce

    def _check_row(self) -> None:
        row = self._row()
        if row is not None and row.state is NodeState.REMOVED:
            self.stop(Denied(f"node {row.number} was removed from the site: wipe the folder and join again"))
        if row is not None and row.state is NodeState.QUARANTINED:
            self.stop(
                Denied(
                    f"node {row.number} runs twice: its folder was copied. Both are stopped and shut out; remove the "
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
