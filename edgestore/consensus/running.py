"""One group at one member: the roles of `roles.py`, one after another, on one log and one state machine.

Rule: whatever happened ends in `_turn`: what is committed is applied, what is new is synced, what is due is sent, and
whoever waits is answered; once a turn of the loop for all messages that came in it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgestore.clock import Clock, Entropy, SystemClock, system_entropy
from edgestore.config import ConsensusConfig
from edgestore.consensus.applying import Applying, NotAppliedError
from edgestore.consensus.context import GroupContext
from edgestore.consensus.core import check_core, harden
from edgestore.consensus.interface import ConsensusStatus, Role, StateMachine
from edgestore.consensus.journal import DivergedError, RaftJournal
from edgestore.consensus.learner import Fetches, Learner
from edgestore.consensus.messages import (
    Append,
    Appended,
    Behind,
    Ended,
    Fetch,
    Fetched,
    Message,
    ReadAnswer,
    ReadAsk,
)
from edgestore.consensus.reads import LeaderReads, Reads
from edgestore.consensus.roles import Roles
from edgestore.consensus.snapshots import Snapshots
from edgestore.consensus.transport import Outbox, RaftPort
from edgestore.consensus.voter import Voter
from edgestore.disk import Journal
from edgestore.errors import Closing, Corrupt, EdgeStoreError
from edgestore.observe import NO_METRICS, Metrics
from edgestore.records import Member

if TYPE_CHECKING:  # a lone node loads none of it
    from edgestore.net import Peers

log = logging.getLogger("edgestore.consensus")

DEFAULTS = ConsensusConfig()
SYSTEM_CLOCK = SystemClock()


class Running(Roles):
    """See the module. `RaftConsensus` is what others see of it."""

    def __init__(
        self,
        journal: Journal,
        machine: StateMachine,
        *,
        member: str,
        group: int = 0,
        peers: Peers | None = None,
        founders: tuple[Member, ...] = (),
        config: ConsensusConfig = DEFAULTS,
        clock: Clock = SYSTEM_CLOCK,
        entropy: Entropy = system_entropy,
        metrics: Metrics = NO_METRICS,
    ) -> None:
        check_core()
        harden()
        self.on_failure: Callable[[BaseException], None] = lambda error: None
        self.on_role_changed: Callable[[ConsensusStatus], None] = lambda status: None
        self._journal, self._machine, self._group, self._metrics = journal, machine, group, metrics
        self._member, self._config = member, config
        self._founders = founders or (Member(member),)
        self._closed = self._is_scheduled = False
        self._failed: BaseException | None = None
        self._port = RaftPort.of(peers) if peers is not None else None
        kept_bytes = config.log_kept_bytes if peers is not None else 0
        raft_journal = self._raft_journal = RaftJournal(journal, group, machine.applied_index, kept_bytes)
        self._check_members()
        if machine.applied_index == 0:
            machine.apply(1, 0, b"")
        applying = self._applying = Applying(raft_journal, machine)
        applying.on_stop_sign = self._on_stop_sign
        outbox = Outbox(self._port, lambda: raft_journal.is_hard_state_synced)
        rng = random.Random(int.from_bytes(entropy(8), "big") if peers is not None else 0)
        loop = asyncio.get_running_loop()
        self._context = GroupContext(
            group,
            member,
            config,
            clock,
            rng,
            loop,
            raft_journal,
            machine,
            applying,
            outbox,
            peers is None,
            self._changed,
        )
        self._voter: Voter | None = None
        self._learner: Learner | None = None
        self._leader_reads = LeaderReads(self._context, lambda: self._voter)
        self._reads = Reads(self._context, self._leader_reads, self.leader)
        self._fetches = Fetches(self._context, self.leader)
        self._snapshots = Snapshots(self._context, journal, self._fetches, self)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at_s = 0.0
        self._told: tuple[object, ...] = ()
        self._committed = 0
        self._started: asyncio.Future[None] | None = None

    def _check_members(self) -> None:
        members = self._raft_journal.members
        if self._port is None and members and [one.member for one in members if one.is_voter] != [self._member]:
            found = ", ".join(known.member for known in members)
            raise Corrupt(
                f"the journal belongs to member {found}, and the data folder says {self._member}: its file `identity` "
                "is of another folder. Restore both from one copy",
                member=self._member,
            )

    async def start(self) -> None:
        """Applies what is known to be committed and takes part. A lone voter leads when this returns."""
        self._started = self._context.loop.create_future()
        if not self._raft_journal.members:
            self._raft_journal.found(self._founders)
        try:
            self._applying.run()
        except NotAppliedError as error:
            raise error.__cause__ or error from error
        self._begin_role(was_restarted=True)
        if self._port is not None:
            self._port.join(self._group, self)
        self._turn()
        if self._voter is not None and not self._voter.others:
            await self._started

    # --- what others see --------------------------------------------------------------------------------------

    def status(self) -> ConsensusStatus:
        """See `Consensus.status`."""
        voter, raft_journal, role = self._voter, self._raft_journal, self.role
        matched = {}
        if voter is not None and role is Role.LEADER:
            matched = {name: voter.core.matched(name) for name in voter.others}
        return ConsensusStatus(
            is_leader=role is Role.LEADER,
            term=voter.core.term if voter is not None else raft_journal.term,
            last_index=raft_journal.last_index,
            synced_index=raft_journal.synced_index,
            committed_index=self._applying.commit_index,
            applied_index=self._machine.applied_index,
            role=role,
            leader=self.leader(),
            incarnation=raft_journal.incarnation,
            voters=tuple(one.member for one in raft_journal.members if one.is_voter),
            matched=matched,
            fetched={name: fetched[0] for name, fetched in self._fetches.fetched.items()},
        )

    # --- what happens ---------------------------------------------------------------------------------

    def on_message(self, sender: str, message: Message) -> None:
        """See `Listener`."""
        if self._closed or self._failed is not None:
            return
        try:
            self._take(sender, message)
        except DivergedError as error:
            self.broken(error)
        except EdgeStoreError as error:  # the journal takes no record now: it is as if the message were lost
            log.warning("message-lost group=%d member=%s error=%s", self._group, sender, error)
        if not isinstance(message, Append | Appended) or self._has_work():
            self._changed()

    def _take(self, sender: str, message: Message) -> None:
        incarnation = self._raft_journal.incarnation
        if isinstance(message, ReadAnswer):
            self._reads.on_answer(message)
        elif message.incarnation > incarnation:
            self._catch_up(sender)
        elif isinstance(message, ReadAsk):
            place = (self._group, incarnation, 0, message.number)
            send = self._context.outbox.send
            self._leader_reads.ask(lambda index: send(sender, ReadAnswer(*place, index)))
            if self._voter is not None and self._voter.replication is not None:
                self._voter.replication.wait_for(self._applying.commit_index)
        elif message.incarnation < incarnation:
            if not isinstance(message, Ended):
                self._context.outbox.send(sender, Ended(self._group, incarnation, 0, self._applying.applied_index))
        elif self._voter is None:
            return
        elif isinstance(message, Behind):
            if sender in self._voter.others and self._voter.hears(sender, message.term):
                self._snapshots.begin(sender, message.first_index)
        else:
            self._voter.on_message(sender, message)

    async def on_fetch(self, sender: str, fetch: Fetch) -> Fetched:
        """See `Listener`."""
        if self._closed or self._failed is not None:
            raise Closing("the node is closing")
        return await self._fetches.serve(sender, fetch)

    def on_connected(self, member: str) -> None:
        """See `Listener`."""
        if self._voter is not None and self._voter.replication is not None:
            self._voter.replication.connected(member)
            self._changed()

    def _has_work(self) -> bool:
        """Whether a turn would find anything new: most heartbeats and their answers say only that all is as it was."""
        raft_journal, applying, voter = self._raft_journal, self._applying, self._voter
        return (
            raft_journal.is_dirty
            or applying.commit_index != self._committed
            or applying.applied_index < min(applying.commit_index, raft_journal.synced_index)
            or self._reads.is_waiting
            or self._leader_reads.is_waiting
            or (voter is not None and voter.replication is not None and voter.replication.has_work)
            or self._telling() != self._told
        )

    def _changed(self) -> None:
        if not (self._is_scheduled or self._closed):
            self._is_scheduled = True
            self._context.loop.call_soon(self._scheduled_turn)

    def _scheduled_turn(self) -> None:
        self._is_scheduled = False
        self._turn()

    def _turn(self) -> None:
        if self._closed or self._failed is not None:
            return
        before = self._applying.applied_index
        if self._is_led:
            self._ask_for_sync()  # first: the leader waits for it
        try:
            self._advance()
        except (NotAppliedError, DivergedError) as error:
            self.broken(error)
            return
        except EdgeStoreError as error:  # the journal takes no record now
            log.warning("turn-failed group=%d error=%s", self._group, error)
        self._metrics.count("consensus_entries_total", self._applying.applied_index - before)
        self._snapshots.forget_applied(self._voter)
        if self._port is not None:
            self._answer()  # a leader's messages leave before its own sync begins: their way is the longer one
        self._ask_for_sync()

    def _advance(self) -> None:
        if self._voter is None:
            self._applying.run()
            return
        self._voter.core._onTick()
        if self._voter is not None:
            self._voter.settle()

    def _answer(self) -> None:
        """What leaves at the end of a turn, and who is told."""
        voter = self._voter
        if voter is not None and voter.replication is not None:
            voter.replication.flush()
        self._leader_reads.advance()
        self._reads.advance()
        if self._applying.commit_index > self._committed:
            self._committed = self._applying.commit_index
            self._fetches.advance()
        self._tell_role()

    def _telling(self) -> tuple[object, ...]:
        """Who leads, as others are told of it."""
        voter = self._voter
        term = voter.core.term if voter is not None else self._raft_journal.term
        knows = voter is not None and voter.knows_commit
        return self.role, self.leader(), term, self._raft_journal.incarnation, knows

    def _tell_role(self) -> None:
        told = self._telling()
        if told == self._told:
            return
        leader_before = self._told[1] if self._told else ""
        self._told = told
        self._arm(self._context.loop.time())
        if told[-1] or told[1] != leader_before:
            self._context.loop.call_soon(self._reads.leader_changed)
        self._context.loop.call_soon(lambda: None if self._closed else self.on_role_changed(self.status()))

    def _ask_for_sync(self) -> None:
        """At once where nothing else can go with it, nor before it."""
        if self._raft_journal.is_dirty:
            at_once = self._is_led and self._port is not None and self._port.is_alone
            self._raft_journal.sync(self._synced, at_once=at_once)

    @property
    def _is_led(self) -> bool:
        """Whether another member leads, if anybody does. A lone voter is about to."""
        voter = self._voter
        return self._port is not None and (voter is None or (bool(voter.others) and not voter.core.is_leader))

    def _synced(self) -> None:
        if self._closed or self._failed is not None:
            return
        self._context.outbox.release()
        if self._voter is not None and self._voter.synced():
            self._changed()  # the acknowledgement leaves first
        else:
            self._turn()
        if self._started is not None and not self._started.done():
            self._started.set_result(None)

    def broken(self, error: Exception) -> None:
        """Entries apply in order, so nothing after this one can: the member stops and answers nothing more."""
        self._failed = error
        log.critical("apply-failed error=%s", error)
        self._end()
        if self._started is not None and not self._started.done():
            self._started.set_exception(error.__cause__ or error)
        self.on_failure(error)

    # --- time -----------------------------------------------------------------------------------------

    def _arm(self, at_s: float) -> None:
        """The timer of a group that has others; the earliest counts."""
        if self._port is None or self._closed or (self._timer is not None and self._timer_at_s <= at_s):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at_s = at_s
        self._timer = self._context.loop.call_at(at_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._closed or self._failed is not None:
            return
        again_s = self._context.loop.time() + 3600.0
        if self._voter is not None:
            try:
                again_s = self._voter.tick()
            except EdgeStoreError as error:
                log.warning("tick-failed group=%d error=%s", self._group, error)
                again_s = self._context.loop.time() + self._config.election_min_ms / 1000
        if self._reads.is_waiting:
            self._reads.tick()
            again_s = min(again_s, self._context.loop.time() + self._config.heartbeat_ms / 1000)
        self._arm(again_s)
        if self._has_work():
            self._changed()

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._learner is not None:
            self._learner.stop()
        if self._port is not None:
            self._port.leave(self._group)
        self._snapshots.close()
        self._reads.close()
        self._fetches.advance()
