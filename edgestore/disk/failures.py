"""Errors of the operating system as errors of the tree."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from edgestore.errors import DiskFailed, EdgeStoreError, StorageFull

_FULL = (errno.ENOSPC, errno.EDQUOT)


def translate(error: OSError, path: str) -> EdgeStoreError:
    """An operating system error as one of the tree."""
    if error.errno in _FULL:
        return StorageFull(f"no space left while writing {path}: free space or add a disk", path=path)
    return DiskFailed(
        f"{error.strerror} ({errno.errorcode.get(error.errno or 0)}) on {path}: check the disk", path=path
    )


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """For calls on names. A missing file stays a FileNotFoundError: it is an answer, not a failure."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise translate(error, path) from error
