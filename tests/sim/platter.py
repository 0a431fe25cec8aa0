"""What a power cut leaves of files, folders and ordered stores, as the seed decides."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from sortedcontainers import SortedDict

from edgestore.disk.readable import UNREADABLE_BYTES
from edgestore.errors import StoreDamaged

SECTOR_BYTES = 512
ROWS_FILE = "rows"
"""What a checkpoint of a simulated store consists of."""


@dataclass
class Content:
    """The bytes of one file: as the page cache has them, and as the platter has them. `unsynced`: writes in order, and
    new lengths (no data). `unreadable`: offsets of the pages with a sector that the platter does not give."""

    cached: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes | None]] = field(default_factory=list)
    unreadable: set[int] = field(default_factory=set)

    def write(self, offset: int, data: bytes) -> None:
        """Into the page cache. A page that is written has another sector in the place of the bad one."""
        _put(self.cached, offset, data)
        self.unsynced.append((offset, data))
        self.unreadable = {page for page in self.unreadable if not overlaps(page, offset, len(data))}

    def resize(self, length: int) -> None:
        """Cuts, or adds zeroes."""
        _resize(self.cached, length)
        self.unsynced.append((length, None))

    def sync(self) -> None:
        """To the platter, and only what the page cache takes for unwritten."""
        for offset, data in self.unsynced:
            if data is None:
                _resize(self.durable, offset)
            else:
                _put(self.durable, offset, data)
        self.unsynced.clear()

    def fail_sync(self, rng: random.Random) -> None:
        """Some of it is on the platter; the page cache keeps all and takes it for written."""
        self._write_some(rng)

    def lose_power(self, rng: random.Random) -> None:
        """Of each unsynced write: nothing, all, or some of its sectors."""
        self._write_some(rng)
        self.cached = bytearray(self.durable)

    def _write_some(self, rng: random.Random) -> None:
        for offset, data in self.unsynced:
            fate = rng.random()
            if fate < 0.3:
                continue
            if data is None:
                _resize(self.durable, offset)
                continue
            for start in range(0, len(data), SECTOR_BYTES):
                if fate < 0.5 or rng.random() < 0.5:
                    _put(self.durable, offset + start, data[start : start + SECTOR_BYTES])
        self.unsynced.clear()


def overlaps(page: int, offset: int, length: int) -> bool:
    """Whether something of these bytes lies in the page."""
    return page < offset + length and offset < page + UNREADABLE_BYTES


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _resize(content: bytearray, length: int) -> None:
    del content[length:]
    content.extend(bytes(length - len(content)))


@dataclass
class Store:
    """The rows of one ordered store: `flushed` survives for certain, of `batches` an exact prefix does."""

    flushed: SortedDict = field(default_factory=SortedDict)
    batches: list[list[tuple[bytes, bytes | None]]] = field(default_factory=list)
    origin: tuple[Content, bytes] | None = None
    """The file that it was received as, and what was in it: unless that was synced, it goes with the power."""

    @classmethod
    def received(cls, file: Content | None) -> Store:
        """One that is opened for the first time: empty, or what a checkpoint left in its folder."""
        if file is None:
            return cls()
        data = bytes(file.cached)
        try:
            rows = msgspec.msgpack.decode(data, type=list[tuple[bytes, bytes]])
        except msgspec.MsgspecError as error:
            raise StoreDamaged(f"a checkpoint does not check out: {error}") from error
        return cls(SortedDict(rows), origin=(file, data))

    def is_lost(self, file: Content | None) -> bool:
        """Whether the power cut took the file that it was received as."""
        return self.origin is not None and (file is not self.origin[0] or file.cached != self.origin[1])

    def lose_power(self, rng: random.Random) -> None:
        """Keeps a random prefix of the batches since the last flush."""
        for batch in self.batches[: rng.randint(0, len(self.batches))]:
            apply_batch(self.flushed, batch)
        self.batches.clear()


def encode_rows(rows: SortedDict) -> bytes:
    """A checkpoint's file."""
    return msgspec.msgpack.encode(list(rows.items()))


def apply_batch(rows: SortedDict, batch: Sequence[tuple[bytes, bytes | None]]) -> None:
    """One write batch, in order."""
    for key, value in batch:
        if value is None:
            rows.pop(key, None)
        else:
            rows[key] = value


@dataclass
class EntryChange:
    """One change of a folder, which happens whole or not at all. `gone`: the old name of what was renamed."""

    path: str
    content: Content | None
    gone: str = ""

    @property
    def folder(self) -> str:
        """Whose entry it is."""
        return self.path.rpartition("/")[0]

    def apply(self, entries: dict[str, Content]) -> None:
        """To the folder as the system has it, or as the platter has it."""
        if self.content is None:
            entries.pop(self.path, None)
            return
        entries[self.path] = self.content
        if self.gone and entries.get(self.gone) is self.content:
            del entries[self.gone]
