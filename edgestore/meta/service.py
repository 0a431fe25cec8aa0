"""The one door to the catalog: callback style for the fast lane, coroutines for the rest.

Rule: an operation is answered after its entry is committed and applied; what waits is bounded by `meta.proposals_max`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

from edgestore.catalog import State, Table, commands
from edgestore.clock import Clock, Entropy
from edgestore.config import ConsensusConfig, MetaConfig
from edgestore.consensus import ConsensusStatus, RaftConsensus, Readable, machine_folder
from edgestore.disk import Files, Journal, OrderedStore
from edgestore.errors import Closing, Unavailable
from edgestore.meta.batches import Done, Header
from edgestore.meta.flushes import LATER, Flushes
from edgestore.meta.log_time import LogTime
from edgestore.meta.machine import CatalogMachine
from edgestore.meta.proposals import NOT_KNOWN, Proposals
from edgestore.meta.setup import LONE, GroupSetup
from edgestore.meta.snapshots import SnapshotReceiver, SnapshotSender, remove_others
from edgestore.meta.watches import Watches
from edgestore.meta.wire import MetaPort
from edgestore.observe import NO_METRICS, Metrics
from edgestore.records import SITE_TENANT, Member

log = logging.getLogger("edgestore.meta")

ARRIVE_AGAIN_S = 0.05
WORKER_S = 5.0
"""So long an end waits for a flush that is under way: a disk that hangs holds it up no longer."""


class Meta:
    """Proposals and reads of one group."""

    watch: Callable[[Iterable[Table], Callable[[int], None]], Callable[[], None]]
    """See `Watches.watch`."""
    submit: Callable[[int, commands.Command, Done], None]
    """Proposes for a tenant; `done(value, error)` after commit and apply. Raises TooBusy or Unavailable at once."""
    flush: Callable[[], Coroutine[Any, Any, None]]
    """See `Flushes.flush`."""

    def __init__(
        self,
        files: Files,
        journal: Journal,
        store: OrderedStore,
        config: MetaConfig,
        consensus_config: ConsensusConfig,
        *,
        clock: Clock,
        entropy: Entropy,
        member: str,
        metrics: Metrics = NO_METRICS,
        setup: GroupSetup = LONE,
    ) -> None:
        self._config, self._entropy, self._metrics = config, entropy, metrics
        self._loop = asyncio.get_running_loop()
        group, peers = setup.group, setup.peers
        self._journal, self._group, self._clock = journal, group, clock
        self._worker = files.worker("flush")
        session = int.from_bytes(entropy(8), "big") >> 1 or 1
        folder = machine_folder(journal, group)
        machine = self._machine = CatalogMachine(
            files,
            self._worker,
            store,
            folder,
            setup.open_folder,
            group=group,
            cache_bytes=config.row_cache_bytes,
            own_session=session if peers is not None else 0,
        )
        watches = Watches()
        machine.on_changed, self.watch = watches.changed, watches.watch
        self._time = LogTime(clock, machine.applier.site.log_time_ms)
        self._consensus = self._new_consensus(consensus_config, setup, member)
        self._port = MetaPort.of(peers) if peers is not None else None
        self._failed: BaseException | None = None
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._flushes = self._new_flushes()
        self.flush = self._flushes.flush
        self._proposals = self._new_proposals(consensus_config, session)
        self.submit = self._proposals.submit
        self._sender: SnapshotSender | None = None
        if self._port is not None:
            self._join(files, self._port)
        self._told_role: Callable[[], None] = lambda: None
        self._ready: asyncio.Task[None] | None = None
        self.state: State = machine.state
        metrics.watch("meta_proposals_waiting", lambda: self._proposals.waiting)

    def _new_consensus(self, limits: ConsensusConfig, setup: GroupSetup, member: str) -> RaftConsensus:
        consensus = RaftConsensus(
            self._journal,
            self._machine,
            member=member,
            group=setup.group,
            peers=setup.peers,
            founders=setup.founders,
            config=limits,
            clock=self._clock,
            entropy=self._entropy,
            metrics=self._metrics,
        )
        consensus.on_failure = self._stop_node
        return consensus

    def _new_flushes(self) -> Flushes:
        return Flushes(
            self._consensus,
            self._machine,
            self._journal,
            self._worker,
            self._config,
            stopped=self._stopped,
            on_failure=self._stop_node,
            metrics=self._metrics,
        )

    def _new_proposals(self, limits: ConsensusConfig, session: int) -> Proposals:
        return Proposals(
            self._consensus,
            self._config,
            limits,
            session=session,
            group=self._group,
            port=self._port,
            header=self._header,
            born_ms=self.log_time_ms if self._port is not None else self._time.now_ms,
            answered=self._flushes.applied,
            metrics=self._metrics,
        )

    def _join(self, files: Files, port: MetaPort) -> None:
        """What a node with peers does beside: hears outcomes, sends and takes snapshots."""
        machine = self._machine
        machine.on_own_outcome = self._proposals.on_own_outcome
        machine.on_applied = self._flushes.applied
        machine.on_switched = self._switched
        self._consensus.on_role_changed = self._role_changed
        machine.receiver = SnapshotReceiver(
            files, self._worker, port, self._config, group=self._group, entropy=self._entropy
        )
        self._sender = SnapshotSender(
            files,
            self._worker,
            lambda: machine.store,
            self._consensus,
            self._config,
            group=self._group,
            entropy=self._entropy,
        )
        self._sender.join(port)
        remove_others(files, self._group, machine.folder)

    @classmethod
    async def open(
        cls,
        files: Files,
        journal: Journal,
        store: OrderedStore,
        config: MetaConfig,
        consensus_config: ConsensusConfig,
        *,
        clock: Clock,
        entropy: Entropy,
        member: str,
        metrics: Metrics = NO_METRICS,
        setup: GroupSetup = LONE,
    ) -> Meta:
        """Replays what is here and founds the site at its first start. Raises Corrupt where journal and catalog differ.

        `store` is the one in `consensus.machine_folder(journal, group)`; a snapshot may put another in its place. With
        peers the group may have other members: it is open without them, and `ready` waits for a quorum.
        """
        meta = cls(
            files,
            journal,
            store,
            config,
            consensus_config,
            clock=clock,
            entropy=entropy,
            member=member,
            metrics=metrics,
            setup=setup,
        )
        failed, journal.on_failure = journal.on_failure, meta.fail  # until it is open, its caller cannot tell it
        try:
            await meta._unless_stopped(meta._begin())
        except BaseException:
            meta._worker.close()
            raise
        finally:
            journal.on_failure = failed
        return meta

    async def _begin(self) -> None:
        await self._consensus.start()
        # Not before: the journal may hold entries that are younger than what the catalog had flushed.
        self._time.resume(self._machine.applier.site.log_time_ms)
        if self._port is None:
            await self._arrive()
        else:
            self._ready = self._loop.create_task(self._arrive_in_time())
        try:
            await self.flush()
        except LATER as error:  # a full disk must be opened, or nothing could be deleted
            log.warning("flush-at-start-failed error=%s", error)
            self._flushes.postpone()

    async def _arrive(self) -> None:
        """Founds the site, unless it was founded."""
        if not self._machine.applier.site.site_id:
            incarnation = int.from_bytes(self._entropy(4), "big") >> 1
            await self.propose(SITE_TENANT, commands.FoundSite(self._entropy(16), incarnation))

    async def _arrive_in_time(self) -> None:
        """There is a quorum, and the catalog is as new as what was acknowledged before."""
        while True:
            try:
                await self._consensus.read_barrier()
                if self._consensus.is_leader:
                    await self._arrive()
                if self._machine.applier.site.site_id:
                    return
            except LATER as error:
                log.debug("arrival-postponed group=%d reason=%s", self._group, error)
            await asyncio.sleep(ARRIVE_AGAIN_S)

    async def ready(self) -> None:
        """Returns at the first read barrier of this start, on a site that is founded. Raises what stopped the node."""
        if self._ready is not None:
            await asyncio.wait({self._ready, self._stopped}, return_when=asyncio.FIRST_COMPLETED)
        if self._failed is not None:
            raise Unavailable("the node is stopping: send it to another or try again later") from self._failed

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Waits for `work`, and no longer than the disk works. Raises what stopped the node."""
        task = self._loop.create_task(work)
        try:
            await asyncio.wait({task, self._stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                task.cancel()
        if self._failed is not None:
            await asyncio.wait({task})
            failure = None if task.cancelled() else task.exception()
            raise self._failed from failure
        task.result()

    @property
    def applied_index(self) -> int:
        """Index of the last entry that `state` contains."""
        return self._machine.applied_index

    async def step_log_time(self, to_ms: int) -> None:
        """The operator's clock is right, and log time lags behind it (rule 9). Raises BadRequest for a step back."""
        self._time.step(to_ms)
        await self.propose(SITE_TENANT, commands.Tick())

    def log_time_ms(self) -> int:
        """Log time now: what expiry and retention are judged by (rule 9). Who does not lead goes on from the log."""
        if self._port is not None and not self._consensus.is_leader:
            self._time.follow(self._machine.applier.site.log_time_ms)
        return self._time.now_ms()

    def _header(self) -> Header:
        """Of an entry that this node makes now."""
        site = self._machine.applier.site
        log_time_ms = max(self._time.now_ms(), site.log_time_ms)
        return site.feature_level, self._group, self._consensus.incarnation, log_time_ms

    def status(self) -> ConsensusStatus:
        """Where the group stands."""
        return self._consensus.status()

    async def change_members(self, members: tuple[Member, ...]) -> None:
        """Names the next voters (rule 4). Raises NotLeader, Conflict, TooBusy, Unavailable."""
        await self._consensus.change_members(members)

    def yield_leadership(self, to: tuple[str, ...]) -> bool:
        """Hands the leadership to one of these that has caught up; False where none has just now."""
        return self._consensus.yield_leadership(to)

    def can_read_now(self) -> bool:
        """Whether `state` may be read without waiting."""
        return self._failed is None and self._consensus.can_read_now()

    def when_readable(self, done: Readable) -> None:
        """`read_barrier` without a task: `done(None)`, or `done(Unavailable)` where that takes too long."""
        if self._failed is not None:
            done(Unavailable("the node is stopping: send it to another or try again later"))
        else:
            self._consensus.when_readable(done)

    async def read_barrier(self) -> None:
        """Returns when `state` contains everything acknowledged before. Raises Unavailable where nobody says so in
        time."""
        try:
            async with asyncio.timeout(self._config.propose_timeout_s):
                await self._consensus.read_barrier()
        except TimeoutError as error:
            raise Unavailable("no leader answered in time: try again", retry_after_s=0.5) from error

    # --- proposing -------------------------------------------------------------------------------------

    async def propose(self, tenant: int, command: commands.Command) -> Any:
        """`submit` as a coroutine: returns the outcome or raises its error."""
        future: asyncio.Future[Any] = self._loop.create_future()

        def done(value: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)

        self.submit(tenant, command, done)
        try:
            async with asyncio.timeout(self._config.propose_timeout_s):
                return await future
        except TimeoutError as error:
            raise Unavailable(NOT_KNOWN) from error

    def _role_changed(self, status: ConsensusStatus) -> None:
        if status.is_leader and self._failed is None:
            self._time.follow(self._machine.applier.site.log_time_ms)
        self._proposals.send_again()
        self._told_role()

    def on_role_changed(self, changed: Callable[[], None]) -> None:
        """Calls back when another leads, or others vote."""
        self._told_role = changed

    def _switched(self) -> None:
        """The catalog is a snapshot: whoever waits for an entry in it asks again."""
        self.state = self._machine.state
        self._proposals.send_again()

    def _stop_node(self, error: BaseException) -> None:
        """What cannot go on, for another reason than the journal: the node hears of it where it hears of the disk."""
        self.fail(error)
        self._journal.on_failure(error)

    def fail(self, error: BaseException) -> None:
        """The disk failed, or the node may not go on: nothing that waits is acknowledged, and nothing more is taken."""
        if self._failed is not None:
            return
        self._failed = error
        self._stopped.set_result(None)
        refusal = Unavailable("the node is stopping: send it to another or try again later")
        refusal.__cause__ = error
        unknown = Unavailable(f"the node stops, and whether the operation happened is not known: {error}")
        self._proposals.fail(refusal, unknown)

    @property
    def store(self) -> OrderedStore:
        """The catalog's store: a snapshot may have put it in the place of the one that `open` was given."""
        return self._machine.store

    async def close(self) -> None:
        """Takes no more, answers what is under way, flushes, and stops."""
        if self._proposals.refusal is None:
            self._proposals.refusal = Closing("the node is closing: send it again later")
        try:
            async with asyncio.timeout(self._config.propose_timeout_s):
                while self._waits_for_answers() and self._failed is None:
                    await asyncio.sleep(0.005)
                if self._failed is None:
                    await self.flush()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(WORKER_S):
                    await self._worker.run(lambda: None)  # behind what still uses the store: it is closed next
            self._end()

    def _waits_for_answers(self) -> bool:
        """Without a leader nothing is answered."""
        return self._flushes.is_under_way or bool(self._proposals.waiting and self._consensus.leader())

    def _end(self) -> None:
        if self._ready is not None:
            self._ready.cancel()
        if self._sender is not None:
            self._sender.close()
        if self._port is not None:
            self._port.leave(self._group)
        self._consensus.close()
        self.fail(self._failed or Closing("the node is closing"))
        self._worker.close()
