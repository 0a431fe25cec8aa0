"""Bodies cut into chunks and stored as fragments, read back in ranges, reclaimed when nothing names them any more."""

from typing import TYPE_CHECKING

from edgestore.chunks.assess import Assessor, Need
from edgestore.chunks.body import UNIT_WORTH_BYTES, Body, IteratorBody, bytes_body
from edgestore.chunks.compression import Compression
from edgestore.chunks.digests import Digests, WholeDigests
from edgestore.chunks.facts import Extent, Facts, Source, sources_of
from edgestore.chunks.mover import Clients, Mover
from edgestore.chunks.placed import PlacedChunk, StoredBody, stored_body
from edgestore.chunks.pool import Unit, UnitPool
from edgestore.chunks.reclaim import ChunkCatalog, Pin, Pins, Reclaimer
from edgestore.chunks.removal import Loss
from edgestore.chunks.repair import Repair
from edgestore.chunks.site import Sites
from edgestore.chunks.store import ChunkStore
from edgestore.chunks.survey import UNKNOWN, Progress
from edgestore.chunks.tidy import Tidier
from edgestore.later import later

if TYPE_CHECKING:
    from edgestore.chunks.remote import Calls
    from edgestore.chunks.server import FragmentServer
    from edgestore.chunks.site_store import SiteStore
else:
    __getattr__ = later(__name__, {"remote": ("Calls",), "server": ("FragmentServer",), "site_store": ("SiteStore",)})

__all__ = [
    "UNIT_WORTH_BYTES",
    "UNKNOWN",
    "Assessor",
    "Body",
    "Calls",
    "ChunkCatalog",
    "ChunkStore",
    "Clients",
    "Compression",
    "Digests",
    "Extent",
    "Facts",
    "FragmentServer",
    "IteratorBody",
    "Loss",
    "Mover",
    "Need",
    "Pin",
    "Pins",
    "PlacedChunk",
    "Progress",
    "Reclaimer",
    "Repair",
    "SiteStore",
    "Sites",
    "Source",
    "StoredBody",
    "Tidier",
    "Unit",
    "UnitPool",
    "WholeDigests",
    "bytes_body",
    "sources_of",
    "stored_body",
]
