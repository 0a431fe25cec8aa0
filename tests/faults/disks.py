"""Disks that tests cut the power of, fill and damage: ext4 in a file, a small tmpfs, and bits of segments."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path

SEGMENT_HEADER_BYTES = 4096
FILL_PIECE_BYTES = 1024 * 1024


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class Mounted:
    """An ext4 file system in a file, mounted on a folder."""

    def __init__(self, folder: Path, image_bytes: int) -> None:
        folder.mkdir(exist_ok=True)
        self.image, self.copy, self.mount = folder / "disk.img", folder / "cut.img", folder / "mount"
        self.mount.mkdir()
        with self.image.open("wb") as file:
            file.truncate(image_bytes)
        _run("mkfs.ext4", "-q", "-F", str(self.image))
        self.attach()

    def attach(self) -> None:
        """Mounts the image."""
        _run("mount", "-o", "loop", str(self.image), str(self.mount))

    def detach(self) -> None:
        """Unmounts; what is still in the page cache goes to the image that is then thrown away."""
        _run("umount", str(self.mount))

    def keep(self) -> None:
        """The image as the block device has it now. Nobody may write any more."""
        _run("cp", "--sparse=always", str(self.image), str(self.copy))

    def restore(self) -> None:
        """Mounts what was kept in place of what is there."""
        self.detach()
        shutil.move(self.copy, self.image)
        self.attach()


class SmallDisk:
    """A tmpfs of a given size."""

    def __init__(self, mount: Path, size_bytes: int) -> None:
        self.mount, self._others = mount, mount / "others"
        mount.mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(mount))

    def fill(self, left_bytes: int) -> None:
        """Somebody else writes until so much is left."""
        with self._others.open("ab") as file:
            while (room := free_bytes(self.mount) - left_bytes) > 0:
                file.write(bytes(min(room, FILL_PIECE_BYTES)))
                file.flush()

    def empty(self) -> None:
        """What the others wrote goes."""
        self._others.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmounts."""
        _run("umount", "--lazy", str(self.mount))


def free_bytes(path: Path) -> int:
    """What the file system still takes."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def flip_bits(data: Path, rng: random.Random, count: int) -> int:
    """Flips single bits of fragments in the segments of a data folder; returns how many."""
    segments = [path for path in (data / "segments").glob("*.segment") if _used_bytes(path) > SEGMENT_HEADER_BYTES]
    if not segments:
        return 0
    for _ in range(count):
        path = rng.choice(segments)
        with path.open("r+b") as file:
            at = rng.randrange(SEGMENT_HEADER_BYTES, _used_bytes(path))
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << rng.randrange(8)]))
    return count


def _used_bytes(path: Path) -> int:
    """Segments are sparse behind their tail."""
    status = path.stat()
    return min(status.st_size, status.st_blocks * 512)
