"""A member without a vote, or a voter that missed the end of its incarnation: fetches what is committed, applies it.

Rule: what is fetched follows on what this member has applied, so its log is cut only where it contradicts what is
committed; a learner says nothing about anybody else's log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from edgestore.consensus.context import GroupContext
from edgestore.consensus.journal import DivergedError
from edgestore.consensus.messages import Fetch, Fetched
from edgestore.consensus.transport import RaftPort
from edgestore.errors import EdgeStoreError, TooBusy, Unavailable

log = logging.getLogger("edgestore.consensus")

AGAIN_S = 0.05
AGAIN_MAX_S = 1.0


class Learner:
    """One task. `source`: whom to ask first."""

    def __init__(
        self,
        context: GroupContext,
        port: RaftPort,
        install: Callable[[str], Awaitable[None]],
        broken: Callable[[Exception], None],
        source: str = "",
    ) -> None:
        self._context, self._port, self._install, self._broken = context, port, install, broken
        self.leader = ""
        self.voters: tuple[str, ...] = tuple(one.member for one in context.raft_journal.members if one.is_voter)
        self._source = source
        self._failures = 0
        self._verified_index = context.applying.applied_index
        self._committed_index = 0
        self._task = context.loop.create_task(self._run())

    def stop(self) -> None:
        """It has a vote now, or the group is closed."""
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            source = self._pick()
            try:
                if source:
                    await self._turn(source)
                    self._failures = 0
                    continue
            except DivergedError as error:
                self._broken(error)
                return
            except EdgeStoreError as error:
                log.debug("fetch-failed member=%s error=%s", source, error)
            self._source, self.leader = "", ""
            self._failures += 1
            await asyncio.sleep(min(AGAIN_S * 1.5 ** min(self._failures, 16), AGAIN_MAX_S))

    def _pick(self) -> str:
        """The source that it was told, the leader, a voter, anybody: in turn, where one does not answer."""
        wanted = [name for name in (self.leader, self._source) if name]
        others = [*self.voters, *self._port.known()]
        connected = [name for name in others if self._port.is_connected(name)]
        able = [name for name in (*wanted, *connected, *others) if name != self._context.member]
        able = list(dict.fromkeys(able))
        return able[self._failures % len(able)] if able else ""

    def go_on(self) -> None:
        """What came in one answer is committed past a stop-sign too, once that is applied."""
        self._context.applying.commit(min(self._committed_index, self._last_index()))

    def _last_index(self) -> int:
        return self._context.raft_journal.last_index

    async def _turn(self, source: str) -> None:
        context = self._context
        self._verified_index = max(context.applying.applied_index, min(self._verified_index, self._last_index()))
        index = self._verified_index
        term = context.raft_journal.term_at(index)
        fetch = Fetch(context.group, context.incarnation, index, term or 0)
        answer = await self._port.fetch(source, fetch, 2 * context.config.fetch_wait_ms / 1000)
        if answer.incarnation < context.incarnation:
            raise Unavailable("it has not got so far: others may")
        self._source, self.leader = source, answer.leader
        self.voters = answer.voters or self.voters
        if answer.first_index > index + 1:
            await self._install(source)
            return
        if answer.first_index <= index:
            raise Unavailable("it answered another question")
        if context.raft_journal.term_at(index) != term:
            self._verified_index = context.applying.applied_index
            return  # a snapshot or a stop-sign came in between
        if not answer.entries and not answer.leader and answer.commit_index <= index:
            raise Unavailable("it knows no leader and has nothing new: others may")
        matched = context.raft_journal.merge((index, term or 0), answer.entries, context.applying.commit_index)
        if matched == index and answer.entries:
            raise TooBusy("the journal takes no more just now")
        self._verified_index = matched
        self._committed_index = min(answer.commit_index, matched)
        self.go_on()
        context.changed()


class Fetches:
    """What a member answers to those that fetch, whatever its role: it has what is committed."""

    def __init__(self, context: GroupContext, leader: Callable[[], str]) -> None:
        self._context, self._leader = context, leader
        self._waiting: list[asyncio.Future[None]] = []
        self.fetched: dict[str, tuple[int, int]] = {}
        """By member: what it had when it last asked, and when that was; who asked last stands last. Of more members
        than `fetches_max`, those that did not ask for longest are forgotten."""

    async def serve(self, member: str, fetch: Fetch) -> Fetched:
        """Waits for something behind the entry named, a while."""
        self.fetched.pop(member, None)
        self.fetched[member] = (fetch.previous_index, self._context.now_ms())
        if len(self.fetched) > self._context.config.fetches_max:
            del self.fetched[next(iter(self.fetched))]
        if self._has_nothing(fetch):
            await self._wait()
        context, raft_journal = self._context, self._context.raft_journal
        voters = tuple(one.member for one in raft_journal.members if one.is_voter)
        place = (context.incarnation, voters, self._leader(), context.applying.commit_index)
        previous = fetch.previous_index
        if previous < raft_journal.first_index - 1 or previous > context.applying.commit_index:
            is_behind = previous < raft_journal.first_index - 1
            return Fetched(*place, raft_journal.first_index if is_behind else previous + 1)
        known = raft_journal.term_at(previous)
        if known != fetch.previous_term:
            raise DivergedError(f"{member} has applied entry {previous} with term {fetch.previous_term}, not {known}")
        entries = raft_journal.after(previous, context.config.append_bytes_max, context.applying.commit_index)
        return Fetched(*place, previous + 1, tuple((entry[2], entry[0]) for entry in entries))

    def _has_nothing(self, fetch: Fetch) -> bool:
        return fetch.previous_index >= self._context.applying.commit_index

    async def _wait(self) -> None:
        if len(self._waiting) >= self._context.config.fetches_max:
            raise TooBusy("too many members wait here for entries (consensus.fetches_max)")
        future: asyncio.Future[None] = self._context.loop.create_future()
        self._waiting.append(future)
        try:
            async with asyncio.timeout(self._context.config.fetch_wait_ms / 1000):
                await future
        except TimeoutError:
            pass
        finally:
            if future in self._waiting:
                self._waiting.remove(future)

    def advance(self) -> None:
        """More is committed, or the incarnation is another."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
