"""`Files` on a folder of this machine.

Rule: every system call on content goes through here, and an OSError leaves as an error of the tree.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
from contextlib import suppress

from edgestore.disk.failures import translate, translated
from edgestore.disk.files import Buffer
from edgestore.disk.workers import SystemWorker
from edgestore.errors import DiskFailed, InUse

_RWF_NOWAIT = getattr(os, "RWF_NOWAIT", 0)
_RWF_DSYNC = getattr(os, "RWF_DSYNC", 0)
_VECTORS_MAX = 512


class SystemFile:
    """`File` on a descriptor."""

    __slots__ = ("_fd", "path")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd

    @property
    def descriptor(self) -> int | None:
        """For a thread that writes and syncs without Python; None where `write_synced` is another's."""
        return self._fd if type(self).write_synced is _plain_write_synced else None

    def read_at(self, offset: int, length: int) -> bytes:
        """See `File.read_at`."""
        try:
            data = os.pread(self._fd, length, offset)
            while 0 < len(data) < length and (more := os.pread(self._fd, length - len(data), offset + len(data))):
                data += more
        except OSError as error:
            raise translate(error, self.path) from error
        return data

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """See `File.read_into`."""
        done = 0
        try:
            while done < len(buffer):
                taken = os.preadv(self._fd, [buffer[done:]], offset + done)
                if not taken:
                    break
                done += taken
        except OSError as error:
            raise translate(error, self.path) from error
        return done

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """See `File.read_cached`."""
        data = bytearray(length)
        try:
            taken = os.preadv(self._fd, [data], offset, _RWF_NOWAIT)
        except OSError:
            return None
        return bytes(data) if taken == length else None

    def read_cached_into(self, offset: int, buffer: memoryview) -> bool:
        """See `File.read_cached_into`."""
        try:
            return os.preadv(self._fd, [buffer], offset, _RWF_NOWAIT) == len(buffer)
        except OSError:
            return False

    def write_at(self, offset: int, *parts: Buffer) -> None:
        """See `File.write_at`."""
        try:
            for start in range(0, len(parts), _VECTORS_MAX):
                vector = parts[start : start + _VECTORS_MAX]
                total = sum(len(part) for part in vector)
                written = os.pwritev(self._fd, vector, offset)
                if written < total:
                    self._write_rest(offset + written, b"".join(vector)[written:])
                offset += total
        except OSError as error:
            raise translate(error, self.path) from error

    def write_synced(self, offset: int, *parts: Buffer) -> None:
        """See `File.write_synced`. One call gives the GIL up once: a busy loop takes its time to hand it back."""
        if not _RWF_DSYNC or len(parts) > _VECTORS_MAX:
            self.write_at(offset, *parts)
            self.sync()
            return
        total = sum(len(part) for part in parts)
        try:
            written = os.pwritev(self._fd, parts, offset, _RWF_DSYNC)
            if written < total:
                self._write_rest(offset + written, b"".join(parts)[written:])
        except OSError as error:
            raise translate(error, self.path) from error
        if written < total:
            self.sync()

    def _write_rest(self, offset: int, rest: bytes) -> None:
        while rest:
            written = os.pwrite(self._fd, rest, offset)
            offset, rest = offset + written, rest[written:]

    def sync(self) -> None:
        """See `File.sync`."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            message = (
                f"fdatasync of {self.path} failed ({error.strerror}): the node stops; check the disk, then start again"
            )
            raise DiskFailed(message, path=self.path) from error

    def forget_cached(self, offset: int) -> None:
        """See `File.forget_cached`. The call takes whole pages only, and macOS has none."""
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # a file system without a page cache
                os.posix_fadvise(self._fd, offset - offset % mmap.PAGESIZE, 0, os.POSIX_FADV_DONTNEED)

    def allocate(self, length: int) -> None:
        """See `File.allocate`."""
        try:
            os.posix_fallocate(self._fd, 0, length)
        except OSError as error:
            raise translate(error, self.path) from error

    def truncate(self, length: int) -> None:
        """See `File.truncate`."""
        try:
            os.ftruncate(self._fd, length)
        except OSError as error:
            raise translate(error, self.path) from error

    def size(self) -> int:
        """See `File.size`."""
        with translated(self.path):
            return os.fstat(self._fd).st_size

    def close(self) -> None:
        """See `File.close`."""
        os.close(self._fd)


_plain_write_synced = SystemFile.write_synced


class SystemLock:
    """flock on a file of the data folder."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """See `Lock.release`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class SystemFiles:
    """`Files` on a folder of this machine."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        self._keep_others_out()

    def _keep_others_out(self) -> None:
        """Keys and secrets lie here. A folder that is neither a store nor empty may be anything: it stays as it is."""
        found = os.stat(self.root)
        if found.st_uid == os.geteuid() and found.st_mode & 0o077:
            names = os.listdir(self.root)
            if not names or "identity" in names:
                os.chmod(self.root, found.st_mode & 0o700)

    def _absolute(self, path: str) -> str:
        return os.path.join(self.root, path)

    def open(self, path: str, *, create: bool = False, write: bool = True) -> SystemFile:
        """See `Files.open`."""
        flags = (os.O_RDWR if write else os.O_RDONLY) | (os.O_CREAT if create else 0) | os.O_CLOEXEC
        with translated(path):
            return SystemFile(path, os.open(self._absolute(path), flags, 0o600))

    def list(self, folder: str) -> list[str]:
        """See `Files.list`."""
        try:
            with translated(folder):
                return sorted(os.listdir(self._absolute(folder)))
        except FileNotFoundError:
            return []

    def exists(self, path: str) -> bool:
        """See `Files.exists`."""
        return os.path.exists(self._absolute(path))

    def read(self, path: str) -> bytes:
        """See `Files.read`."""
        with translated(path), open(self._absolute(path), "rb") as file:
            return file.read()

    def replace(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """See `Files.replace`."""
        temporary = self._absolute(path) + ".new"
        with translated(path):
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(fd)
            os.rename(temporary, self._absolute(path))
        self.sync_folder(os.path.dirname(path))

    def remove(self, path: str) -> None:
        """See `Files.remove`."""
        with translated(path):
            os.unlink(self._absolute(path))

    def remove_folder(self, path: str) -> None:
        """See `Files.remove_folder`."""
        with translated(path), suppress(FileNotFoundError):
            shutil.rmtree(self._absolute(path))

    def rename(self, old: str, new: str) -> None:
        """See `Files.rename`."""
        with translated(old):
            os.rename(self._absolute(old), self._absolute(new))

    def make_folder(self, path: str) -> None:
        """See `Files.make_folder`."""
        with translated(path):
            os.makedirs(self._absolute(path), mode=0o700, exist_ok=True)
        self.sync_folder(os.path.dirname(path))

    def sync_folder(self, path: str) -> None:
        """See `Files.sync_folder`."""
        with translated(path):
            fd = os.open(self._absolute(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def free_bytes(self) -> int:
        """See `Files.free_bytes`."""
        with translated(self.root):
            status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize

    def real_path(self, path: str) -> str:
        """See `Files.real_path`."""
        return self._absolute(path)

    def lock(self, path: str) -> SystemLock:
        """See `Files.lock`."""
        with translated(path):
            fd = os.open(self._absolute(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            message = (
                f"the data folder {self.root} is in use by another process: stop it, or act through the running node"
            )
            raise InUse(message, path=self.root) from error
        return SystemLock(fd)

    def worker(self, name: str, threads: int = 1) -> SystemWorker:
        """See `Files.worker`."""
        return SystemWorker(name, threads)
