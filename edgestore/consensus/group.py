"""What the rooms above use: `Consensus` over one group that runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection

from edgestore.consensus.applying import NotAppliedError
from edgestore.consensus.interface import Done, Readable, SnapshotBase
from edgestore.consensus.members import check_next, next_members
from edgestore.consensus.running import Running
from edgestore.errors import Closing, Conflict, EdgeStoreError, NotLeader, Unavailable
from edgestore.records import Member

CHANGE_TIMEOUT_S = 10.0


class RaftConsensus(Running):
    """`Consensus` over PySyncObj's core.

    `founders`: who forms the group where this member's journal is empty; empty itself: this member alone. A member that
    joins gives the voters that it was told of, and learns. `peers` None: the group never has another member.
    """

    def propose(self, payload: bytes, done: Done, *, is_waited_elsewhere: bool = False) -> None:
        """See `Consensus.propose`."""
        if self._closed or self._failed is not None:
            done(None, Closing("the node is closing: send it again later"))
            return
        voter = self._voter
        if voter is None:
            done(None, NotLeader("this member has no vote", leader=self.leader()))
            return
        try:
            self._snapshots.check_room()
            voter.propose(payload, done)
        except EdgeStoreError as error:  # the journal took no record: the entry is in nobody's log
            done(None, error)
            return
        except NotAppliedError as error:
            self.broken(error)
            return
        if voter.others:
            if is_waited_elsewhere and voter.replication is not None:
                voter.replication.wait_for(self._raft_journal.last_index)
            self._changed()
        else:
            self._ask_for_sync()

    @property
    def is_leader(self) -> bool:
        """See `Consensus.is_leader`."""
        return self._voter is not None and self._voter.core.is_leader

    @property
    def incarnation(self) -> int:
        """See `Consensus.incarnation`."""
        return self._raft_journal.incarnation

    def can_read_now(self) -> bool:
        """See `Consensus.can_read_now`: a lone leader has applied whatever it has acknowledged."""
        voter = self._voter
        if voter is None or not voter.core.is_leader or self._closed or self._failed is not None:
            return False
        if not voter.others:
            return True
        return (
            voter.replication is not None
            and voter.knows_commit
            and self._applying.applied_index >= self._applying.commit_index
            and voter.replication.has_lease
        )

    def when_readable(self, done: Readable) -> None:
        """See `Consensus.when_readable`."""
        if self.can_read_now():
            done(None)
        elif self._closed or self._failed is not None:
            done(Closing("the node is closing: send it again later"))
        elif self._port is None:
            done(Unavailable("the node has no leader yet: try again", retry_after_s=0.5))
        else:
            self._reads.wait(done)
            self._arm(self._context.loop.time() + self._config.heartbeat_ms / 1000)

    async def read_barrier(self) -> None:
        """See `Consensus.read_barrier`."""
        future: asyncio.Future[None] = self._context.loop.create_future()

        def done(error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(None)

        self.when_readable(done)
        await future

    async def change_members(self, members: tuple[Member, ...]) -> None:
        """See `Consensus.change_members`."""
        voter = self._voter
        if voter is None or not voter.core.is_leader:
            raise NotLeader("another member leads the group", leader=self.leader())
        if voter.is_stopping or not voter.knows_commit:
            raise Conflict("a change of the members is under way, or the leader has just begun: try again")
        check_next(self._context, voter, self._fetches.fetched, members)
        future: asyncio.Future[None] = self._context.loop.create_future()

        def done(outcomes: list[object] | None, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(None)

        voter.propose_stop(next_members(self._context, members), done)
        self._ask_for_sync()
        self._changed()
        try:
            async with asyncio.timeout(CHANGE_TIMEOUT_S):
                await future
        except TimeoutError as error:
            raise Unavailable("the change of the members takes too long: whether it happens is not known") from error

    def yield_leadership(self, to: Collection[str] = ()) -> bool:
        """See `Consensus.yield_leadership`."""
        if self._voter is None or self._closed:
            return False
        was_handed_over = self._voter.hand_over(to)
        self._changed()
        return was_handed_over

    async def snapshot(self, flush: Callable[[], Awaitable[None]]) -> None:
        """See `Consensus.snapshot`."""
        await self._snapshots.snapshot(flush)

    def trim(self, index: int, term: int, done: Callable[[], None]) -> None:
        """The machine has everything up to `index` durably: that is in the journal, synced, before files go."""
        base = SnapshotBase(index, term, self._raft_journal.incarnation, self._raft_journal.members)
        self._snapshots.trim(base, done)

    def snapshot_base(self) -> SnapshotBase:
        """See `Consensus.snapshot_base`."""
        return self._snapshots.base()

    def hold_log(self) -> Callable[[], None]:
        """See `Consensus.hold_log`."""
        return self._snapshots.hold()

    def close(self) -> None:
        """See `Consensus.close`."""
        self._closed = True
        self._end()
