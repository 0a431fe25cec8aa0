"""The plain store in threads: nobody waits for ever, whoever closes and wherever the garbage collector runs."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import edgestore
from edgestore.errors import Closing

LIMIT_S = 10.0


def within_limit(work: Callable[[], object]) -> None:
    """In a thread that may hang without this test hanging."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(LIMIT_S)
    assert not thread.is_alive(), "it hangs"
    if failed:
        raise failed[0]


class Ring:
    """Holds an iterator in a reference cycle."""

    def __init__(self, held: Iterator[bytes]) -> None:
        self.held, self.ring = held, self


def test_an_iterator_that_is_collected_in_the_loop_s_thread(tmp_path: Path) -> None:
    store = edgestore.open(tmp_path)
    bucket = store.create_bucket("bucket")
    bucket.put("key", bytes(8_000_000))

    async def collect() -> None:
        gc.collect()

    gc.disable()
    try:
        ring = Ring(bucket.get("key").stream())
        assert next(ring.held)
        del ring
        within_limit(lambda: store._loop.run(collect()))
        within_limit(store.buckets)
    finally:
        gc.enable()
    within_limit(store.close)


def test_closing_breaks_off_what_other_threads_wait_for(tmp_path: Path) -> None:
    store = edgestore.open(tmp_path)
    bucket = store.create_bucket("bucket")
    begun, go_on = threading.Event(), threading.Event()
    outcome: list[BaseException] = []

    def body() -> Iterator[bytes]:
        yield b"x" * 100_000
        begun.set()
        go_on.wait(60)

    def put() -> None:
        try:
            bucket.put("key", body())
        except BaseException as error:
            outcome.append(error)

    writer = threading.Thread(target=put, daemon=True)
    writer.start()
    assert begun.wait(LIMIT_S)
    within_limit(store.close)
    writer.join(LIMIT_S)
    go_on.set()
    assert not writer.is_alive()
    assert [type(error) for error in outcome] == [Closing]
    with edgestore.open(tmp_path) as again:
        assert list(again.bucket("bucket").list()) == []


def test_a_stream_behind_the_closing_says_so(tmp_path: Path) -> None:
    store = edgestore.open(tmp_path)
    bucket = store.create_bucket("bucket")
    bucket.put("key", bytes(8_000_000))
    stream = bucket.get("key").stream()
    assert next(stream)
    store.close()
    store.close()
    with pytest.raises(Closing):
        next(stream)
