"""The ordered store of the simulator: no log of its own, and what a crash leaves is a prefix of its batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sortedcontainers import SortedDict

from edgestore.errors import StoreDamaged
from tests.sim.disk import SimFiles
from tests.sim.platter import ROWS_FILE, Store, apply_batch, encode_rows


class SimIndex:
    """edgestore.disk.OrderedStore over a `Store` of the disk."""

    def __init__(self, files: SimFiles, folder: str) -> None:
        self.files = files
        if folder not in files.disk.stores:
            files.disk.stores[folder] = Store.received(files.disk.entries.get(f"{folder}/{ROWS_FILE}"))
        self.store = files.disk.stores[folder]
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

    def checkpoint(self, folder: str) -> None:
        """One file with all rows."""
        if self.files.list(folder) or folder in self.files.disk.stores:
            raise StoreDamaged("the folder of a checkpoint is there already", path=folder)
        file = self.files.open(f"{folder}/{ROWS_FILE}", create=True)
        file.write_at(0, encode_rows(self.rows))

    def snapshot(self) -> SimIndex:
        """A view that does not change."""
        view = SimIndex.__new__(SimIndex)
        view.files, view.store, view.rows = self.files, self.store, SortedDict(self.rows)
        return view

    def release(self) -> None:
        """Of a snapshot."""

    def close(self) -> None:
        """Nothing to free."""
