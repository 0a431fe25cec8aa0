"""Checksums, erasure coding, heads of requests, synced writes and aligned buffers: in C where it is built, else by the
reference.

`EDGESTORE_KERNEL` forces one kernel; a forced kernel that cannot run is an error, never a silent fallback.
"""

from edgestore.kernels.buffers import ALIGNMENT_BYTES, BufferPool, Buffers
from edgestore.kernels.reference import plain_length
from edgestore.kernels.selection import (
    Syncer,
    active_kernel,
    crc32,
    crc32_combine,
    crc32c,
    crc32c_combine,
    crc64nvme,
    crc64nvme_combine,
    decode,
    encode,
    page_crcs,
    parse_head,
    reconstruct,
    start_syncer,
)

__all__ = [
    "ALIGNMENT_BYTES",
    "BufferPool",
    "Buffers",
    "Syncer",
    "active_kernel",
    "crc32",
    "crc32_combine",
    "crc32c",
    "crc32c_combine",
    "crc64nvme",
    "crc64nvme_combine",
    "decode",
    "encode",
    "page_crcs",
    "parse_head",
    "plain_length",
    "reconstruct",
    "start_syncer",
]
