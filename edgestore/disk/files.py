"""The bottom: files, folders and locks of one data folder, as Protocols that a simulator replaces.

Rule: nothing in here does anything; `system_files.py` does it on this machine.
"""

from __future__ import annotations

from typing import Protocol

from edgestore.disk.workers import Worker

Buffer = bytes | bytearray | memoryview


class File(Protocol):
    """One open file. Offsets and lengths are bytes."""

    path: str

    def read_at(self, offset: int, length: int) -> bytes:
        """May be short at the end of the file."""
        ...

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fills `buffer` as far as the file goes; returns the bytes read."""
        ...

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """Only what the page cache holds (RWF_NOWAIT); None where the read would block or come short."""
        ...

    def read_cached_into(self, offset: int, buffer: memoryview) -> bool:
        """`read_cached` into memory of the caller's; False where it is not filled."""
        ...

    def write_at(self, offset: int, *parts: Buffer) -> None:
        """Writes all parts one behind the other. Raises StorageFull or DiskFailed."""
        ...

    def write_synced(self, offset: int, *parts: Buffer) -> None:
        """`write_at` and `sync` of what it wrote, in one call where the system has one. Raises what they raise."""
        ...

    def sync(self) -> None:
        """fdatasync. Raises DiskFailed; the caller must not try again, the kernel has dropped the pages."""
        ...

    def forget_cached(self, offset: int) -> None:
        """From `offset` on what was synced is read from the disk the next time, where the system has a call for it:
        after a sync that failed in a process before, the page cache takes for written what is not."""
        ...

    def allocate(self, length: int) -> None:
        """Reserves the first `length` bytes on the disk (posix_fallocate)."""
        ...

    def truncate(self, length: int) -> None:
        """Cuts or extends to `length`."""
        ...

    def size(self) -> int:
        """Length of the file."""
        ...

    def close(self) -> None:
        """Closes the descriptor."""
        ...


class Lock(Protocol):
    """A held lock."""

    def release(self) -> None:
        """Lets the next process in."""
        ...


class Files(Protocol):
    """One data folder. Paths are relative to it."""

    def open(self, path: str, *, create: bool = False, write: bool = True) -> File:
        """Opens a file; FileNotFoundError where it is missing and `create` is off."""
        ...

    def list(self, folder: str) -> list[str]:
        """Names in a folder, sorted; empty where the folder is missing."""
        ...

    def exists(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        ...

    def read(self, path: str) -> bytes:
        """A whole (small) file."""
        ...

    def replace(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Atomically: new file, fsync, rename, fsync of the folder."""
        ...

    def remove(self, path: str) -> None:
        """Removes a file; durable after `sync_folder`. FileNotFoundError where it is missing."""
        ...

    def remove_folder(self, path: str) -> None:
        """Removes a folder and all in it; durable after `sync_folder` of where it lay. Nothing where it is missing."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Renames a file; durable after `sync_folder`."""
        ...

    def make_folder(self, path: str) -> None:
        """Creates a folder and makes its name durable; nothing where it exists."""
        ...

    def sync_folder(self, path: str) -> None:
        """Makes the names in a folder durable."""
        ...

    def free_bytes(self) -> int:
        """Bytes that the file system still takes."""
        ...

    def real_path(self, path: str) -> str:
        """For RocksDB, which opens its files itself."""
        ...

    def lock(self, path: str) -> Lock:
        """Takes an exclusive lock. Raises InUse where another process has it."""
        ...

    def worker(self, name: str, threads: int = 1) -> Worker:
        """New threads; the caller closes the worker."""
        ...
