"""Where the log begins: what was applied is forgotten, what the machine holds durably is trimmed, and a snapshot that
is received takes the place of all before it.

Rule 2: the journal is trimmed up to the index that was applied before a flush began that has returned; a snapshot is
installed by one synced record, after its files. Rule 3: entries beyond it that match stay.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from edgestore.consensus.context import GroupContext
from edgestore.consensus.interface import SnapshotBase
from edgestore.consensus.learner import Fetches
from edgestore.consensus.voter import Voter
from edgestore.disk import Journal
from edgestore.errors import EdgeStoreError, StorageFull, TooBusy

log = logging.getLogger("edgestore.consensus")

AWAY_MS = 10_000
"""Who was not heard for so long is not waited for: it takes a snapshot when it is back."""


class Installed(Protocol):
    """The group, as it hears of a snapshot that came."""

    def leave_incarnation(self) -> None:
        """The snapshot is of a later one."""
        ...

    def switched(self, *, begins: bool) -> None:
        """The state machine is the snapshot now; `begins`: in a later incarnation."""
        ...

    def broken(self, error: Exception) -> None:
        """The journal names a snapshot that the state machine could not switch to: a start tries it again."""
        ...


class Snapshots:
    """The log side of the snapshots of one group."""

    def __init__(self, context: GroupContext, journal: Journal, fetches: Fetches, installed: Installed) -> None:
        self._context, self._journal, self._fetches, self._installed = context, journal, fetches, installed
        self._holds: dict[object, int] = {}
        self._installing: asyncio.Task[None] | None = None
        self._is_installing = False

    # --- flushing -------------------------------------------------------------------------------------

    def base(self) -> SnapshotBase:
        """Where the state machine is in this turn of the loop. Raises TooBusy where the log is that of a snapshot
        already, and the machine is not."""
        raft_journal, index = self._context.raft_journal, self._context.applying.applied_index
        if self._context.applying.is_paused:
            raise TooBusy("a snapshot is being received: ask again later")
        term = raft_journal.term_at(index)
        assert term is not None, f"the log does not reach back to {index}, which is applied"
        return SnapshotBase(index, term, raft_journal.incarnation, raft_journal.members)

    async def snapshot(self, flush: Callable[[], Awaitable[None]]) -> None:
        """See `Consensus.snapshot`. The index is the one applied before the flush began (rule 2)."""
        base, folder = self.base(), self._context.raft_journal.folder
        await flush()
        if folder != self._context.raft_journal.folder:
            return  # a snapshot came meanwhile, which says more
        synced: asyncio.Future[None] = self._context.loop.create_future()
        self.trim(base, lambda: None if synced.done() else synced.set_result(None))
        await synced

    def trim(self, base: SnapshotBase, done: Callable[[], None]) -> None:
        """Files go when the record is synced; what is kept in memory for others stays in files, too."""
        self._context.raft_journal.note_snapshot(base)

        def synced() -> None:
            index = min(base.index, self._context.raft_journal.first_index - 1)
            self._journal.trim(self._context.group, index)
            done()

        self._journal.sync(synced)

    # --- keeping entries for others -------------------------------------------------------------------

    def hold(self) -> Callable[[], None]:
        """See `Consensus.hold_log`."""
        token = object()
        self._holds[token] = self._context.applying.applied_index

        def release() -> None:
            self._holds.pop(token, None)

        return release

    def check_room(self) -> None:
        """Raises TooBusy while a snapshot holds more of the log than may be."""
        if self._holds and self._context.raft_journal.size_bytes > self._context.config.log_behind_max_bytes:
            raise TooBusy("a member receives a snapshot and the log is long (consensus.log_behind_max_bytes)")

    def forget_applied(self, voter: Voter | None) -> None:
        """Of what is applied a tail stays, and so does what others lack, up to a limit."""
        raft_journal, config = self._context.raft_journal, self._context.config
        applied_index = self._context.applying.applied_index
        if self._context.is_lone:
            raft_journal.forget(applied_index)
        elif raft_journal.size_bytes > config.log_kept_bytes:
            raft_journal.forget_over(config.log_kept_bytes, min(applied_index, self._needed(voter)))
            if not self._holds:
                raft_journal.forget_over(config.log_behind_max_bytes, applied_index)

    def _needed(self, voter: Voter | None) -> int:
        """Everything behind it may be asked for."""
        since_ms = self._context.now_ms() - AWAY_MS
        needed = min(self._holds.values(), default=self._context.applying.applied_index)
        if voter is not None and voter.replication is not None:
            needed = min(needed, voter.replication.lowest_matched(since_ms))
        return min([needed, *(index for index, asked_ms in self._fetches.fetched.values() if asked_ms >= since_ms)])

    # --- receiving one --------------------------------------------------------------------------------

    def begin(self, source: str, first_index: int) -> None:
        """For a voter whose leader has not got any more what it lacks; it goes on voting meanwhile."""
        if self._installing is None and self._context.raft_journal.last_index < first_index - 1:
            self._installing = self._context.loop.create_task(self._receive(source))

    async def _receive(self, source: str) -> None:
        try:
            await self.install(source)
        except EdgeStoreError as error:
            log.warning("snapshot-failed group=%d source=%s error=%s", self._context.group, source, error)
            await asyncio.sleep(self._context.config.heartbeat_ms / 1000)
        finally:
            self._installing = None

    async def install(self, source: str) -> None:
        """Pulls a snapshot and goes on from it. Raises TooBusy while that is under way already."""
        if self._is_installing:
            raise TooBusy("a snapshot is being received already")
        self._is_installing = True
        try:
            await self._install(source)
        finally:
            self._is_installing = False

    async def _install(self, source: str) -> None:
        context = self._context
        snapshot = await context.machine.receive(source)
        applying, raft_journal = context.applying, context.raft_journal
        if snapshot.index <= applying.applied_index:
            return
        applying.is_paused = True
        try:
            begins = raft_journal.install(snapshot)
            if begins:
                self._installed.leave_incarnation()
            synced: asyncio.Future[None] = context.loop.create_future()
            raft_journal.sync(lambda: None if synced.done() else synced.set_result(None))
            await synced
            await context.machine.switch(snapshot)
            applying.applied_index = snapshot.index
            applying.commit_index = max(applying.commit_index, snapshot.index)
        except asyncio.CancelledError:
            raise
        except StorageFull:  # nothing has begun: it is received again when there is room
            applying.is_paused = False
            raise
        except Exception as error:
            self._installed.broken(error)
            raise
        applying.is_paused = False
        log.info("snapshot-installed group=%d index=%d source=%s", context.group, snapshot.index, source)
        self._journal.trim(context.group, snapshot.index)
        self._installed.switched(begins=begins)

    def close(self) -> None:
        """Whatever is being received is given up."""
        if self._installing is not None:
            self._installing.cancel()
