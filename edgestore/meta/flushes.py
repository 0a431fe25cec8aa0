"""When the catalog is flushed, and the journal behind it let go.

Rule: the catalog is durable before the journal is trimmed, up to the index read before (rule 2); one flush at a time
comes by itself, and one that failed for want of room is tried again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from edgestore.config import MetaConfig
from edgestore.consensus import RaftConsensus
from edgestore.disk import Journal, Worker
from edgestore.errors import Unavailable
from edgestore.meta.machine import CatalogMachine
from edgestore.observe import Metrics

log = logging.getLogger("edgestore.meta")

FLUSH_AGAIN_S = 1.0
LATER = (Unavailable, TimeoutError)
"""A full disk, a full journal, a slow one: the flush is tried again; whatever else fails it stops the node."""


class Flushes:
    """Of one group. `stopped` is done when the disk failed; `on_failure` hears of a flush that failed for good."""

    def __init__(
        self,
        consensus: RaftConsensus,
        machine: CatalogMachine,
        journal: Journal,
        worker: Worker,
        config: MetaConfig,
        *,
        stopped: asyncio.Future[None],
        on_failure: Callable[[BaseException], None],
        metrics: Metrics,
    ) -> None:
        self._consensus, self._machine, self._journal, self._worker = consensus, machine, journal, worker
        self._config, self._metrics = config, metrics
        self._stopped, self._on_failure = stopped, on_failure
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self.unflushed = 0
        """Operations that are in the catalog and not flushed."""
        self.again_s = 0.0
        """None comes by itself before this time of the loop."""

    @property
    def is_under_way(self) -> bool:
        """Whether one that came by itself is."""
        return self._task is not None

    def applied(self, operations: int) -> None:
        """So many more are in the catalog. Bounds what a start has to replay, in operations and in journal bytes."""
        self.unflushed += operations
        if self._task is not None or self._stopped.done() or self._loop.time() < self.again_s:
            return
        many = self.unflushed > self._config.flush_operations_max
        if self._journal.is_short:
            self.postpone()  # should it not help
        if many or self._journal.is_short or self._journal.old_bytes() > self._config.flush_journal_bytes_max:
            self._task = self._loop.create_task(self.flush())
            self._task.add_done_callback(self._flushed)

    def postpone(self) -> None:
        """The next one comes after a while."""
        self.again_s = self._loop.time() + FLUSH_AGAIN_S

    def _flushed(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, LATER):
            log.warning("flush-postponed error=%s", error)
            self.postpone()
            return
        log.error("flush-failed error=%s", error)
        if not self._stopped.done():
            self._on_failure(error)

    async def flush(self) -> None:
        """Returns when all that was applied before is durable in the catalog, or when the disk failed."""
        unflushed = self.unflushed
        snapshot = self._loop.create_task(self._consensus.snapshot(self._make_durable))
        try:
            await asyncio.wait({snapshot, self._stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            snapshot.cancel()
        if snapshot.done():
            snapshot.result()
            self.unflushed -= unflushed
            self._metrics.count("meta_flushes_total")

    async def _make_durable(self) -> None:
        await self._worker.run(self._machine.store.flush)
