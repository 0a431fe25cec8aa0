"""Worker threads behind a Protocol that a simulator replaces: work blocks, its answer comes on the event loop."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Done = Callable[[Any, BaseException | None], None]


class Worker(Protocol):
    """A few threads with a queue. Answers come on the event loop, in the order in which the work ended."""

    def submit(self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
        """Runs `work` in a thread, then `done(result, error)` on the loop."""
        ...

    async def run(self, work: Callable[[], T]) -> T:
        """`submit` as a coroutine."""
        ...

    def close(self) -> None:
        """Ends the threads when the queue is empty."""
        ...


class SystemWorker:
    """`Worker` on threads. One `call_soon_threadsafe` a job; the journal hands a whole batch over as one job."""

    def __init__(self, name: str, threads: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Done] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._serve, name=f"edgestore-{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
        """See `Worker.submit`."""
        self._jobs.put((work, done))

    async def run(self, work: Callable[[], T]) -> T:
        """See `Worker.run`."""
        future: asyncio.Future[T] = self._loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.submit(work, done)
        return await future

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, done = job
            result: Any = None
            error: BaseException | None = None
            try:
                result = work()
            except BaseException as caught:
                error = caught
            if self._loop.is_closed():
                return
            self._loop.call_soon_threadsafe(done, result, error)
            del job, work, done, result, error

    def close(self) -> None:
        """See `Worker.close`."""
        for _ in self._threads:
            self._jobs.put(None)
