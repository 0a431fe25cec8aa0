"""The thread that writes and syncs without the GIL."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edgestore.kernels import Syncer, active_kernel, start_syncer

pytestmark = pytest.mark.skipif(active_kernel == "reference", reason="the reference has no thread")

LIMIT_S = 20.0


@pytest.fixture
def wake_fd() -> Iterator[int]:
    """What the thread tells."""
    descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def syncer(wake_fd: int) -> Iterator[Syncer]:
    """A running thread."""
    started = start_syncer(wake_fd)
    assert started is not None
    yield started
    started.stop()


def outcome(syncer: Syncer, wake_fd: int) -> int | None:
    """Of the write that is under way."""
    assert select.select([wake_fd], [], [], LIMIT_S)[0]
    assert os.eventfd_read(wake_fd) == 1
    return syncer.result()


def test_writes_come_one_after_the_other(tmp_path: Path, syncer: Syncer, wake_fd: int) -> None:
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    pieces = [bytes([number]) * size for number, size in enumerate((1, 5000, 300_000, 7), 1)]
    offset = 3
    for piece in pieces:
        syncer.write(descriptor, offset, piece)
        assert outcome(syncer, wake_fd) == 0
        offset += len(piece)
    assert (tmp_path / "file").read_bytes() == bytes(3) + b"".join(pieces)
    os.close(descriptor)


def test_what_fails_is_told_with_its_number_and_the_next_one_goes_on(
    tmp_path: Path, syncer: Syncer, wake_fd: int
) -> None:
    (tmp_path / "file").write_bytes(b"as it was")
    for path, flags, expected in (("file", os.O_RDONLY, errno.EBADF), ("other", os.O_RDWR | os.O_CREAT, 0)):
        descriptor = os.open(tmp_path / path, flags)
        syncer.write(descriptor, 0, b"new")
        assert outcome(syncer, wake_fd) == expected
        os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == b"as it was"


def test_a_result_is_told_once_and_nothing_is_taken_before_it(tmp_path: Path, syncer: Syncer, wake_fd: int) -> None:
    assert syncer.result() is None
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    syncer.write(descriptor, 0, b"first")
    with pytest.raises(RuntimeError, match="busy"):
        syncer.write(descriptor, 0, b"second")
    assert outcome(syncer, wake_fd) == 0
    assert syncer.result() is None
    assert (tmp_path / "file").read_bytes() == b"first"
    os.close(descriptor)


def test_the_end_may_come_at_any_time(tmp_path: Path, wake_fd: int) -> None:
    """What is under way then is not waited for, and nobody hears of it after."""
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    for turn in range(50):
        syncer = start_syncer(wake_fd)
        assert syncer is not None
        syncer.write(descriptor, 0, b"late")
        time.sleep(turn % 5 / 10_000)
        syncer.stop()
        with suppress(BlockingIOError):
            os.eventfd_read(wake_fd)
        with pytest.raises(ValueError, match="stopped"):
            syncer.write(descriptor, 0, b"more")
        syncer.stop()
    with pytest.raises(BlockingIOError):
        os.eventfd_read(wake_fd)
    os.close(descriptor)


def test_one_that_is_dropped_ends(wake_fd: int) -> None:
    threads = len(os.listdir("/proc/self/task"))
    syncer = start_syncer(wake_fd)
    assert len(os.listdir("/proc/self/task")) == threads + 1
    del syncer
    begun = time.monotonic()
    while len(os.listdir("/proc/self/task")) > threads:  # the kernel takes its time after a join
        assert time.monotonic() < begun + LIMIT_S
