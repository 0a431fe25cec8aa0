"""Which kernels run: the C extension where it was built, else the reference; `EDGESTORE_KERNEL` decides for both."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from edgestore.errors import ConfigError
from edgestore.kernels import reference
from edgestore.kernels.erasure import decode_with, reconstruct_with
from edgestore.kernels.reference import Head

KERNELS = ("gfni512", "gfni2", "avx2", "ssse3", "portable", "reference")


def _choose(forced: str) -> tuple[Any, str]:
    """The module to use, and the name of the kernel in it."""
    if forced and forced not in KERNELS:
        raise ConfigError(f"EDGESTORE_KERNEL={forced} is no kernel: use one of {', '.join(KERNELS)}, or leave it unset")
    if forced == "reference":
        return reference, "reference"
    try:
        from edgestore.kernels import _native
    except ImportError as error:
        if forced:
            message = (
                f"EDGESTORE_KERNEL={forced} needs the C extension, which is not built: install a C compiler, reinstall"
            )
            raise ConfigError(message) from error
        return reference, "reference"
    try:
        return _native, _native.start(forced or None)
    except RuntimeError as error:
        raise ConfigError(f"EDGESTORE_KERNEL={forced}: {error}") from error


_module, active_kernel = _choose(os.environ.get("EDGESTORE_KERNEL", ""))

crc32 = _module.crc32
crc32_combine = _module.crc32_combine
crc32c = _module.crc32c
crc32c_combine = _module.crc32c_combine
crc64nvme = _module.crc64nvme
crc64nvme_combine = _module.crc64nvme_combine
page_crcs = _module.page_crcs
encode = _module.encode
parse_head: Callable[[bytes], Head | None] = _module.parse_head


def reconstruct(
    stripe: bytearray | memoryview,
    k: int,
    m: int,
    shard_bytes: int,
    stride: int,
    lost: tuple[int, ...],
    crcs: bytes,
) -> bytes:
    """Rebuilds the lost shards in place from the first k that are left, checking everything read and written.

    `crcs`: what `encode` returned for the stripe. Returns the page CRCs of the rebuilt shards, in ascending order.
    Raises Corrupt (field `shard`) where a shard does not check out, ValueError where more than m are lost.
    """
    return reconstruct_with(_module.transform, stripe, k, m, shard_bytes, stride, lost, crcs)


def decode(
    stripe: bytearray | memoryview,
    k: int,
    m: int,
    shard_bytes: int,
    stride: int,
    present: tuple[int, ...],
    wanted: tuple[int, ...],
) -> bytes:
    """Makes the shards `wanted` in place from exactly the k that are `present`; nothing else counts.

    Returns the page CRCs of those made, in the order wanted: whoever has the CRCs of the inputs has checked them.
    """
    return decode_with(_module.transform, stripe, k, m, shard_bytes, stride, present, wanted)


class Syncer:
    """A thread that writes and syncs without the GIL, one write after the other."""

    def __init__(self, handle: object) -> None:
        self._handle = handle

    def write(self, fd: int, offset: int, data: bytes) -> None:
        """Hands a copy over. The result of the one before was taken."""
        _module.sync_write(self._handle, fd, offset, data)

    def result(self) -> int | None:
        """Once for each write: its errno, 0 where it is on the disk; None where nothing is done."""
        failed: int = _module.sync_result(self._handle)
        return failed if failed >= 0 else None

    def stop(self) -> None:
        """The end of it; what is being written is not waited for."""
        _module.sync_stop(self._handle)


def start_syncer(wake_fd: int) -> Syncer | None:
    """`wake_fd`: an eventfd, which hears of each write that is done. None where there is none, as in the reference."""
    start = getattr(_module, "sync_start", None)
    return Syncer(start(wake_fd)) if start is not None else None
