"""One dependable store from a few cheap machines: embedded (`open`), over the network (`connect`), or for asyncio
(`aio`)."""

from edgestore import aio
from edgestore.errors import EdgeStoreError
from edgestore.records import IfAbsent, IfMatch
from edgestore.store_types import Version
from edgestore.sync import Bucket, Object, Store, connect, open

__all__ = [
    "Bucket",
    "EdgeStoreError",
    "IfAbsent",
    "IfMatch",
    "Object",
    "Store",
    "Version",
    "aio",
    "connect",
    "open",
]
