"""The jobs of one stream on a worker that many streams share: one after another, in order.

Rule: whoever stops a stream learns when no thread works for it any more; until then its buffers must live.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edgestore.disk import Worker


class Turns:
    """The worker has one thread: that keeps the order, and no job waits for the loop to hand it over."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._under_way = 0
        self._stopped = False
        self._ended: Callable[[], None] | None = None

    def submit(self, job: Callable[[], object], over: Callable[[], None]) -> asyncio.Future[None]:
        """`over` is called when no thread works on the job any more; the future tells how it went."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._under_way += 1

        def work() -> None:
            if not self._stopped:
                job()

        def done(_: object, error: BaseException | None) -> None:
            self._under_way -= 1
            over()
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
                    future.exception()  # the stream may be stopped before it looks
            if self._ended is not None and not self._under_way:
                self._ended()

        self._worker.submit(work, done)
        return future

    def stop(self, ended: Callable[[], None]) -> None:
        """Jobs that have not begun do nothing; `ended` when none is left."""
        self._stopped = True
        if self._under_way:
            self._ended = ended
        else:
            ended()
