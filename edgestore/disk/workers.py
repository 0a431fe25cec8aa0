"""Worker threads behind a Protocol that a simulator replaces: work blocks, its answer comes on the event loop.

Rule: what many wait for, the sync of a batch, passes no GIL where the C extension is there: a thread of Python gets it
from a busy loop only after a switch interval, once to begin and once to say that it is done.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from edgestore.disk.failures import translate
from edgestore.kernels import Syncer, start_syncer

if TYPE_CHECKING:  # they stand above
    from edgestore.disk.files import File
    from edgestore.disk.system_files import SystemFile

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

    def write_synced(self, file: File, offset: int, data: bytes, done: Callable[[BaseException | None], None]) -> None:
        """`file.write_synced(offset, data)`, then `done(error)` on the loop. The next one not before; beside jobs of
        the queue."""
        ...

    def close(self) -> None:
        """Ends the threads when the queue is empty."""
        ...


class _SyncThread:
    """One thread that writes and syncs without Python."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wake_fd: int, syncer: Syncer) -> None:
        self._loop, self._wake_fd, self._syncer = loop, wake_fd, syncer
        self._done: Callable[[BaseException | None], None] = lambda error: None
        self._path = ""
        loop.add_reader(wake_fd, self._woken)

    @classmethod
    def start(cls, loop: asyncio.AbstractEventLoop) -> _SyncThread | None:
        """None where the system or the extension has none."""
        if not hasattr(os, "eventfd"):
            return None
        wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        syncer = start_syncer(wake_fd)
        if syncer is None:
            os.close(wake_fd)
            return None
        return cls(loop, wake_fd, syncer)

    def write(
        self, path: str, descriptor: int, offset: int, data: bytes, done: Callable[[BaseException | None], None]
    ) -> None:
        """One at a time."""
        self._path, self._done = path, done
        self._syncer.write(descriptor, offset, data)

    def _woken(self) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)
        failed = self._syncer.result()
        if failed is not None:
            self._done(translate(OSError(failed, os.strerror(failed)), self._path) if failed else None)

    def close(self) -> None:
        """What is being written is not waited for."""
        if not self._loop.is_closed():
            self._loop.remove_reader(self._wake_fd)
        self._syncer.stop()
        os.close(self._wake_fd)


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
        self._sync_thread: _SyncThread | None = None
        self._has_sync_thread = True
        """Not known to be missing."""

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

    def write_synced(self, file: File, offset: int, data: bytes, done: Callable[[BaseException | None], None]) -> None:
        """See `Worker.write_synced`."""
        descriptor = cast("SystemFile", file).descriptor
        if self._sync_thread is None and self._has_sync_thread and descriptor is not None:
            self._sync_thread = _SyncThread.start(self._loop)
            self._has_sync_thread = self._sync_thread is not None
        if self._sync_thread is not None and descriptor is not None:
            self._sync_thread.write(file.path, descriptor, offset, data, done)
        else:
            self.submit(lambda: file.write_synced(offset, data), lambda _, error: done(error))

    def close(self) -> None:
        """See `Worker.close`."""
        if self._sync_thread is not None:
            self._sync_thread.close()
            self._sync_thread = None
        for _ in self._threads:
            self._jobs.put(None)
