"""The jobs of one stream on a worker that many streams share: one after another, in order.

Rule: whoever stops a stream learns when no thread works for it any more; until then its buffers must live.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from edgestore.disk import Worker


class Turns:
    """At most one job of the stream is with the worker at any time."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._jobs: deque[tuple[Callable[[], object], asyncio.Future[None]]] = deque()
        self._busy = False
        self._ended: Callable[[], None] | None = None

    def submit(self, job: Callable[[], object]) -> asyncio.Future[None]:
        """The future is done when the job is."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.append((job, future))
        self._next()
        return future

    def stop(self, ended: Callable[[], None]) -> None:
        """Jobs that have not begun never do; `ended` when the one under way is over."""
        while self._jobs:
            self._jobs.popleft()[1].cancel()
        if self._busy:
            self._ended = ended
        else:
            ended()

    def _next(self) -> None:
        if self._busy or not self._jobs:
            return
        job, future = self._jobs.popleft()
        self._busy = True

        def done(_: object, error: BaseException | None) -> None:
            self._busy = False
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)
                    future.exception()  # the stream may be stopped before it looks
            if self._ended is not None:
                self._ended()
            else:
                self._next()

        self._worker.submit(job, done)
