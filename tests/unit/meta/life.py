"""Journal, catalog and meta on one folder, as the core opens them, with an end that leaves nothing in order."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from edgestore.catalog import commands
from edgestore.clock import SystemClock
from edgestore.config import Config, DiskConfig
from edgestore.disk import Journal, RocksIndex, SystemFiles
from edgestore.meta import Meta
from edgestore.records import BucketRecord

CONFIG = Config(disk=DiskConfig(journal_file_bytes=256 * 1024))


class Life:
    """Journal, catalog and meta on one folder."""

    def __init__(self, folder: Path) -> None:
        self.files = SystemFiles(str(folder))
        self.meta: Meta
        self.journal: Journal
        self.store: RocksIndex

    async def open(self, config: Config = CONFIG, clock: Any = None) -> Life:
        """As the core opens them."""
        self.journal = Journal.open(self.files, "journal", config.disk, os.urandom)
        self.store = RocksIndex.open(self.files, "catalog", write_buffer_bytes=1 << 20, cache_bytes=1 << 20)
        try:
            self.meta = await Meta.open(
                self.files,
                self.journal,
                self.store,
                config.meta,
                config.consensus,
                clock=clock or SystemClock(),
                entropy=os.urandom,
                member="node-1",
            )
        except BaseException:
            self.kill()
            raise
        self.journal.on_failure = self.meta.fail
        return self

    def kill(self) -> None:
        """Nothing is flushed or marked."""
        if self.journal._idle is not None:
            self.journal._idle.cancel()
        self.journal._worker.close()
        if hasattr(self, "meta"):
            self.meta._worker.close()
        self.store.close()

    def copy(self, folder: Path) -> Life:
        """What a kill at this instant leaves on the disk, as another folder: RocksDB, closed, would write its rows."""
        shutil.copytree(self.files.root, folder)
        return Life(folder)

    async def close(self) -> None:
        """In order."""
        await self.meta.close()
        await self.journal.close()
        self.store.close()


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.wall, self.boot = 5_000_000, 100

    def wall_ms(self) -> int:
        """See edgestore.clock."""
        return self.wall

    def boot_ms(self) -> int:
        """See edgestore.clock."""
        return self.boot


def bucket(name: str) -> commands.CreateBucket:
    """A command that fails the second time."""
    return commands.CreateBucket(name, 1, 1, "us-east-1")


def put(bucket: BucketRecord, key: str, body: bytes = b"x") -> commands.PutObject:
    """An inline object."""
    return commands.PutObject(bucket.bucket_id, key, 1, 1, commands.Content(len(body), "etag", (), body))
