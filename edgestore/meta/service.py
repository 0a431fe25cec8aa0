"""The one door to the catalog: callback style for the fast lane, coroutines for the rest.

Rule: an operation is answered after its entry is committed and applied; what waits is bounded by `meta.proposals_max`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import msgspec

from edgestore.catalog import WATCHED, Applier, State, Table, commands
from edgestore.clock import Clock, Entropy
from edgestore.config import ConsensusConfig, MetaConfig
from edgestore.consensus import ConsensusStatus, RaftConsensus, Readable
from edgestore.disk import Files, Journal, OrderedStore
from edgestore.errors import BadRequest, Closing, EdgeStoreError, TooBusy, Unavailable
from edgestore.meta.log_time import LogTime
from edgestore.observe import NO_METRICS, Metrics
from edgestore.records import SITE_TENANT

log = logging.getLogger("edgestore.meta")

Done = Callable[[Any, BaseException | None], None]
OPERATION_OVERHEAD_BYTES = 512
FLUSH_AGAIN_S = 1.0
WATCHES_MAX = 64
LATER = (Unavailable, TimeoutError)
"""A full disk, a full journal, a slow one: the flush is tried again; whatever else fails it stops the node."""
UNENCODABLE = (ValueError, OverflowError, TypeError)


class _Waiting(msgspec.Struct):
    """One operation on its way."""

    operation: commands.Operation
    done: Done
    size_bytes: int


class Meta:
    """Proposals and reads of one group."""

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
    ) -> None:
        self._config, self._limits, self._entropy, self._metrics = config, consensus_config, entropy, metrics
        self._loop = asyncio.get_running_loop()
        self._journal, self._store = journal, store
        self._worker = files.worker("flush")
        self._applier = Applier(store, cache_bytes=config.row_cache_bytes)
        self._applier.on_changed = self._changed
        self._watches: list[tuple[frozenset[Table], Callable[[int], None]]] = []
        self._clock = clock
        self._time: LogTime
        self._consensus = RaftConsensus(journal, self._applier, member=member, metrics=metrics)
        self._consensus.on_failure = self._stop_node
        self._session = int.from_bytes(entropy(8), "big") >> 1
        self._sequence = 0
        self._queue: deque[_Waiting] = deque()
        self._under_way: deque[list[_Waiting]] = deque()
        self._waiting = 0
        self._scheduled = False
        self._unflushed = 0
        self._flush: asyncio.Task[None] | None = None
        self._flush_again_s = 0.0
        self._failed: BaseException | None = None
        self._stopped: asyncio.Future[None] = self._loop.create_future()
        self._closing = False
        self.state: State = self._applier.state
        metrics.watch("meta_proposals_waiting", lambda: self._waiting)

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
    ) -> Meta:
        """Replays the journal and founds the site at its first start. Raises Corrupt where journal and catalog
        differ."""
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
        self._time = LogTime(self._clock, self._applier.site.log_time_ms)
        if not self._applier.site.site_id:
            incarnation = int.from_bytes(self._entropy(4), "big") >> 1
            await self.propose(SITE_TENANT, commands.FoundSite(self._entropy(16), incarnation))
        try:
            await self.flush()
        except LATER as error:  # a full disk must be opened, or nothing could be deleted
            log.warning("flush-at-start-failed error=%s", error)
            self._flush_again_s = self._loop.time() + FLUSH_AGAIN_S

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
        return self._applier.applied_index

    def watch(self, tables: Iterable[Table], changed: Callable[[int], None]) -> Callable[[], None]:
        """Calls `changed(applied index)` after each entry that changed one of the tables, before its proposer hears.

        So a cache that reads anew there is never behind what was acknowledged. Nothing is queued: a watcher that falls
        behind reads the newest state. Only `catalog.WATCHED` can be watched. Returns what ends the watch.
        """
        watched = frozenset(tables)
        if not watched <= WATCHED or len(self._watches) >= WATCHES_MAX:
            raise BadRequest(f"at most {WATCHES_MAX} watches, of {', '.join(sorted(table.name for table in WATCHED))}")
        watch = (watched, changed)
        self._watches.append(watch)
        return partial(self._watches.remove, watch)

    def _changed(self, index: int, tables: frozenset[Table]) -> None:
        for watched, changed in tuple(self._watches):
            if watched & tables:
                try:
                    changed(index)
                except Exception:
                    log.exception("watcher-failed index=%d", index)

    async def step_log_time(self, to_ms: int) -> None:
        """The operator's clock is right, and log time lags behind it (rule 9). Raises BadRequest for a step back."""
        self._time.step(to_ms)
        await self.propose(SITE_TENANT, commands.Tick())

    def log_time_ms(self) -> int:
        """Log time now: what expiry and retention are judged by (rule 9)."""
        return self._time.now_ms()

    def status(self) -> ConsensusStatus:
        """Where the group stands."""
        return self._consensus.status()

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
        """Returns when `state` contains everything acknowledged before."""
        async with asyncio.timeout(self._config.propose_timeout_s):
            await self._consensus.read_barrier()

    # --- proposing -------------------------------------------------------------------------------------

    def submit(self, tenant: int, command: commands.Command, done: Done) -> None:
        """Proposes; `done(value, error)` after commit and apply. Raises TooBusy or Unavailable at once."""
        if self._waiting >= self._config.proposals_max:
            raise TooBusy("too many operations wait for their commit (meta.proposals_max): slow down")
        if self._failed is not None:
            raise Unavailable("the node is stopping: send it to another or try again later") from self._failed
        if self._closing:
            raise Closing("the node is closing: send it again later")
        self._sequence += 1
        self._waiting += 1
        operation = commands.Operation(
            self._session, self._sequence, self._settled(), self._time.now_ms(), tenant, command
        )
        self._queue.append(_Waiting(operation, done, _size_bytes(command)))
        if not self._scheduled and len(self._under_way) < self._limits.entries_in_flight_max:
            self._scheduled = True
            self._loop.call_soon(self._pump)  # what this turn of the loop still brings goes with it

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
            message = "the commit takes too long: whether it happened is not known yet; read, then decide"
            raise Unavailable(message) from error

    def _settled(self) -> int:
        """Every sequence below has a known outcome."""
        if self._under_way:
            return self._under_way[0][0].operation.sequence
        return self._queue[0].operation.sequence if self._queue else self._sequence

    def _pump(self) -> None:
        self._scheduled = False
        while self._queue and len(self._under_way) < self._limits.entries_in_flight_max and self._failed is None:
            batch, size = [self._queue.popleft()], 0
            size = batch[0].size_bytes
            while self._queue and len(batch) < self._limits.entry_operations_max:
                size += self._queue[0].size_bytes
                if size > self._limits.entry_bytes_max:
                    break
                batch.append(self._queue.popleft())
            payload = self._encoded(batch)
            if payload is not None:
                self._under_way.append(batch)
                self._consensus.propose(payload, partial(self._answered, batch))

    def _encoded(self, batch: list[_Waiting]) -> bytes | None:
        """The entry of a batch; what cannot be encoded leaves it and is answered. None: nothing is left."""
        now_ms = self._time.now_ms()
        try:
            return _encode(now_ms, batch)
        except UNENCODABLE:
            refused = [one for one in batch if not _is_encodable(now_ms, one)]
        for one in refused:
            batch.remove(one)
        self._waiting -= len(refused)
        for one in refused:
            _answer(one, None, BadRequest("the operation has a value that cannot be stored (lone surrogates, 2**64)"))
        return _encode(now_ms, batch) if batch else None

    def _answered(self, batch: list[_Waiting], outcomes: list[object] | None, error: BaseException | None) -> None:
        if self._failed is not None:
            return  # `fail` has answered all
        self._under_way.remove(batch)
        self._waiting -= len(batch)
        self._unflushed += len(batch)
        self._metrics.count("meta_operations_total", len(batch))
        if error is not None or outcomes is None:
            for one in batch:
                _answer(one, None, error or Unavailable("the entry was not applied"))
        else:
            for one, outcome in zip(batch, outcomes, strict=True):
                if isinstance(outcome, EdgeStoreError):
                    _answer(one, None, outcome)
                else:
                    _answer(one, outcome, None)
        if self._queue and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._pump)
        self._flush_when_due()

    def _stop_node(self, error: BaseException) -> None:
        """What cannot go on, for another reason than the journal: the node hears of it where it hears of the disk."""
        self.fail(error)
        self._journal.on_failure(error)

    def fail(self, error: BaseException) -> None:
        """The disk failed: nothing that waits is acknowledged, and nothing more is taken."""
        if self._failed is not None:
            return
        self._failed = error
        self._stopped.set_result(None)
        stopped = Unavailable("the disk failed and the node stops: whether the operation happened is not known")
        waiting = [one for batch in self._under_way for one in batch] + list(self._queue)
        self._under_way.clear()
        self._queue.clear()
        self._waiting = 0
        for one in waiting:
            _answer(one, None, stopped)

    # --- flushing --------------------------------------------------------------------------------------

    def _flush_when_due(self) -> None:
        """Bounds what a start has to replay, in operations and in journal bytes."""
        if self._flush is not None or self._failed is not None or self._loop.time() < self._flush_again_s:
            return
        many = self._unflushed > self._config.flush_operations_max
        if self._journal.is_short:
            self._flush_again_s = self._loop.time() + FLUSH_AGAIN_S  # should it not help
        if many or self._journal.is_short or self._journal.old_bytes() > self._config.flush_journal_bytes_max:
            self._flush = self._loop.create_task(self.flush())
            self._flush.add_done_callback(self._flushed)

    def _flushed(self, task: asyncio.Task[None]) -> None:
        self._flush = None
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("flush-failed error=%s", error)
        if isinstance(error, LATER):
            self._flush_again_s = self._loop.time() + FLUSH_AGAIN_S
        elif self._failed is None:
            self._stop_node(error)

    async def flush(self) -> None:
        """Makes the catalog durable, then trims the journal up to the index read before (rule 2)."""
        unflushed = self._unflushed
        snapshot = self._loop.create_task(self._consensus.snapshot(self._make_durable))
        try:
            await asyncio.wait({snapshot, self._stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            snapshot.cancel()
        if snapshot.done():
            snapshot.result()
            self._unflushed -= unflushed
            self._metrics.count("meta_flushes_total")

    async def _make_durable(self) -> None:
        await self._worker.run(self._store.flush)

    async def close(self) -> None:
        """Takes no more, answers what is under way, flushes, and stops."""
        self._closing = True
        try:
            async with asyncio.timeout(self._config.propose_timeout_s):
                while (self._waiting or self._flush is not None) and self._failed is None:
                    await asyncio.sleep(0.005)
                if self._failed is None:
                    await self.flush()
        finally:
            self._consensus.close()
            self.fail(self._failed or Closing("the node is closing"))
            self._worker.close()


def _encode(now_ms: int, batch: list[_Waiting]) -> bytes:
    operations = tuple(one.operation for one in batch)
    return commands.encode_entry(commands.Entry(commands.FEATURE_LEVEL, 0, 0, now_ms, operations))


def _is_encodable(now_ms: int, one: _Waiting) -> bool:
    try:
        _encode(now_ms, [one])
    except UNENCODABLE:
        return False
    return True


def _answer(one: _Waiting, value: Any, error: BaseException | None) -> None:
    """A caller that raises is its own affair: the others of its entry are answered."""
    try:
        one.done(value, error)
    except Exception:
        log.exception("callback-failed sequence=%d", one.operation.sequence)


def _size_bytes(command: commands.Command) -> int:
    """About what the command adds to its entry."""
    if isinstance(command, commands.PutObject):
        return OPERATION_OVERHEAD_BYTES + len(command.content.inline) + 64 * len(command.content.extents)
    if isinstance(command, commands.CompleteUpload):
        return OPERATION_OVERHEAD_BYTES + 48 * len(command.parts)
    return OPERATION_OVERHEAD_BYTES
