"""Segments on a real folder, as the core opens them; a disk that fails when told to."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from edgestore.config import DiskConfig
from edgestore.disk import FragmentInfo, FragmentUnit, RocksIndex, Segments, SystemFiles, compact
from edgestore.disk.files import Buffer
from edgestore.disk.readable import UNREADABLE_BYTES
from edgestore.disk.system_files import SystemFile
from edgestore.errors import DiskFailed, EdgeStoreError
from edgestore.kernels import page_crcs

CONFIG = DiskConfig(segment_bytes=1 << 20, reserve_bytes=0, compaction_bytes_per_s=1 << 30, scrub_bytes_per_s=1 << 30)


def chunk_id(number: int) -> bytes:
    """An id."""
    return (1).to_bytes(8, "big") + number.to_bytes(8, "big")


async def open_segments(folder: Path, config: DiskConfig = CONFIG, files: SystemFiles | None = None) -> Segments:
    """As the core opens them."""
    files = files or SystemFiles(str(folder))
    index = RocksIndex.open(files, "index", write_buffer_bytes=1 << 20, cache_bytes=1 << 20)
    return await Segments.open(files, "segments", index, config, entropy=os.urandom)


async def sync(segments: Segments) -> None:
    """Waits for the group sync."""
    future = asyncio.get_running_loop().create_future()
    segments.sync(lambda error: future.set_exception(error) if error else future.set_result(None))
    await future


async def put(segments: Segments, number: int, data: bytes) -> None:
    """A small fragment."""
    segments.put(chunk_id(number), data, (FragmentUnit(len(data), len(data)),))
    await sync(segments)


async def put_in_pieces(segments: Segments, number: int, data: bytes) -> None:
    """As an upload writes it."""
    writer = segments.begin(chunk_id(number), stored_max_bytes=len(data))
    writer.write(data)
    segments.wrote(writer)
    segments.seal(writer, (FragmentUnit(len(data), len(data)),), page_crcs(data))
    await sync(segments)


async def close(segments: Segments) -> None:
    """Closes both stores."""
    await segments.close()
    segments._index.close()


def kill(segments: Segments) -> None:
    """Ends the threads without flushing anything."""
    segments._sync_worker.close()
    segments._readers.close()
    segments._index.close()


async def compact_all(segments: Segments, config: DiskConfig = CONFIG) -> int:
    """Turns of compaction until there is nothing to do."""
    removed = 0
    while gone := await compact(segments, config):
        removed += gone
    return removed


def found(segments: Segments, number: int) -> FragmentInfo:
    """Where a fragment lies that must be there."""
    info = segments.lookup(chunk_id(number))
    assert info is not None
    return info


async def read(segments: Segments, number: int) -> bytes:
    """The whole fragment."""
    info = found(segments, number)
    return bytes(await segments.read(info, 0, info.fragment.stored_bytes))


def segment_file(folder: Path, number: int) -> Path:
    """The file of a segment."""
    return folder / "segments" / f"{number:016d}.segment"


def page_of(offset: int) -> int:
    """The page that a byte lies in."""
    return offset - offset % UNREADABLE_BYTES


def flip(path: Path, offset: int) -> None:
    """One bit of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


class FaultyFiles(SystemFiles):
    """The bottom may be replaced: `fault(call, path, offset)` returns what a call raises instead of being made."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.fault: Callable[[str, str, int], EdgeStoreError | None] = lambda call, path, offset: None
        self.synced: list[str] = []
        self.unreadable: set[tuple[str, int]] = set()
        """(path, offset of a page) that the disk cannot read."""

    def ask(self, call: str, path: str, offset: int = 0) -> None:
        """Before each call."""
        error = self.fault(call, path, offset)
        if error is not None:
            raise error

    def open(self, path: str, *, create: bool = False, write: bool = True) -> SystemFile:
        """A file that asks before it reads, writes and syncs."""
        plain, files = super().open(path, create=create, write=write), self

        class Faulty(SystemFile):
            """See FaultyFiles."""

            def read_at(self, offset: int, length: int) -> bytes:
                """Asks first."""
                files.ask("read", path, offset)
                for bad, page in files.unreadable:
                    if bad == path and page < offset + length and offset < page + UNREADABLE_BYTES:
                        raise DiskFailed("Input/output error (EIO)", path=path)
                return super().read_at(offset, length)

            def write_at(self, offset: int, *parts: Buffer) -> None:
                """Asks first."""
                files.ask("write", path, offset)
                super().write_at(offset, *parts)

            def write_synced(self, offset: int, *parts: Buffer) -> None:
                """Asks for both."""
                self.write_at(offset, *parts)
                self.sync()

            def sync(self) -> None:
                """Asks first."""
                files.ask("sync", path)
                files.synced.append(path)
                super().sync()

        return Faulty(plain.path, plain._fd)

    def replace(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Asks first."""
        self.ask("replace", path)
        super().replace(path, content, mode=mode)

    def remove(self, path: str) -> None:
        """Asks first."""
        self.ask("remove", path)
        super().remove(path)
