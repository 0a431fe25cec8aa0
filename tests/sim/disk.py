"""The simulator's disk and ordered store: they keep what was synced, and of the rest what the seed decides.

Rule: nothing here is kinder than a real disk. Unsynced writes vanish, survive or tear at 512-byte sectors, in any
order; a
renamed or created file that its folder was not synced for may be as it was before; a full disk refuses; a failed
sync fails.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sortedcontainers import SortedDict

from edgestore.errors import DiskFailed, InUse, StorageFull
from tests.sim.loop import Crash, SimLoop

T = TypeVar("T")
SECTOR_BYTES = 512


@dataclass
class Content:
    """The bytes of one file: as the page cache has them, and as the platter has them."""

    cached: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)

    def write(self, offset: int, data: bytes) -> None:
        """Into the page cache."""
        if len(self.cached) < offset:
            self.cached.extend(bytes(offset - len(self.cached)))
        self.cached[offset : offset + len(data)] = data
        self.unsynced.append((offset, data))

    def sync(self) -> None:
        """To the platter."""
        self.durable = bytearray(self.cached)
        self.unsynced.clear()

    def lose_power(self, rng: random.Random) -> None:
        """Of each unsynced write: nothing, all, or some of its sectors."""
        for offset, data in self.unsynced:
            fate = rng.random()
            if fate < 0.4:
                continue
            for start in range(0, len(data), SECTOR_BYTES):
                if fate < 0.7 or rng.random() < 0.5:
                    piece = data[start : start + SECTOR_BYTES]
                    if len(self.durable) < offset + start:
                        self.durable.extend(bytes(offset + start - len(self.durable)))
                    self.durable[offset + start : offset + start + len(piece)] = piece
        self.cached = bytearray(self.durable)
        self.unsynced.clear()


@dataclass
class Store:
    """The rows of one ordered store: `flushed` survives for certain, of `batches` an exact prefix does."""

    flushed: SortedDict = field(default_factory=SortedDict)
    batches: list[list[tuple[bytes, bytes | None]]] = field(default_factory=list)

    def lose_power(self, rng: random.Random) -> None:
        """Keeps a random prefix of the batches since the last flush."""
        for batch in self.batches[: rng.randint(0, len(self.batches))]:
            apply_batch(self.flushed, batch)
        self.batches.clear()


def apply_batch(rows: SortedDict, batch: Sequence[tuple[bytes, bytes | None]]) -> None:
    """One write batch, in order."""
    for key, value in batch:
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value


@dataclass
class CrashAtSync:
    """The power fails before the `left`-th sync of at least so many writes and bytes to a file below `prefix`."""

    prefix: str
    writes_min: int
    bytes_min: int
    left: int


class Disk:
    """What outlives a crash. Knobs: `capacity_bytes`, `sync_fails`, and the seed's generator."""

    def __init__(self, rng: random.Random, capacity_bytes: int = 1 << 40) -> None:
        self.rng = rng
        self.capacity_bytes = capacity_bytes
        self.sync_fails: Callable[[str], bool] = lambda path: False
        self.entries: dict[str, Content] = {}
        self.synced_entries: dict[str, Content] = {}
        self.stores: dict[str, Store] = {}
        self.operations = 0
        self.crash_at: int | None = None
        self.crash_at_sync: CrashAtSync | None = None

    def lose_power(self) -> None:
        """What a power cut leaves. Each folder is as last synced, or as it was at the cut."""
        folders = {path.rpartition("/")[0] for path in (*self.entries, *self.synced_entries)}
        for folder in sorted(folders):
            chosen = self.synced_entries if self.rng.random() < 0.5 else self.entries
            kept = {path: content for path, content in chosen.items() if path.rpartition("/")[0] == folder}
            for entries in (self.entries, self.synced_entries):
                for path in [path for path in entries if path.rpartition("/")[0] == folder]:
                    del entries[path]
                entries.update(kept)
        for path in sorted(self.entries):
            self.entries[path].lose_power(self.rng)
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
        """From the page cache."""
        self.files.touch()
        return bytes(self.content.cached[offset : offset + length])

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """From the page cache."""
        data = self.read_at(offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """The seed decides whether the page cache has it."""
        return self.read_at(offset, length) if self.files.disk.rng.random() < 0.5 else None

    def write_at(self, offset: int, *parts: bytes | memoryview) -> None:
        """Into the page cache; a crash may fall before it."""
        self.files.touch()
        data = b"".join(bytes(part) for part in parts)
        disk = self.files.disk
        if (
            disk.used_bytes() - len(self.content.cached) + max(len(self.content.cached), offset + len(data))
            > disk.capacity_bytes
        ):
            raise StorageFull("no space left on the simulated disk", path=self.path)
        self.content.write(offset, data)

    def sync(self) -> None:
        """To the platter; a crash may fall before or after it."""
        self.files.touch()
        self.files.touch_sync(self.path, self.content.unsynced)
        if self.files.disk.sync_fails(self.path):
            raise DiskFailed("the simulated disk failed a sync", path=self.path)
        self.content.sync()
        self.files.touch()

    def allocate(self, length: int) -> None:
        """Zeroes to `length`."""
        self.files.touch()
        if len(self.content.cached) < length:
            disk = self.files.disk
            if disk.used_bytes() - len(self.content.cached) + length > disk.capacity_bytes:
                raise StorageFull("no space left on the simulated disk", path=self.path)
            self.content.cached.extend(bytes(length - len(self.content.cached)))
            self.content.durable.extend(bytes(max(0, length - len(self.content.durable))))

    def truncate(self, length: int) -> None:
        """Cuts; at once on the platter, as a journalling file system orders it after the next sync at the latest."""
        self.files.touch()
        del self.content.cached[length:]
        del self.content.durable[length:]
        self.content.unsynced = [(at, data[: max(0, length - at)]) for at, data in self.content.unsynced if at < length]

    def punch(self, offset: int, length: int) -> None:
        """Frees the range: it reads as zeroes."""
        self.write_at(offset, bytes(min(length, max(0, len(self.content.cached) - offset))))

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
        end_s = start_s + rng.expovariate(2_000)
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

    def close(self) -> None:
        """No threads to end."""


class SimFiles:
    """edgestore.disk.Files of one life of a node: after a crash every call of it fails, and the next life gets a new
    one."""

    def __init__(self, disk: Disk, loop: SimLoop) -> None:
        self.disk, self.loop = disk, loop
        self.locks: set[str] = set()

    def touch(self) -> None:
        """Counts an operation; the power may fail here, in the middle of a callback."""
        if self.loop.crashed:
            raise Crash
        self.disk.operations += 1
        if self.disk.operations == self.disk.crash_at:
            self.loop.power_off()
            raise Crash

    def touch_sync(self, path: str, writes: list[tuple[int, bytes]]) -> None:
        """The power may fail just before a sync: what was written together is then torn apart."""
        crash = self.disk.crash_at_sync
        if crash is None or not path.startswith(crash.prefix) or len(writes) < crash.writes_min:
            return
        if sum(len(data) for _, data in writes) >= crash.bytes_min:
            crash.left -= 1
            if crash.left <= 0:
                self.loop.power_off()
                raise Crash

    def open(self, path: str, *, create: bool = False, write: bool = True) -> SimFile:
        """A file of the data folder."""
        self.touch()
        if path not in self.disk.entries:
            if not create:
                raise FileNotFoundError(path)
            self.disk.entries[path] = Content()
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
        del self.disk.entries[path]

    def rename(self, old: str, new: str) -> None:
        """Durable when the folder is synced."""
        self.touch()
        if old not in self.disk.entries:
            raise FileNotFoundError(old)
        self.disk.entries[new] = self.disk.entries.pop(old)

    def make_folder(self, path: str) -> None:
        """Folders need no entry here."""

    def sync_folder(self, path: str) -> None:
        """Makes the entries of a folder durable."""
        self.touch()
        folder = path.rstrip("/") if path not in ("", ".") else ""
        mine = {name: content for name, content in self.disk.entries.items() if name.rpartition("/")[0] == folder}
        for name in [name for name in self.disk.synced_entries if name.rpartition("/")[0] == folder]:
            del self.disk.synced_entries[name]
        self.disk.synced_entries.update(mine)

    def free_bytes(self) -> int:
        """What is left."""
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


class SimIndex:
    """edgestore.disk.OrderedStore over a `Store` of the disk."""

    def __init__(self, files: SimFiles, folder: str) -> None:
        self.files = files
        self.store = files.disk.stores.setdefault(folder, Store())
        self.rows: SortedDict = SortedDict(self.store.flushed)

    @classmethod
    def open(cls, files: SimFiles, folder: str, **_: object) -> SimIndex:
        """As RocksIndex.open."""
        return cls(files, folder)

    def get(self, key: bytes) -> bytes | None:
        """The newest value."""
        return self.rows.get(key)  # type: ignore[no-any-return]

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Rows in [start, stop)."""
        for key in list(self.rows.irange(start, stop, inclusive=(True, False), reverse=reverse)):
            value = self.rows.get(key)
            if value is not None:
                yield key, value

    def write(self, changes: Sequence[tuple[bytes, bytes | None]]) -> None:
        """One batch; not durable before a flush."""
        self.files.touch()
        batch = list(changes)
        apply_batch(self.rows, batch)
        self.store.batches.append(batch)

    def flush(self) -> None:
        """All batches so far are durable."""
        self.files.touch()
        for batch in self.store.batches:
            apply_batch(self.store.flushed, batch)
        self.store.batches.clear()
        self.files.touch()

    def snapshot(self) -> SimIndex:
        """A view that does not change."""
        view = SimIndex.__new__(SimIndex)
        view.files, view.store, view.rows = self.files, self.store, SortedDict(self.rows)
        return view

    def release(self) -> None:
        """Of a snapshot."""

    def close(self) -> None:
        """Nothing to free."""
