"""The ordered store under catalog and segments: RocksDB with one column family and without its own log.

Rule: nothing is durable before `flush()` has returned; after a crash the store holds an exact prefix of the batches
written (rule 2), and the journal replays the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

from rocksdict import (
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DbClosedError,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from edgestore.disk.files import Files
from edgestore.errors import Closing, DiskFailed, EdgeStoreError, StorageFull, StoreDamaged

OPEN_FILES_MAX = 128
BLOOM_BITS_PER_KEY = 10
TABLE_FILE_BYTES = 32 * 1024 * 1024
BLOCK_BYTES = 16 * 1024
INDEX_PARTITION_BYTES = 4096
"""One index block for a whole table is larger than a shard of the cache, so every get read it again: 260 us against
2.6 us with a partitioned index, 32,000 rows with inline bodies."""
UNREADABLE = ("IO error: While pread", "IO error: While read")
"""How RocksDB names sectors that nobody can read: no better than wrong ones."""
IN_USE = ("Already borrowed", "Already mutably borrowed")
"""What rocksdict says where one thread closes what another one uses."""

Change = tuple[bytes, bytes | None]


class OrderedView(Protocol):
    """Rows in the order of their keys."""

    def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        ...

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Rows in [start, stop), ascending, or descending from just below `stop`."""
        ...


class OrderedStore(OrderedView, Protocol):
    """A view that can be written. Replaced by the simulator."""

    def write(self, changes: Sequence[Change]) -> None:
        """One atomic batch, in order; None deletes. Not durable before `flush`."""
        ...

    def flush(self) -> None:
        """Blocks until everything written before is durable: call it through a Worker."""
        ...

    def checkpoint(self, folder: str) -> None:
        """Makes `folder`, which must not be there, a store of its own: an exact prefix of the batches, with everything
        written before the call in it. Not durable. Blocks: call it through a Worker; writes go on meanwhile."""
        ...

    def close(self) -> None:
        """Closes without flushing."""
        ...


def _options(write_buffer_bytes: int, cache_bytes: int) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(write_buffer_bytes)
    options.set_max_write_buffer_number(3)
    options.set_allow_concurrent_memtable_write(False)  # writes come one after the other
    options.set_max_open_files(OPEN_FILES_MAX)
    options.set_target_file_size_base(TABLE_FILE_BYTES)
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(1)
    options.set_max_log_file_size(1 << 20)
    options.set_stats_dump_period_sec(0)
    options.set_paranoid_checks(True)
    table = BlockBasedOptions()
    table.set_block_cache(Cache(cache_bytes))
    table.set_bloom_filter(BLOOM_BITS_PER_KEY, False)
    table.set_block_size(BLOCK_BYTES)
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_metadata_block_size(INDEX_PARTITION_BYTES)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_format_version(5)
    options.set_block_based_table_factory(table)
    return options


def _bounded(stop: bytes) -> ReadOptions:
    options = ReadOptions()
    options.set_iterate_upper_bound(stop)
    return options


class RocksIndex:
    """`OrderedStore` on RocksDB."""

    def __init__(self, database: Rdict, files: Files, folder: str) -> None:
        self._database, self._files, self._folder = database, files, folder
        self._unlogged = WriteOptions()
        self._unlogged.disable_wal = True  # type: ignore[method-assign, assignment]
        found = cast(Callable[[bytes], bytes | None], database.get)

        def get(key: bytes) -> bytes | None:
            try:
                return found(key)
            except Exception as error:
                raise _translated(error, folder) from error

        self.get = get  # a closure costs 40 ns a call, a method that asks `self` for the database twice that

    def scan(self, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """See `OrderedView.scan`. An iterator of RocksDB also ends at a block that does not check out: its status tells
        the two ends apart."""
        bounds = _bounded(stop)  # rocksdict keeps a pointer into it: it must outlive the iterator
        try:
            rows = self._database.iter(bounds)
            read_key, read_value = cast(Any, rows.key), cast(Any, rows.value)
            if reverse:
                rows.seek_to_last()
                advance = rows.prev
            else:
                rows.seek(start)
                advance = rows.next
            key = read_key()
        except Exception as error:
            raise _translated(error, self._folder) from error
        while key is not None:
            if key < start:
                return
            yield key, read_value()
            advance()
            key = read_key()
        try:
            rows.status()
        except Exception as error:
            raise _translated(error, self._folder) from error

    @classmethod
    def open(cls, files: Files, folder: str, *, write_buffer_bytes: int, cache_bytes: int) -> RocksIndex:
        """Opens or creates the store in `folder` of the data folder. Raises StoreDamaged where it does not check out,
        DiskFailed or StorageFull where the disk refuses."""
        files.make_folder(folder)
        try:
            return cls(Rdict(files.real_path(folder), _options(write_buffer_bytes, cache_bytes)), files, folder)
        except Exception as error:
            raise _translated(error, folder) from error

    def write(self, changes: Sequence[Change]) -> None:
        """See `OrderedStore.write`."""
        batch = WriteBatch(raw_mode=True)
        for key, value in changes:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        try:
            self._database.write(batch, self._unlogged)
        except Exception as error:
            raise self._refused(error) from error

    def flush(self) -> None:
        """See `OrderedStore.flush`."""
        try:
            self._database.flush()
        except Exception as error:
            raise self._refused(error) from error

    def checkpoint(self, folder: str) -> None:
        """See `OrderedStore.checkpoint`. Table files are hard links: they cost nothing until a compaction drops them
        here."""
        try:
            Checkpoint(self._database).create_checkpoint(self._files.real_path(folder))
            os.chmod(self._files.real_path(folder), 0o700)  # RocksDB makes it for everybody
        except Exception as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> EdgeStoreError:
        """A write that fails is fatal, whatever the reason: what was written before may not reach the disk."""
        translated = _translated(error, self._folder)
        if isinstance(translated, StoreDamaged):
            return DiskFailed(f"RocksDB refused a write: {error}; check the disk", path=self._folder)
        return translated

    def close(self) -> None:
        """See `OrderedStore.close`."""
        try:
            self._database.close()
        except Exception as error:
            raise _translated(error, self._folder) from error


def _translated(error: Exception, folder: str) -> EdgeStoreError:
    """rocksdict raises bare exceptions whose text begins with RocksDB's kind of failure."""
    text = str(error)
    if isinstance(error, DbClosedError):
        return Closing(f"the store in {folder} is closed")
    if text in IN_USE:
        return Closing(f"the store in {folder} is still in use while it closes: try again later")
    if "No space left" in text:
        return StorageFull(f"no space left for the store in {folder}: free space or add a disk", path=folder)
    if text.startswith("IO error") and "No such file" not in text and not text.startswith(UNREADABLE):
        return DiskFailed(f"RocksDB in {folder}: {text}; check the disk", path=folder)
    return StoreDamaged(
        f"the store in {folder} does not check out: {text}; restore the data folder from a copy, or save what still "
        "checks out with `edgestore doctor --salvage`",
        path=folder,
    )
