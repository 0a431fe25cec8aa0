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
        self._jobs: deque[tuple[Callable[[], object], Callable[[], None], asyncio.Future[None]]] = deque()
        self._busy = False
        self._ended: Callable[[], None] | None = None

    def submit(self, job: Callable[[], object], over: Callable[[], None]) -> asyncio.Future[None]:
        """`over` is called when no thread works on the job any more; the future tells how it went."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._jobs.append((job, over, future))
        self._next()
        return future

    def stop(self, ended: Callable[[], None]) -> None:
        """Jobs that have not begun never do; `ended` when the one under way is over."""
        while self._jobs:
            _, over, future = self._jobs.popleft()
            over()
            future.cancel()
        if self._busy:
            self._ended = ended
        else:
            ended()

    def _next(self) -> None:
        if self._busy or not self._jobs:
            return
        job, over, future = self._jobs.popleft()
        self._busy = True

        def done(_: object, error: BaseException | None) -> None:
            self._busy = False
            over()
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
