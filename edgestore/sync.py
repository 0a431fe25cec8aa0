"""The store for plain Python: `edgestore.aio` on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from types import TracebackType
from typing import Any, TypeVar

from edgestore import aio
from edgestore.errors import Closing
from edgestore.records import Condition
from edgestore.store_types import BodyInput, Consistency, Version

T = TypeVar("T")


class _Loop:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._closing, self._is_ending = threading.RLock(), False  # the garbage collector may come back in
        self._running: set[asyncio.Task[Any]] = set()
        self._freeing: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="edgestore-loop", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine there and waits for it."""
        with self._closing:  # nothing is handed over behind the cancelling of what is under way
            if self._is_ending:
                work.close()
                raise Closing("the store is closed")
            future = asyncio.run_coroutine_threadsafe(self._noted(work), self._loop)
        try:
            return future.result()
        except BaseException as error:
            future.cancel()
            if isinstance(error, CancelledError):
                raise Closing("the store was closed meanwhile") from error
            raise

    async def _noted(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            return await work
        finally:
            self._running.discard(task)

    def iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        """An asynchronous iterator as a plain one."""

        async def take() -> tuple[bool, Any]:
            try:
                return True, await anext(source)
            except StopAsyncIteration:
                return False, None

        try:
            while True:
                more, value = self.run(take())
                if not more:
                    return
                yield value
        finally:  # also when the reader stops early: what the source holds is freed now
            if isinstance(source, AsyncGenerator):
                self._free(source)

    def _free(self, source: AsyncGenerator[T, None]) -> None:
        """Where the garbage collector runs this in the loop's own thread, waiting for the loop would never end."""
        if threading.current_thread() is self._thread:
            if not self._is_ending:
                self._freeing.add(task := self._loop.create_task(source.aclose()))
                task.add_done_callback(self._freeing.discard)
            return
        with suppress(Closing):  # what it held went with the store
            self.run(source.aclose())

    def end(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Breaks off what other threads wait for, runs `last`, ends the thread. Again: nothing."""
        with self._closing:
            if self._is_ending:
                if last is not None:
                    last.close()
                return
            self._is_ending = True
            future = asyncio.run_coroutine_threadsafe(self._end(last), self._loop)
        try:
            future.result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    async def _end(self, last: Coroutine[Any, Any, None] | None) -> None:
        """What `last` ends has tasks of its own on this loop: only those of `run` and `iterate` are cancelled."""
        waiting = self._running | self._freeing
        for task in waiting:
            task.cancel()
        if waiting:
            await asyncio.wait(waiting)
        if last is not None:
            await last


class Object:
    """See `edgestore.aio.Object`."""

    def __init__(self, loop: _Loop, inner: aio.Object) -> None:
        self._loop, self._inner = loop, inner

    @property
    def version(self) -> Version:
        """Which version this is."""
        return self._inner.version

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """Checked bytes from `offset` on, `length` of them or all."""
        return self._loop.run(self._inner.read(offset, length))

    def stream(self, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        """The same in pieces."""
        return self._loop.iterate(self._inner.stream(offset, length))


class Bucket:
    """See `edgestore.aio.Bucket`."""

    def __init__(self, loop: _Loop, inner: aio.Bucket) -> None:
        self._loop, self._inner = loop, inner

    @property
    def name(self) -> str:
        """The bucket's name."""
        return self._inner.name

    def put(
        self,
        key: str,
        body: BodyInput,
        *,
        metadata: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        condition: Condition = None,
    ) -> Version:
        """Stores an object; it is on the disk when this returns. Raises PreconditionFailed, StorageFull, ..."""
        return self._loop.run(self._inner.put(key, body, metadata=metadata, headers=headers, condition=condition))

    def get(self, key: str, version_id: str | None = None) -> Object:
        """The current version, or a named one. Raises NoSuchKey, NoSuchVersion."""
        return Object(self._loop, self._loop.run(self._inner.get(key, version_id)))

    def head(self, key: str, version_id: str | None = None) -> Version:
        """What is known of a version, without its bytes."""
        return self._loop.run(self._inner.head(key, version_id))

    def delete(self, key: str, version_id: str | None = None, *, condition: Condition = None) -> str:
        """Deletes the current version or a named one; deleting what is not there succeeds."""
        return self._loop.run(self._inner.delete(key, version_id, condition=condition))

    def list(self, prefix: str = "") -> Iterator[Version]:
        """Current versions in the order of their keys."""
        return self._loop.iterate(self._inner.list(prefix))

    def versions(self, prefix: str = "") -> Iterator[Version]:
        """All versions and delete markers, the newest of each key first."""
        return self._loop.iterate(self._inner.versions(prefix))


class Store:
    """See `edgestore.aio.Store`. Close it, or use it in `with`."""

    def __init__(self, loop: _Loop, inner: aio.Store) -> None:
        self._loop, self._inner = loop, inner

    def create_bucket(self, name: str) -> Bucket:
        """Raises BucketExists, InvalidName."""
        return Bucket(self._loop, self._loop.run(self._inner.create_bucket(name)))

    def bucket(self, name: str, *, consistency: Consistency = "linearizable") -> Bucket:
        """A bucket that exists; operations on it raise NoSuchBucket where it does not. Raises InvalidName.
        `consistency`: see `edgestore.aio.Store.bucket`."""
        return Bucket(self._loop, self._inner.bucket(name, consistency=consistency))

    def buckets(self) -> list[str]:
        """Names, sorted."""
        return self._loop.run(self._inner.buckets())

    def delete_bucket(self, name: str) -> None:
        """Raises BucketNotEmpty, InvalidName."""
        self._loop.run(self._inner.delete_bucket(name))

    def close(self) -> None:
        """Makes everything durable and frees the folder or the connections. Again: nothing. What other threads wait
        for is broken off with Closing: whether it was done is not known."""
        self._loop.end(self._inner.close())

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open(folder: str | os.PathLike[str]) -> Store:
    """Opens the store in a data folder of this machine: no server, no port. Raises InUse, Corrupt."""
    loop = _Loop()
    try:
        return Store(loop, loop.run(aio.open(folder)))
    except BaseException:
        loop.end()
        raise


def connect(url: str, *, access_key: str, secret_key: str, region: str = "us-east-1") -> Store:
    """The store behind a node's S3 endpoint, with the same interface."""

    async def make() -> aio.Store:
        return aio.connect(url, access_key=access_key, secret_key=secret_key, region=region)

    loop = _Loop()
    try:
        return Store(loop, loop.run(make()))
    except BaseException:
        loop.end()
        raise
