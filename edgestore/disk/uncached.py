"""Writes past the page cache, for what is written behind clients' backs and read by nobody soon.

Rule: only pages that belong to one write as a whole go past it. Between the two ways the kernel keeps no order within
a page, and ends of a fragment share theirs with blocks and neighbours.
"""

from __future__ import annotations

import mmap
import os
from typing import cast

from edgestore.disk.files import Buffer, File
from edgestore.disk.system_files import SystemFile

UNCACHED_MIN_BYTES = 256 * 1024
"""Below it another descriptor costs more than it saves."""
_O_DIRECT = getattr(os, "O_DIRECT", 0)


def write_uncached(file: File, offset: int, data: Buffer) -> None:
    """`File.write_at`, and what is written takes no memory and pushes nothing out that clients read, where system, disk
    and the alignment of `data` allow it. It is as durable as what `write_at` writes: after the next sync."""
    view = memoryview(data).cast("B")
    begin, end = -offset % mmap.PAGESIZE, len(view) - (offset + len(view)) % mmap.PAGESIZE
    # Another kind of file, or one that a test has taken a call from, is written as it wants to be.
    is_worth_it = type(file) is SystemFile and end - begin >= UNCACHED_MIN_BYTES
    if not is_worth_it or not _went_past(cast("SystemFile", file), offset + begin, view[begin:end]):
        file.write_at(offset, view)
        return
    for at, part in ((0, view[:begin]), (end, view[end:])):
        if part:
            file.write_at(offset + at, part)


def _went_past(file: SystemFile, offset: int, view: memoryview) -> bool:
    """False, whatever the reason, where it has to be written again: the ordinary way knows what to make of it."""
    if not _O_DIRECT or file.descriptor is None:
        return False
    try:
        direct = os.open(f"/proc/self/fd/{file.descriptor}", os.O_WRONLY | _O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.pwrite(direct, view, offset) == len(view)
    except OSError:
        return False
    finally:
        os.close(direct)
