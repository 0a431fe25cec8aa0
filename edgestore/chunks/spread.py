"""The fragments of one chunk on their way to its nodes: late and failed ones are passed over, enough must confirm.

Rule: a fragment counts when its node has synced it, each on a node of its own; fewer than k + t never count as stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edgestore.chunks.encoder import Encoded
from edgestore.chunks.facts import Facts
from edgestore.chunks.remote import Shelves
from edgestore.chunks.site import Manners, Sites
from edgestore.config import ChunksConfig
from edgestore.errors import EdgeStoreError, StorageFull, Unavailable
from edgestore.placement import NOBODY, Placement, Scheme

log = logging.getLogger("edgestore.chunks")

GRACE = 4
"""Where no other node is left to try, one that is late is waited for so many times as long."""
STALL_S = 0.05
"""Who wakes up so much later than he asked to was stalled himself: what has come meanwhile is not looked at yet."""


@dataclass(frozen=True, slots=True)
class SpreadTools:
    """What spreading needs of the node."""

    shelves: Shelves
    sites: Sites
    manners: Manners
    config: ChunksConfig


@dataclass(slots=True)
class _Attempt:
    """A fragment on its way to a node. `is_late`: another was asked for it, or there is none to ask."""

    shard: int
    node: int
    deadline_s: float
    is_late: bool = False


class Spread:
    """One chunk. `hold` and `release` say how long its memory is needed: also by attempts that outlive `run`."""

    def __init__(
        self,
        tools: SpreadTools,
        chunk_id: bytes,
        encoded: Encoded,
        scheme: Scheme,
        placement: Placement,
        *,
        hold: Callable[[], None],
        release: Callable[[], None],
    ) -> None:
        self._tools, self._chunk_id, self._encoded, self._scheme = tools, chunk_id, encoded, scheme
        self._hold, self._release = hold, release
        self._loop = asyncio.get_running_loop()
        config = tools.config
        self._patience_s = config.confirm_ms / 1000 + len(encoded.fragment(0)) / config.confirm_bytes_per_s
        self._tasks: dict[asyncio.Task[None], _Attempt] = {}
        self._holders = [NOBODY] * scheme.count
        self._failures: list[BaseException] = []
        self._owners = placement.owners(chunk_id, scheme.count)
        spares = [node for node in placement.ranking(chunk_id) if node not in self._owners]
        self._spares = deque(sorted(spares, key=tools.manners.avoids))

    async def run(self) -> tuple[int, ...]:
        """By shard who has confirmed it. Raises Unavailable (StorageFull) where too few did."""
        begun_s = self._loop.time()
        try:
            for shard, owner in enumerate(self._owners):
                self._begin(shard, self._first(owner))
            while self._is_open(begun_s):
                await self._step()
        finally:
            for task, attempt in self._tasks.items():
                if attempt.node != self._tools.sites.own_number:
                    task.cancel()
        held = len(set(self._holders) - {NOBODY})
        if held < self._scheme.needed:
            raise self._too_few(held)
        return tuple(self._holders)

    def _first(self, owner: int) -> int:
        """The owner, unless it is better not asked and another may be."""
        if owner != NOBODY and not self._tools.manners.avoids(owner):
            return owner
        if self._spares and (owner == NOBODY or not self._tools.manners.avoids(self._spares[0])):
            spare = self._spares.popleft()
            if owner != NOBODY:
                self._spares.append(owner)
            return spare
        return owner

    def _begin(self, shard: int, node: int) -> None:
        if node == NOBODY:
            return
        encoded = self._encoded
        facts = Facts(
            self._chunk_id,
            encoded.k,
            encoded.m,
            shard,
            len(encoded.fragment(shard)),
            encoded.units,
            encoded.page_crcs(shard),
        )
        self._hold()
        task = self._loop.create_task(self._tools.shelves.of(node).put(facts, encoded.fragment(shard)))
        task.add_done_callback(self._ended)
        self._tasks[task] = _Attempt(shard, node, self._loop.time() + self._patience_s)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._release()
        if not task.cancelled():
            task.exception()  # looked at, also where nobody waits for it any more

    def _is_open(self, begun_s: float) -> bool:
        """Whether waiting may still bring something worth waiting for."""
        if not self._tasks or NOBODY not in self._holders:
            return False
        if any(not attempt.is_late for attempt in self._tasks.values()):
            return True
        held = len(self._holders) - self._holders.count(NOBODY)
        return held < self._scheme.needed and self._loop.time() < begun_s + GRACE * self._patience_s

    async def _step(self) -> None:
        """Until something ends or is late."""
        now_s = self._loop.time()
        fresh = [attempt.deadline_s for attempt in self._tasks.values() if not attempt.is_late]
        wait_s = min(fresh) - now_s if fresh else self._patience_s
        done, _ = await asyncio.wait(self._tasks, timeout=max(wait_s, 0.0), return_when=asyncio.FIRST_COMPLETED)
        for task in sorted(done, key=lambda one: self._tasks[one].shard):
            self._judge(task)
        slept_s = self._loop.time() - now_s
        if slept_s > max(wait_s, 0.0) + STALL_S:
            self._forgive(slept_s)
        now_s = self._loop.time()
        for attempt in list(self._tasks.values()):
            if not attempt.is_late and attempt.deadline_s <= now_s:
                attempt.is_late = True
                self._pass_over(attempt, "late")

    def _forgive(self, slept_s: float) -> None:
        """Nobody is late for what this node itself slept through; else one stall would pass over every node at once.
        When in it the stall began is not known, so that all of it is forgiven."""
        for attempt in self._tasks.values():
            if not attempt.is_late:
                attempt.deadline_s += slept_s

    def _judge(self, task: asyncio.Task[None]) -> None:
        attempt = self._tasks.pop(task)
        error = None if task.cancelled() else task.exception()
        if error is None and not task.cancelled():
            if not attempt.is_late:
                self._tools.manners.trust(attempt.node)
            if self._holders[attempt.shard] == NOBODY:
                self._holders[attempt.shard] = attempt.node
            return
        if error is not None and not isinstance(error, EdgeStoreError):
            raise error
        if error is not None:
            self._failures.append(error)
        if not attempt.is_late:
            self._pass_over(attempt, type(error).__name__)

    def _pass_over(self, attempt: _Attempt, reason: str) -> None:
        """The fragment goes to the next node of the ranking, if there is one."""
        self._tools.manners.avoid(attempt.node)
        log.info("node-passed-over node=%d chunk=%s reason=%s", attempt.node, self._chunk_id.hex(), reason)
        if self._holders[attempt.shard] == NOBODY and self._spares:
            self._begin(attempt.shard, self._spares.popleft())

    def _too_few(self, held: int) -> Unavailable:
        message = f"{held} nodes took their fragment of a chunk, and {self._scheme.needed} must"
        if self._failures and all(isinstance(error, StorageFull) for error in self._failures):
            return StorageFull(message, retry_after_s=30)
        return Unavailable(message)
