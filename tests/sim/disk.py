"""The simulator's disk and ordered store: they keep what was synced, and of the rest what the seed decides.

Rule: nothing here is kinder than a real disk. Unsynced writes vanish, survive or tear at 512-byte sectors, in any
order; so do new lengths, and each change of a folder that was not synced; a full disk refuses; after a failed sync the
page cache takes for written what is not on the platter; of a page with a bad sector nothing can be read.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from edgestore.errors import DiskFailed, EdgeStoreError, InUse, StorageFull
from tests.sim.loop import Crash, SimLoop
from tests.sim.platter import ROWS_FILE, Content, EntryChange, Store, overlaps

T = TypeVar("T")

UNLIMITED_BYTES = 1 << 40


class Power(Protocol):
    """What a crash inside a call of the disk ends: the loop of a lone node, or one life on the loop of a site."""

    crashed: bool

    def power_off(self) -> None:
        """From here on nothing of it runs."""
        ...


@dataclass
class CrashAtSync:
    """The power fails before the `left`-th sync of at least so many writes and bytes to a file below `prefix`."""

    prefix: str
    writes_min: int
    bytes_min: int
    left: int


class Disk:
    """What outlives a crash. Knobs: `capacity_bytes`, `sync_fails`, `slowness`, and the seed's generator."""

    def __init__(self, rng: random.Random, capacity_bytes: int = UNLIMITED_BYTES) -> None:
        self.rng = rng
        self.capacity_bytes = capacity_bytes
        self.sync_fails: Callable[[str], bool] = lambda path: False
        self.slowness = 1.0
        self.entries: dict[str, Content] = {}
        self.synced_entries: dict[str, Content] = {}
        self.unsynced_entries: list[EntryChange] = []
        self.stores: dict[str, Store] = {}
        self.operations = 0
        self.crash_at: int | None = None
        self.crash_at_sync: CrashAtSync | None = None

    def change(self, path: str, content: Content | None, *, gone: str = "") -> None:
        """An entry of a folder is set or removed, and in the same step (a rename) another one goes."""
        change = EntryChange(path, content, gone)
        change.apply(self.entries)
        self.unsynced_entries.append(change)

    def sync_folder(self, folder: str) -> None:
        """The entries of a folder are durable."""
        for change in self.unsynced_entries:
            if change.folder == folder:
                change.apply(self.synced_entries)
        self.unsynced_entries = [change for change in self.unsynced_entries if change.folder != folder]

    def lose_power(self) -> None:
        """What a power cut leaves: of the changes to the folders any, whatever became of those before."""
        for change in self.unsynced_entries:
            if self.rng.random() < 0.5:
                change.apply(self.synced_entries)
        self.unsynced_entries.clear()
        self.entries = dict(self.synced_entries)
        for path in sorted(self.entries):
            self.entries[path].lose_power(self.rng)
        for folder in sorted(self.stores):
            self.stores[folder].lose_power(self.rng)
            if self.stores[folder].is_lost(self.entries.get(f"{folder}/{ROWS_FILE}")):
                del self.stores[folder]

    def lose_process(self) -> None:
        """What kill -9 leaves: the page cache goes on, and of an ordered store without a log of its own a prefix."""
        for folder in sorted(self.stores):
            self.stores[folder].lose_power(self.rng)

    def used_bytes(self) -> int:
        """Bytes in files; rows of the ordered stores do not count."""
        return sum(len(content.cached) for content in self.entries.values())

    def flip_bit(self, path: str, offset: int, bit: int = 0) -> None:
        """Damages what is on the platter."""
        content = self.entries[path]
        content.durable[offset] ^= 1 << bit
        content.cached = bytearray(content.durable)


class SimFile:
    """edgestore.disk.File on a `Content`."""

    def __init__(self, files: SimFiles, path: str, content: Content) -> None:
        self.files, self.path, self.content = files, path, content

    def read_at(self, offset: int, length: int) -> bytes:
        """From the page cache, where the platter gives it."""
        self.files.touch()
        if any(overlaps(page, offset, length) for page in self.content.unreadable):
            raise DiskFailed("the simulated disk has a bad sector there (EIO)", path=self.path)
        return bytes(self.content.cached[offset : offset + length])

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """From the page cache."""
        data = self.read_at(offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """The seed decides whether the page cache has it."""
        if self.files.disk.rng.random() >= 0.5:
            return None
        try:
            return self.read_at(offset, length)
        except DiskFailed:
            return None

    def read_cached_into(self, offset: int, buffer: memoryview) -> bool:
        """The same."""
        data = self.read_cached(offset, len(buffer))
        if data is None or len(data) < len(buffer):
            return False
        buffer[:] = data
        return True

    def write_at(self, offset: int, *parts: bytes | memoryview) -> None:
        """Into the page cache; a crash may fall before it."""
        self.files.touch()
        data = b"".join(bytes(part) for part in parts)
        disk = self.files.disk
        if (
            disk.used_bytes() - len(self.content.cached) + max(len(self.content.cached), offset + len(data))
            > disk.capacity_bytes
        ):
            raise self.files.met(StorageFull("no space left on the simulated disk", path=self.path))
        self.content.write(offset, data)

    def write_synced(self, offset: int, *parts: bytes | memoryview) -> None:
        """A crash may fall between the two."""
        self.write_at(offset, *parts)
        self.sync()

    def sync(self) -> None:
        """To the platter; a crash may fall before or after it."""
        self.files.touch()
        self.files.touch_sync(self.path, self.content.unsynced)
        if self.files.disk.sync_fails(self.path):
            self.content.fail_sync(self.files.disk.rng)
            raise self.files.met(DiskFailed("the simulated disk failed a sync", path=self.path))
        self.content.sync()
        self.files.touch()

    def forget_cached(self, offset: int) -> None:
        """What is on the platter, where nothing waits to be written."""
        self.files.touch()
        if not self.content.unsynced:
            self.content.cached = bytearray(self.content.durable)

    def allocate(self, length: int) -> None:
        """Zeroes to `length`."""
        self.files.touch()
        if len(self.content.cached) < length:
            disk = self.files.disk
            if disk.used_bytes() - len(self.content.cached) + length > disk.capacity_bytes:
                raise self.files.met(StorageFull("no space left on the simulated disk", path=self.path))
            self.content.resize(length)

    def truncate(self, length: int) -> None:
        """Cuts or extends; on the platter with the next sync."""
        self.files.touch()
        self.content.resize(length)

    def size(self) -> int:
        """Bytes."""
        return len(self.content.cached)

    def close(self) -> None:
        """Nothing to free."""


class SimLock:
    """The lock of one life."""

    def __init__(self, files: SimFiles, path: str) -> None:
        self.files, self.path = files, path

    def release(self) -> None:
        """Lets the next one in."""
        self.files.locks.discard(self.path)

    close = release


class SimWorker:
    """edgestore.disk.Worker: the work runs whole at a virtual time, its answer comes at a later one."""

    def __init__(self, files: SimFiles, name: str, threads: int) -> None:
        self.files, self.name = files, name
        self.free_at_s = [0.0] * threads

    def submit(self, work: Callable[[], T], done: Callable[[T | None, BaseException | None], None]) -> None:
        """Queued behind what a thread of this worker still has to do."""
        loop, rng = self.files.loop, self.files.disk.rng
        thread = min(range(len(self.free_at_s)), key=self.free_at_s.__getitem__)
        start_s = max(loop.time(), self.free_at_s[thread]) + rng.expovariate(20_000)
        end_s = start_s + rng.expovariate(2_000) * self.files.disk.slowness
        self.free_at_s[thread] = end_s

        def run() -> None:
            try:
                result, error = work(), None
            except Crash:
                raise
            except BaseException as caught:
                result, error = None, caught
            loop.call_at(end_s, done, result, error)

        loop.call_at(start_s, run)

    async def run(self, work: Callable[[], T]) -> T:
        """`submit` as a coroutine."""
        future = self.files.loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.submit(work, done)
        return await future  # type: ignore[no-any-return]

    def write_synced(
        self, file: SimFile, offset: int, data: bytes, done: Callable[[BaseException | None], None]
    ) -> None:
        """As any other job."""
        self.submit(lambda: file.write_synced(offset, data), lambda _, error: done(error))

    def close(self) -> None:
        """No threads to end."""


class SimFiles:
    """edgestore.disk.Files of one life of a node: after a crash every call of it fails, and the next life gets a new
    one. `power`: what a crash ends, the whole loop unless somebody says otherwise."""

    def __init__(self, disk: Disk, loop: SimLoop, power: Power | None = None) -> None:
        self.disk, self.loop = disk, loop
        self.power = loop if power is None else power
        self.locks: set[str] = set()
        self.troubles: set[type[EdgeStoreError]] = set()
        """What this life has met on its disk: it may stop of that later, when the disk is well again."""

    def met(self, error: EdgeStoreError) -> EdgeStoreError:
        """Remembers what is about to be raised."""
        self.troubles.add(type(error))
        return error

    def touch(self) -> None:
        """Counts an operation; the power may fail here, in the middle of a callback."""
        if self.power.crashed:
            raise Crash
        self.disk.operations += 1
        if self.disk.operations == self.disk.crash_at:
            self.power.power_off()
            raise Crash

    def touch_sync(self, path: str, writes: list[tuple[int, bytes | None]]) -> None:
        """The power may fail just before a sync: what was written together is then torn apart."""
        crash = self.disk.crash_at_sync
        if crash is None or not path.startswith(crash.prefix) or len(writes) < crash.writes_min:
            return
        if sum(len(data or b"") for _, data in writes) >= crash.bytes_min:
            crash.left -= 1
            if crash.left <= 0:
                self.power.power_off()
                raise Crash

    def open(self, path: str, *, create: bool = False, write: bool = True) -> SimFile:
        """A file of the data folder."""
        self.touch()
        if path not in self.disk.entries:
            if not create:
                raise FileNotFoundError(path)
            self.disk.change(path, Content())
        return SimFile(self, path, self.disk.entries[path])

    def list(self, folder: str) -> list[str]:
        """Names in a folder."""
        self.touch()
        prefix = folder.rstrip("/") + "/" if folder not in ("", ".") else ""
        return sorted({path[len(prefix) :].split("/")[0] for path in self.disk.entries if path.startswith(prefix)})

    def exists(self, path: str) -> bool:
        """A file, or a folder with files."""
        return path in self.disk.entries or any(entry.startswith(path + "/") for entry in self.disk.entries)

    def read(self, path: str) -> bytes:
        """The whole file."""
        return self.open(path).read_at(0, 1 << 62)

    def replace(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """New file, sync, rename, sync of the folder."""
        file = self.open(path + ".new", create=True)
        file.truncate(0)
        file.write_at(0, content)
        file.sync()
        self.rename(path + ".new", path)
        self.sync_folder(path.rpartition("/")[0])

    def remove(self, path: str) -> None:
        """The entry goes; durable when the folder is synced."""
        self.touch()
        if path not in self.disk.entries:
            raise FileNotFoundError(path)
        self.disk.change(path, None)

    def remove_folder(self, path: str) -> None:
        """The entries go, and the rows of a store that lies there."""
        self.touch()
        self.disk.stores.pop(path, None)
        for entry in [entry for entry in self.disk.entries if entry.startswith(path + "/")]:
            self.disk.change(entry, None)

    def rename(self, old: str, new: str) -> None:
        """Durable when the folder is synced."""
        self.touch()
        if old not in self.disk.entries:
            raise FileNotFoundError(old)
        self.disk.change(new, self.disk.entries[old], gone=old)

    def make_folder(self, path: str) -> None:
        """Folders need no entry here."""

    def sync_folder(self, path: str) -> None:
        """Makes the entries of a folder durable."""
        self.touch()
        folder = path.rstrip("/") if path not in ("", ".") else ""
        self.disk.sync_folder(folder)

    def free_bytes(self) -> int:
        """What is left."""
        if self.disk.capacity_bytes < UNLIMITED_BYTES:
            self.troubles.add(StorageFull)
        return max(0, self.disk.capacity_bytes - self.disk.used_bytes())

    def real_path(self, path: str) -> str:
        """There is none."""
        raise AssertionError(f"the simulator has no real path for {path}")

    def lock(self, path: str) -> SimLock:
        """One holder a life."""
        if path in self.locks:
            raise InUse("the data folder is in use", path=path)
        self.locks.add(path)
        return SimLock(self, path)

    def worker(self, name: str, threads: int = 1) -> SimWorker:
        """A worker on virtual time."""
        return SimWorker(self, name, threads)
