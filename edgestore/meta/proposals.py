"""Operations on their way: gathered into entries, taken to the leader, answered by what is applied here.

Rule: an operation keeps its id however often it is sent, and its outcome is what this node applied; so whoever was
answered reads its own write here. On a node without peers the outcomes come with the entry, without a look at ids.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from edgestore.catalog import commands
from edgestore.config import ConsensusConfig, MetaConfig
from edgestore.consensus import RaftConsensus
from edgestore.errors import (
    BadRequest,
    Closing,
    EdgeStoreError,
    NotLeader,
    RetryOperation,
    StorageFull,
    TooBusy,
    TooLarge,
    Unavailable,
)
from edgestore.meta.batches import (
    Batch,
    Done,
    Header,
    Waiting,
    answer,
    answer_outcome,
    checked,
    encode_ones,
    size_bytes,
    split,
)
from edgestore.meta.wire import MetaPort, Propose, decode, encode
from edgestore.net import Method, Reply
from edgestore.observe import Metrics

log = logging.getLogger("edgestore.meta")

UNENCODABLE = (ValueError, OverflowError, TypeError)
REFUSED = (TooBusy, StorageFull, BadRequest)
"""At the first sending it is known that the operations are in nobody's log, and why."""
NOT_KNOWN = "the commit takes too long: whether it happened is not known yet; read, then decide"
QUEUED = "too many operations wait for their commit, so this one was not begun and nothing was done: try again"
NO_LEADER = "no leader is known, so nothing was done: a majority of the voters must be reachable; try again"


class Proposals:
    """All operations of one start of one node (its session). `header()`: of an entry that this node makes now."""

    def __init__(
        self,
        consensus: RaftConsensus,
        config: MetaConfig,
        limits: ConsensusConfig,
        *,
        session: int,
        group: int,
        port: MetaPort | None,
        header: Callable[[], Header],
        born_ms: Callable[[], int],
        answered: Callable[[int], None],
        metrics: Metrics,
    ) -> None:
        self._consensus, self._config, self._limits, self._metrics = consensus, config, limits, metrics
        self._session, self._group, self._port = session, group, port
        self._header, self._born_ms, self._was_answered = header, born_ms, answered
        self._loop = asyncio.get_running_loop()
        self._sequence = 0
        self._queue: deque[Waiting] = deque()
        self._under_way: deque[Batch] = deque()
        self._pending: dict[int, tuple[Waiting, Batch]] = {}
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._forwarded = 0
        self.waiting = 0
        self.refusal: EdgeStoreError | None = None
        """What a new operation is told, once there is one."""
        if port is not None:
            port.serve(Method.PROPOSE, group, self._serve)

    def submit(self, tenant: int, command: commands.Command, done: Done) -> None:
        """See `Meta.submit`."""
        if self.waiting >= self._config.proposals_max:
            raise TooBusy("too many operations wait for their commit (meta.proposals_max): slow down")
        if self.refusal is not None:
            raise type(self.refusal)(str(self.refusal)) from self.refusal.__cause__
        self._sequence += 1
        self.waiting += 1
        operation = commands.Operation(self._session, self._sequence, self._settled(), self._born_ms(), tenant, command)
        one = Waiting(operation, done, size_bytes(command))
        if self._port is not None:
            one.until_s = self._loop.time() + self._config.propose_timeout_s
            one.unsent_until_s = min(one.until_s, self._loop.time() + self._limits.read_timeout_ms / 1000)
            self._watch()
        self._queue.append(one)
        if not self._scheduled and len(self._under_way) < self._limits.entries_in_flight_max:
            self._schedule()

    def _schedule(self) -> None:
        self._scheduled = True
        self._loop.call_soon(self._pump)  # what this turn of the loop still brings goes with it

    def _settled(self) -> int:
        """Every sequence below has a known outcome."""
        if self._under_way:
            return self._under_way[0].ones[0].operation.sequence
        return self._queue[0].operation.sequence if self._queue else self._sequence

    def _pump(self) -> None:
        self._scheduled = False
        while self._queue and len(self._under_way) < self._limits.entries_in_flight_max:
            ones, size = [self._queue.popleft()], 0
            size = ones[0].size_bytes
            while self._queue and len(ones) < self._limits.entry_operations_max:
                size += self._queue[0].size_bytes
                if size > self._limits.entry_bytes_max:
                    break
                ones.append(self._queue.popleft())
            if self._port is None:
                self._propose(ones)
            else:
                self._send(ones)

    # --- without peers ---------------------------------------------------------------------------------

    def _propose(self, ones: list[Waiting]) -> None:
        payload = self._encoded(ones)
        if payload is not None:
            batch = Batch(ones, len(ones))
            self._under_way.append(batch)
            self._consensus.propose(payload, partial(self._answered, batch))

    def _encoded(self, ones: list[Waiting]) -> bytes | None:
        """The entry; what cannot be encoded leaves it and is answered. None: nothing is left."""
        header = self._header()
        try:
            return encode_ones(header, ones)
        except UNENCODABLE:
            self._refuse_unencodable(ones, lambda one: encode_ones(header, [one]))
        return encode_ones(header, ones) if ones else None

    def _refuse_unencodable(self, ones: list[Waiting], encoded: Callable[[Waiting], bytes]) -> None:
        refused = []
        for one in ones:
            try:
                encoded(one)
            except UNENCODABLE:
                refused.append(one)
        for one in refused:
            ones.remove(one)
            self.waiting -= 1
            message = "the operation has a value that cannot be stored (lone surrogates, numbers out of range)"
            answer(one, None, BadRequest(message))

    def _answered(self, batch: Batch, outcomes: list[object] | None, error: BaseException | None) -> None:
        if batch not in self._under_way:
            return  # `fail` has answered all
        self._under_way.remove(batch)
        ones = batch.ones
        self.waiting -= len(ones)
        self._metrics.count("meta_operations_total", len(ones))
        if error is not None or outcomes is None:
            for one in ones:
                answer(one, None, error or Unavailable("the entry was not applied"))
        else:
            for one, outcome in zip(ones, outcomes, strict=True):
                answer_outcome(one, outcome)
        if self._queue and not self._scheduled:
            self._schedule()
        self._was_answered(len(ones))

    # --- with peers ------------------------------------------------------------------------------------

    def _send(self, ones: list[Waiting]) -> None:
        try:
            for one in ones:
                one.raw = one.raw or checked(one.operation)
        except UNENCODABLE:
            self._refuse_unencodable(ones, lambda one: checked(one.operation))
            for one in ones:
                one.raw = checked(one.operation)
        fits, too_large, rest = split(ones, self._limits.entry_bytes_max)
        for one in too_large:
            self.waiting -= 1
            answer(one, None, TooLarge("the operation is larger than an entry of the log (consensus.entry_bytes_max)"))
        self._queue.extendleft(reversed(rest))
        ones = fits
        if not ones:
            return
        batch = Batch(ones, len(ones))
        self._under_way.append(batch)
        for one in ones:
            self._pending[one.operation.sequence] = one, batch
        self._dispatch(batch)

    def _dispatch(self, batch: Batch) -> None:
        """To whoever leads now; nobody: the timer does it again."""
        consensus = self._consensus
        batch.sent_to = consensus.leader()
        if not (batch.sent_to or consensus.is_leader):
            return
        batch.sendings += 1
        batch.sent_s = self._loop.time()
        operations = [msgspec.Raw(one.raw) for one in batch.ones if not one.is_answered]
        sending = batch.sendings
        if consensus.is_leader:

            def done(outcomes: list[object] | None, error: BaseException | None) -> None:
                if error is not None:
                    self._refused(batch, sending, error)

            consensus.propose(commands.splice_entry(*self._header(), operations), done)
        else:
            task = self._loop.create_task(self._forward(batch, sending, batch.sent_to, encode(operations)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, batch: Batch, sending: int, leader: str, payload: bytes) -> None:
        assert self._port is not None
        timeout_s = self._config.resend_after_ms / 1000
        try:
            await self._port.call(leader, Method.PROPOSE, Propose(self._group), (payload,), timeout_s=timeout_s)
        except EdgeStoreError as error:
            self._refused(batch, sending, error)

    def _refused(self, batch: Batch, sending: int, error: BaseException) -> None:
        """Of one sending. An earlier one may have come through, so only the first may tell the proposers."""
        if batch.sendings != sending or not batch.left:
            return
        if sending == 1 and isinstance(error, REFUSED):
            for one in batch.ones:
                if not one.is_answered:
                    self._settle(one, batch, None, error)
            return
        if not isinstance(error, NotLeader | RetryOperation | Unavailable):
            log.warning("proposal-refused error=%r", error)
        batch.sent_to = ""

    def on_own_outcome(self, sequence: int, outcome: object) -> None:
        """An operation of this session was applied here, whoever proposed its entry."""
        found = self._pending.get(sequence)
        if found is None:
            return
        one, batch = found
        if isinstance(outcome, RetryOperation):
            batch.sent_to = ""
        elif isinstance(outcome, EdgeStoreError):
            self._settle(one, batch, None, outcome)
        else:
            self._settle(one, batch, outcome, None)

    def _settle(self, one: Waiting, batch: Batch, value: Any, error: BaseException | None) -> None:
        del self._pending[one.operation.sequence]
        one.is_answered = True
        batch.left -= 1
        self.waiting -= 1
        self._metrics.count("meta_operations_total")
        if not batch.left:
            self._under_way.remove(batch)
            if self._queue and not self._scheduled:
                self._schedule()
        answer(one, value, error)

    def send_again(self) -> None:
        """Another leads, or a snapshot took the place of entries whose outcomes were not seen."""
        for batch in self._under_way:
            batch.sent_to = ""
        self._check()

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(self._config.resend_check_ms / 1000, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._expire()
        self._check()
        if self.waiting:
            self._watch()

    def _check(self) -> None:
        """Sends again what the leader may not have."""
        if self._port is None or (self.refusal is not None and not isinstance(self.refusal, Closing)):
            return
        leader, is_local = self._consensus.leader(), self._consensus.is_leader
        late_s = self._loop.time() - self._config.resend_after_ms / 1000
        for batch in list(self._under_way):
            if leader and (batch.sent_to != leader or (batch.sent_s <= late_s and not is_local)):
                self._dispatch(batch)

    def _expire(self) -> None:
        """What was handed to nobody waits for a leader as long as a read does; the rest until nothing is known."""
        now_s = self._loop.time()
        is_led = bool(self._consensus.leader())
        while self._queue and (self._queue[0].until_s if is_led else self._queue[0].unsent_until_s) <= now_s:
            one = self._queue.popleft()
            self.waiting -= 1
            answer(one, None, Unavailable(QUEUED if is_led else NO_LEADER))
        for batch in list(self._under_way):
            is_unsent = batch.sendings == 0 and not is_led
            for one in batch.ones:
                if not one.is_answered and (one.unsent_until_s if is_unsent else one.until_s) <= now_s:
                    self._settle(one, batch, None, Unavailable(NO_LEADER if is_unsent else NOT_KNOWN))

    async def _serve(self, member: str, request: Propose, payload: memoryview) -> Reply:
        """Another node's operations: taken or refused; their outcomes that node applies itself."""
        if len(payload) > self._limits.entry_bytes_max:
            raise TooLarge("the operations are larger than an entry of the log (consensus.entry_bytes_max)")
        operations = decode(payload, list[msgspec.Raw])
        count = len(operations)
        if not operations or count > self._limits.entry_operations_max:
            raise BadRequest("that is no batch of operations (consensus.entry_operations_max)")
        for raw in operations:  # whoever is a member may send anything, and everybody would have to apply it
            try:
                commands.check_operation(raw)
            except ValueError as error:
                raise BadRequest(f"that is no operation: {error}") from error
        if self.refusal is not None:
            raise Closing("the node is closing: send it to another")
        if not self._consensus.is_leader:
            raise NotLeader("another member leads the group", leader=self._consensus.leader())
        if self._forwarded + count > self._config.forwarded_max:
            raise TooBusy("too many operations of other nodes wait here (meta.forwarded_max): slow down")
        refused: list[BaseException] = []
        self._forwarded += count

        def done(outcomes: list[object] | None, error: BaseException | None) -> None:
            self._forwarded -= count
            if error is not None:
                refused.append(error)

        entry = commands.splice_entry(*self._header(), operations)
        self._consensus.propose(entry, done, is_waited_elsewhere=True)
        if refused:
            raise refused[0]
        return Reply(b"")

    # --- the end ---------------------------------------------------------------------------------------

    def fail(self, refusal: EdgeStoreError, error: EdgeStoreError) -> None:
        """Nothing that waits is acknowledged, and nothing more is taken."""
        self.refusal = refusal
        waiting = [one for batch in self._under_way for one in batch.ones if not one.is_answered] + list(self._queue)
        self._under_way.clear()
        self._queue.clear()
        self._pending.clear()
        self.waiting = 0
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        for one in waiting:
            answer(one, None, error)
