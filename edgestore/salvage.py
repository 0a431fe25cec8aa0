"""Copies out of a damaged data folder what still checks out: objects by name from the catalog and the journal, with
their older versions, the rest as bare chunks.

Rule: it only reads the folder (the catalog is opened as a copy); a byte that does not check out is never written.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from edgestore.catalog import Applier, GapApplier, State, list_objects, list_versions
from edgestore.chunks import Compression
from edgestore.config import Config
from edgestore.consensus import salvage_entries, salvage_folder
from edgestore.disk import FragmentInfo, OrderedStore, RocksIndex, SegmentFile, SystemFiles, open_segments, recover
from edgestore.errors import ConfigError, Corrupt, EdgeStoreError
from edgestore.records import BucketRecord, ListedVersion, VersionKind, VersionRecord

log = logging.getLogger("edgestore.node")

NAME_MAX = 200
PARTIAL = "~partial"
VERSIONS = "~versions"
CHUNKS = "~chunks"
"""No bucket has such a name."""


@dataclass
class Report:
    """What was saved and what was not. `versions`: older ones, beside the objects; `damaged`: places that did not check
    out, anything may have been lost in each; `missing_entries`: log entries that are nowhere."""

    objects: int = 0
    versions: int = 0
    chunks: int = 0
    bytes: int = 0
    damaged: int = 0
    missing_entries: int = 0

    def row(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self)


class Salvage:
    """One folder, one target."""

    def __init__(self, folder: str, target: Path, config: Config) -> None:
        self._files, self._target, self._config = SystemFiles(folder), target, config
        self._compression = Compression(config.chunks.compression_level, config.chunks.compression_saving_min)
        self._named: set[bytes] = set()
        self._chunks: dict[bytes, list[tuple[SegmentFile, FragmentInfo]]] = {}
        self.report = Report()

    def run(self) -> Report:
        """Saves what can be saved. The folder must not be open in a node (its lock is taken). Raises ConfigError where
        the target and the folder are not apart."""
        folder, target = Path(self._files.real_path(".")).resolve(), self._target.resolve()
        if target.is_relative_to(folder) or folder.is_relative_to(target):
            raise ConfigError(f"{self._target} and the data folder must lie apart: name a folder beside it")
        lock = self._files.lock("lock")
        try:
            for segment in open_segments(self._files, "segments"):
                self._read_segment(segment)
            self._target.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._target, prefix="~catalog-") as copy:
                self._save_names(SystemFiles(copy))
            self._save_chunks()
        finally:
            lock.release()
        return self.report

    def _read_segment(self, segment: SegmentFile) -> None:
        """Where its chunks lie, up to what another version wrote or the disk does not give."""
        try:
            for info in segment.scan():
                self._chunks.setdefault(info.fragment.chunk_id, []).append((segment, info))
        except EdgeStoreError as error:
            self._damaged("segment", error)

    # --- the catalog as it was, and what the journal adds --------------------------------------------

    def _save_names(self, copy: SystemFiles) -> None:
        store = self._open_copy(copy)
        try:
            self._replay(store)
            self._save_objects(State(store))
        except EdgeStoreError as error:
            self._damaged("catalog", error)
        finally:
            store.close()

    def _open_copy(self, copy: SystemFiles) -> OrderedStore:
        """The catalog; an empty one where it does not open, for what the journal holds."""
        folder = self._catalog_folder()
        if self._files.exists(folder):
            try:
                shutil.copytree(self._files.real_path(folder), copy.real_path("catalog"))
                return open_catalog(copy, "catalog")
            except (EdgeStoreError, OSError) as error:
                self._damaged("catalog", error)
        return open_catalog(copy, "empty")

    def _catalog_folder(self) -> str:
        """A snapshot may have put another in the place of the first one."""
        try:
            return salvage_folder(self._files, "journal")
        except (EdgeStoreError, OSError):
            return "catalog"

    def _replay(self, store: OrderedStore) -> None:
        """Whatever checks out of the journal, before damage and behind it. An operation that fails there failed
        before, or hangs on what is lost."""
        try:
            catalog = Applier(store)
            applier, applied = GapApplier(catalog, store), catalog.applied_index
            for index, term, payload in salvage_entries(self._files, "journal", applied, self._missing):
                try:
                    applier.apply(index, term, payload)
                except EdgeStoreError as error:
                    self._damaged(f"journal entry {index}", error)
        except EdgeStoreError as error:
            self._damaged("journal", error)
        self._check_journal()

    def _check_journal(self) -> None:
        """What a start would refuse: the indices do not tell of damage behind the last entry that is left."""
        try:
            if not recover(self._files, "journal").files:
                raise Corrupt("the journal has no files")
        except (EdgeStoreError, OSError) as error:
            self._damaged("journal", error)

    def _missing(self, first: int, last: int) -> None:
        self.report.missing_entries += last - first + 1
        self._damaged("journal", Corrupt(f"entries {first} to {last} are missing"))

    def _save_objects(self, state: State) -> None:
        for bucket in state.buckets():
            try:
                after, more = "", True
                while more:
                    page = list_objects(state, bucket, start_after=after)
                    for key, _ in page.entries:
                        self._save_object(state, bucket, key)
                    after, more = page.next, page.truncated
                self._save_versions(state, bucket)
            except EdgeStoreError as error:
                self._damaged(bucket.name, error)

    def _save_object(self, state: State, bucket: BucketRecord, key: str) -> None:
        try:
            record = state.head(bucket, key)
            if record is not None:
                self._save_version(state, bucket, record, self._target / bucket.name / file_name(key))
                self.report.objects += 1
        except EdgeStoreError as error:
            self._damaged(f"{bucket.name}/{key}", error)

    def _save_versions(self, state: State, bucket: BucketRecord) -> None:
        """All that are not current, each under its version id."""
        key, marker, more = "", None, True
        while more:
            page = list_versions(state, bucket, key_marker=key, version_marker=marker)
            for name, listed, is_latest in page.entries:
                if listed.kind is VersionKind.OBJECT and not is_latest:
                    self._save_older(state, bucket, name, listed)
            more = page.truncated and bool(page.entries)
            if more:
                key, last, _ = page.entries[-1]
                marker = (last.site_incarnation, last.log_index, last.position)

    def _save_older(self, state: State, bucket: BucketRecord, key: str, listed: ListedVersion) -> None:
        version = () if listed.is_null else (listed.site_incarnation, listed.log_index, listed.position)
        try:
            record = state.version(bucket, key, version)
            if record is not None:
                folder = self._target / VERSIONS / bucket.name / file_name(key)
                self._save_version(state, bucket, record, folder / record.version_id)
                self.report.versions += 1
        except EdgeStoreError as error:
            self._damaged(f"{bucket.name}/{key} version {listed.version_id}", error)

    def _save_version(self, state: State, bucket: BucketRecord, record: VersionRecord, path: Path) -> None:
        named: set[bytes] = set()
        self._write(path, self._pieces(state, bucket, record, named), record.size_bytes)
        self._named |= named

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

    # --- chunks ---------------------------------------------------------------------------------------

    def _plain(self, chunk_id: bytes) -> bytes:
        """The checked plain bytes of a chunk, of whichever copy checks out. Raises Corrupt."""
        failure: EdgeStoreError = Corrupt(f"chunk {chunk_id.hex()} is on no segment")
        for segment, info in self._chunks.get(chunk_id, ()):
            try:
                return self._unpacked(segment, info)
            except EdgeStoreError as error:
                failure = error
        raise failure

    def _unpacked(self, segment: SegmentFile, info: FragmentInfo) -> bytes:
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
            self._write(self._target / CHUNKS / chunk_id.hex(), iter((data,)), len(data))
            self.report.chunks += 1

    def _damaged(self, name: str, error: Exception) -> None:
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


def open_catalog(files: SystemFiles, folder: str) -> OrderedStore:
    """A copy, so it may be opened for writing."""
    return RocksIndex.open(files, folder, write_buffer_bytes=16 << 20, cache_bytes=8 << 20)


def file_name(key: str) -> str:
    """A name of its own for each key: quoted, and told apart by a digest where that is too long or a folder's name."""
    name = quote(key, safe=" ")
    if len(name) <= NAME_MAX and name not in (".", "..", PARTIAL):
        return name
    return f"{name[: NAME_MAX - 65]}~{hashlib.sha256(key.encode()).hexdigest()}"
