"""Snapshots of the catalog between nodes: a checkpoint here, pulled piece by piece from there into a folder of its own.

Rule: the receiver asks for every piece, so it is never sent more than it takes; each piece is checked, each file synced
before the folder is, and the folder before anything names it. A receiver that lost its source goes on where it was,
as long as the source still has the checkpoint; after a restart it begins anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from edgestore.clock import Entropy
from edgestore.config import MetaConfig
from edgestore.consensus import Consensus, SnapshotBase, first_folder
from edgestore.disk import Files, OrderedStore, Worker
from edgestore.errors import BadRequest, EdgeStoreError, NotFound, StorageFull, TooBusy, Unavailable
from edgestore.kernels import crc32c
from edgestore.meta.wire import (
    CloseSnapshot,
    Manifest,
    MetaPort,
    OpenSnapshot,
    Piece,
    ReadPiece,
    SnapshotFile,
    decode,
    encode,
)
from edgestore.net import Lane, Method, Reply

log = logging.getLogger("edgestore.meta")

CHECKPOINT_TRIES = 3


def remove_others(files: Files, group: int, current: str) -> None:
    """Deletes what a snapshot replaced, and what was being received or sent when the node ended."""
    first = first_folder(group)
    for name in files.list(""):
        if name != current and (name == first or name.startswith(f"{first}.")):
            log.info("old-catalog-removed folder=%s", name)
            files.remove_folder(name)


@dataclass
class _Sent:
    """One checkpoint that is being pulled."""

    member: str
    folder: str
    manifest: Manifest
    release: Callable[[], None]
    until_s: float
    """The end, however often a piece is asked for: the log is held for as long."""
    expiry: asyncio.TimerHandle | None = None


class SnapshotSender:
    """What a member gives to those that lack entries it has no more. `store()`: the catalog as it is now."""

    def __init__(
        self,
        files: Files,
        worker: Worker,
        store: Callable[[], OrderedStore],
        consensus: Consensus,
        config: MetaConfig,
        *,
        group: int,
        entropy: Entropy,
    ) -> None:
        self._files, self._worker, self._store = files, worker, store
        self._consensus, self._config, self._group, self._entropy = consensus, config, group, entropy
        self._loop = asyncio.get_running_loop()
        self._sent: dict[bytes, _Sent] = {}
        self._making: dict[bytes, asyncio.Task[_Sent]] = {}

    def join(self, port: MetaPort) -> None:
        """Serves them."""
        port.serve(Method.SNAPSHOT_OPEN, self._group, self._open)
        port.serve(Method.SNAPSHOT_READ, self._group, self._read)
        port.serve(Method.SNAPSHOT_CLOSE, self._group, self._close)

    async def _open(self, member: str, request: OpenSnapshot, payload: memoryview) -> Reply:
        snapshot_id = request.snapshot_id
        sent = self._sent.get(snapshot_id)
        if sent is None:
            making = self._making.get(snapshot_id)
            if making is None:
                for other in [other for other in self._sent.values() if other.member == member]:
                    self._end(other)
                if len(self._sent) + len(self._making) >= self._config.snapshots_max:
                    raise TooBusy("enough snapshots are being sent (meta.snapshots_max)")
                making = self._making[snapshot_id] = self._loop.create_task(self._make(member, snapshot_id))
                making.add_done_callback(partial(self._made, snapshot_id))
            sent = await asyncio.shield(making)
        self._keep(sent)
        return Reply(encode(sent.manifest))

    def _made(self, snapshot_id: bytes, making: asyncio.Task[_Sent]) -> None:
        del self._making[snapshot_id]
        if not making.cancelled() and making.exception() is None:
            sent = self._sent[snapshot_id] = making.result()
            self._keep(sent)
            log.info("snapshot-begins group=%d member=%s folder=%s", self._group, sent.member, sent.folder)

    async def _make(self, member: str, snapshot_id: bytes) -> _Sent:
        """The log is kept from before the checkpoint, so that what follows it is here when the receiver has it."""
        checkpoint_id = self._entropy(8)
        folder = f"{first_folder(self._group)}.sent-{checkpoint_id.hex()}"
        release = self._consensus.hold_log()
        try:
            base = await self._checkpoint(folder)
            files = await self._worker.run(partial(self._sizes, folder))
        except BaseException:
            release()
            raise
        manifest = Manifest(snapshot_id, checkpoint_id, base.incarnation, base.members, files)
        size_bytes = sum(file.size_bytes for file in files)
        longest_s = self._config.snapshot_idle_s + size_bytes / self._config.snapshot_min_bytes_per_s
        return _Sent(member, folder, manifest, release, self._loop.time() + longest_s)

    async def _checkpoint(self, folder: str) -> SnapshotBase:
        """It contains at least what was applied before, and is of one incarnation."""
        for _ in range(CHECKPOINT_TRIES):
            base = self._consensus.snapshot_base()
            await self._worker.run(partial(self._store().checkpoint, folder))
            if self._consensus.incarnation == base.incarnation:
                return base
            await self._worker.run(partial(self._files.remove_folder, folder))
        raise Unavailable("the members change: ask again")

    def _sizes(self, folder: str) -> tuple[SnapshotFile, ...]:
        found = []
        for name in self._files.list(folder):
            file = self._files.open(f"{folder}/{name}", write=False)
            found.append(SnapshotFile(name, file.size()))
            file.close()
        return tuple(found)

    def _keep(self, sent: _Sent) -> None:
        if sent.expiry is not None:
            sent.expiry.cancel()
        idle_until_s = self._loop.time() + self._config.snapshot_idle_s
        sent.expiry = self._loop.call_at(min(idle_until_s, sent.until_s), self._end, sent)

    def _end(self, sent: _Sent) -> None:
        """It was received, or nobody has asked for it for a while."""
        if self._sent.pop(sent.manifest.snapshot_id, None) is None:
            return
        if sent.expiry is not None:
            sent.expiry.cancel()
        sent.release()

        def removed(_: object, error: BaseException | None) -> None:
            if error is not None:
                log.warning("snapshot-kept folder=%s error=%s", sent.folder, error)

        self._worker.submit(partial(self._files.remove_folder, sent.folder), removed)

    async def _read(self, member: str, request: ReadPiece, payload: memoryview) -> Reply:
        sent = self._sent.get(request.snapshot_id)
        if sent is None:
            raise NotFound("the snapshot is not here any more: begin another")
        if request.file >= len(sent.manifest.files) or request.length > self._config.snapshot_piece_bytes:
            raise BadRequest("the snapshot has no such piece")
        self._keep(sent)
        path = f"{sent.folder}/{sent.manifest.files[request.file].name}"
        data = await self._worker.run(lambda: _read_piece(self._files, path, request.offset, request.length))
        return Reply(encode(Piece(crc32c(data))), [data])

    async def _close(self, member: str, request: CloseSnapshot, payload: memoryview) -> Reply:
        if (sent := self._sent.get(request.snapshot_id)) is not None:
            self._end(sent)
        return Reply(b"")

    def close(self) -> None:
        """The next start deletes what is left."""
        for sent in list(self._sent.values()):
            if sent.expiry is not None:
                sent.expiry.cancel()
            sent.release()
        self._sent.clear()
        for making in self._making.values():
            making.cancel()


@dataclass
class _Partial:
    """What has come so far."""

    member: str
    folder: str
    manifest: Manifest
    file: int = 0
    offset: int = 0


class SnapshotReceiver:
    """Pulls a snapshot from another member."""

    def __init__(
        self, files: Files, worker: Worker, port: MetaPort, config: MetaConfig, *, group: int, entropy: Entropy
    ) -> None:
        self._files, self._worker, self._port, self._config, self._group = files, worker, port, config, group
        self._entropy = entropy
        self._partial: _Partial | None = None
        self._whole: _Partial | None = None
        self._finishing: asyncio.Task[None] | None = None

    async def receive(self, member: str) -> tuple[str, Manifest]:
        """The folder, synced, and what it consists of. Raises Unavailable where that member cannot (any more)."""
        partial_ = await self._begin(member)
        try:
            while partial_.file < len(partial_.manifest.files):
                await self._pull(partial_)
            await self._worker.run(partial(self._files.sync_folder, partial_.folder))
        except NotFound as error:
            self.drop(partial_.folder)
            raise Unavailable("the snapshot is gone at its source") from error
        self._partial, self._whole = None, partial_
        return partial_.folder, partial_.manifest

    async def _begin(self, member: str) -> _Partial:
        """Goes on with what the same source has begun to give."""
        known = self._partial
        wanted = known.manifest.snapshot_id if known is not None and known.member == member else self._entropy(8)
        request = OpenSnapshot(self._group, wanted)
        answer = await self._port.call(
            member, Method.SNAPSHOT_OPEN, request, timeout_s=self._config.snapshot_open_timeout_s
        )
        manifest = decode(answer.head, Manifest)
        if known is not None:
            if known.manifest == manifest:
                return known
            self.drop(known.folder)
        if self._files.free_bytes() < sum(file.size_bytes for file in manifest.files):
            raise StorageFull("no space left for a snapshot of the catalog: free space or add a disk")
        folder = f"{first_folder(self._group)}.{manifest.checkpoint_id.hex()}"
        await self._worker.run(partial(self._make_folder, folder))
        self._partial = _Partial(member, folder, manifest)
        return self._partial

    def _make_folder(self, folder: str) -> None:
        self._files.remove_folder(folder)
        self._files.make_folder(folder)

    async def _pull(self, partial_: _Partial) -> None:
        """The next piece of the current file; at its end the file is synced."""
        file = partial_.manifest.files[partial_.file]
        path = f"{partial_.folder}/{file.name}"
        length = min(self._config.snapshot_piece_bytes, file.size_bytes - partial_.offset)
        data = memoryview(b"")
        if length:
            place = (self._group, partial_.manifest.snapshot_id, partial_.file, partial_.offset, length)
            answer = await self._port.call(
                partial_.member,
                Method.SNAPSHOT_READ,
                ReadPiece(*place),
                timeout_s=self._config.snapshot_piece_timeout_s,
                lane=Lane.BULK,
            )
            data = memoryview(answer.payload)
            if len(data) != length or crc32c(data) != decode(answer.head, Piece).crc32c:
                raise Unavailable("a piece of the snapshot does not check out: ask again")
        is_last = partial_.offset + length == file.size_bytes
        offset = partial_.offset
        await self._worker.run(lambda: _write_piece(self._files, path, offset, data, is_last=is_last))
        partial_.offset += length
        if is_last:
            partial_.file, partial_.offset = partial_.file + 1, 0

    def finish(self) -> None:
        """It was switched to: its source need not keep it, nor the log behind it."""
        if self._whole is not None:
            self._finishing = asyncio.get_running_loop().create_task(self._finish(self._whole))
            self._whole = None

    async def _finish(self, partial_: _Partial) -> None:
        request = CloseSnapshot(self._group, partial_.manifest.snapshot_id)
        try:
            await self._port.call(partial_.member, Method.SNAPSHOT_CLOSE, request, timeout_s=1.0)
        except EdgeStoreError as error:
            log.debug("snapshot-close-failed member=%s error=%s", partial_.member, error)

    def drop(self, folder: str) -> None:
        """It is of no use."""
        if self._partial is not None and self._partial.folder == folder:
            self._partial = None

        def removed(_: object, error: BaseException | None) -> None:
            if error is not None:
                log.warning("snapshot-kept folder=%s error=%s", folder, error)

        self._worker.submit(partial(self._files.remove_folder, folder), removed)


def _read_piece(files: Files, path: str, offset: int, length: int) -> bytes:
    file = files.open(path, write=False)
    try:
        return file.read_at(offset, length)
    finally:
        file.close()


def _write_piece(files: Files, path: str, offset: int, data: memoryview, *, is_last: bool) -> None:
    file = files.open(path, create=True)
    try:
        if len(data):
            file.write_at(offset, data)
        if is_last:
            file.sync()
    finally:
        file.close()
