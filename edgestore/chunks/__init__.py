"""Bodies cut into chunks and stored as fragments, read back in ranges, reclaimed when nothing names them any more."""

from edgestore.chunks.body import UNIT_WORTH_BYTES, Body, IteratorBody, bytes_body
from edgestore.chunks.compression import Compression
from edgestore.chunks.digests import Digests, WholeDigests
from edgestore.chunks.pool import Unit, UnitPool
from edgestore.chunks.reclaim import ChunkCatalog, Pin, Pins, Reclaimer
from edgestore.chunks.store import ChunkStore
from edgestore.chunks.upload import StoredBody

__all__ = [
    "UNIT_WORTH_BYTES",
    "Body",
    "ChunkCatalog",
    "ChunkStore",
    "Compression",
    "Digests",
    "IteratorBody",
    "Pin",
    "Pins",
    "Reclaimer",
    "StoredBody",
    "Unit",
    "UnitPool",
    "WholeDigests",
    "bytes_body",
]
