"""Copies out of a damaged data folder what still checks out: objects by name where the catalog opens, the rest as bare
chunks.

Rule: it only reads the folder; a byte that does not check out is never written.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from edgestore.catalog import State, list_objects
from edgestore.chunks import Compression
from edgestore.config import Config
from edgestore.disk import FragmentInfo, OrderedStore, RocksIndex, SegmentFile, SystemFiles, open_segments
from edgestore.errors import Corrupt, EdgeStoreError
from edgestore.records import BucketRecord, VersionRecord

log = logging.getLogger("edgestore.node")

NAME_MAX = 200
PARTIAL = "~partial"


@dataclass
class Report:
    """What was saved and what was not."""

    objects: int = 0
    chunks: int = 0
    bytes: int = 0
    damaged: int = 0

    def row(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self)


class Salvage:
    """One folder, one target."""

    def __init__(self, folder: str, target: Path, config: Config) -> None:
        self._files, self._target, self._config = SystemFiles(folder), target, config
        self._compression = Compression(config.chunks.compression_level, config.chunks.compression_saving_min)
        self._named: set[bytes] = set()
        self._chunks: dict[bytes, tuple[SegmentFile, FragmentInfo]] = {}
        self.report = Report()

    def run(self) -> Report:
        """Saves what can be saved. The folder must not be open in a node (its lock is taken)."""
        lock = self._files.lock("lock")
        try:
            for segment in open_segments(self._files, "segments"):
                for info in segment.scan():
                    self._chunks[info.fragment.chunk_id] = (segment, info)
            try:
                store = RocksIndex.open(self._files, "catalog", write_buffer_bytes=1 << 20, cache_bytes=8 << 20)
            except Corrupt as error:
                log.warning("salvage-without-names reason=%s", error)
            else:
                try:
                    self._save_objects(store)
                except EdgeStoreError as error:
                    self._damaged("catalog", error)
                finally:
                    store.close()
            self._save_chunks()
        finally:
            lock.release()
        return self.report

    def _plain(self, chunk_id: bytes) -> bytes:
        """The checked plain bytes of a chunk. Raises Corrupt."""
        if chunk_id not in self._chunks:
            raise Corrupt(f"chunk {chunk_id.hex()} is on no segment")
        segment, info = self._chunks[chunk_id]
        stored = segment.read(info)
        pieces, at = [], 0
        for unit in info.fragment.units:
            piece = stored[at : at + unit.stored_bytes]
            pieces.append(self._compression.unpack(piece, unit.plain_bytes) if unit.codec else bytes(piece))
            at += unit.stored_bytes
        return b"".join(pieces)

    def _save_chunks(self) -> None:
        """Those that no object saved has named: all of them where there are no names left."""
        for chunk_id in self._chunks.keys() - self._named:
            try:
                data = self._plain(chunk_id)
            except EdgeStoreError as error:
                self._damaged(chunk_id.hex(), error)
                continue
            self._write(self._target / "chunks" / chunk_id.hex(), iter((data,)), len(data))
            self.report.chunks += 1

    def _save_objects(self, store: OrderedStore) -> None:
        state = State(store)
        for bucket in state.buckets():
            after, more = "", True
            while more:
                page = list_objects(state, bucket, start_after=after)
                for key, _ in page.entries:
                    self._save_object(state, bucket, key)
                after, more = page.next, page.truncated

    def _save_object(self, state: State, bucket: BucketRecord, key: str) -> None:
        try:
            record = state.head(bucket, key)
            if record is not None:
                path = self._target / bucket.name / file_name(key)
                named: set[bytes] = set()
                self._write(path, self._pieces(state, bucket, record, named), record.size_bytes)
                self._named |= named
                self.report.objects += 1
        except EdgeStoreError as error:
            self._damaged(f"{bucket.name}/{key}", error)

    def _pieces(self, state: State, bucket: BucketRecord, record: VersionRecord, named: set[bytes]) -> Iterator[bytes]:
        """One chunk at a time: an object may be larger than the memory. Raises Corrupt."""
        if record.inline:
            yield state.inline(bucket, record)
        for extent in state.extents(bucket.owner, record.extents):
            if extent is None:
                raise Corrupt("an extent is missing")
            for chunk in extent.chunks:
                named.add(chunk.chunk_id)
                yield self._plain(chunk.chunk_id)

    def _damaged(self, name: str, error: EdgeStoreError) -> None:
        self.report.damaged += 1
        log.warning("salvage-left-out name=%s reason=%s", name, error)

    def _write(self, path: Path, pieces: Iterator[bytes], size_bytes: int) -> None:
        """Under its name only when it is whole. Raises Corrupt."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.parent / PARTIAL
        try:
            with partial.open("wb") as file:
                for piece in pieces:
                    file.write(piece)
                found = file.tell()
            if found != size_bytes:
                raise Corrupt(f"{found} of {size_bytes} bytes are left")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        self.report.bytes += size_bytes


def file_name(key: str) -> str:
    """A name of its own for each key: quoted, and told apart by a digest where that is too long or a folder's name."""
    name = quote(key, safe=" ")
    if len(name) <= NAME_MAX and name not in (".", "..", PARTIAL):
        return name
    return f"{name[: NAME_MAX - 65]}~{hashlib.sha256(key.encode()).hexdigest()}"
