"""One group on a real journal, with a state machine that only keeps what it was given."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from edgestore.config import DiskConfig
from edgestore.consensus import RaftConsensus
from edgestore.disk import Journal, SystemFiles

DISK = DiskConfig(journal_file_bytes=64 * 1024)


class Machine:
    """`StateMachine`: the entries, in order. `floor`: what a flushed one would contain after a restart."""

    def __init__(self, applied_index: int = 0) -> None:
        self.applied_index = applied_index
        self.entries: list[tuple[int, int, bytes]] = []
        self.failure: Exception | None = None

    def apply(self, index: int, term: int, payload: bytes | memoryview) -> list[object]:
        """Each entry once and in order, or the test fails."""
        if self.failure is not None:
            raise self.failure
        assert index == self.applied_index + 1
        self.applied_index = index
        self.entries.append((index, term, bytes(payload)))
        return [bytes(payload)]

    @property
    def payloads(self) -> list[bytes]:
        """Without the first entries of leaders."""
        return [payload for _, _, payload in self.entries if payload]


class Group:
    """Journal and consensus on one folder."""

    def __init__(self, folder: Path, *, applied_index: int = 0, disk: DiskConfig = DISK) -> None:
        self.folder, self.disk = folder, disk
        self.machine, self.member = Machine(applied_index), "one"
        self.journal: Journal
        self.consensus: RaftConsensus

    async def open(self) -> Group:
        """As meta opens it."""
        self.journal = Journal.open(SystemFiles(str(self.folder)), "journal", self.disk, os.urandom)
        try:
            self.consensus = RaftConsensus(self.journal, self.machine, member=self.member)
            async with asyncio.timeout(5):
                await self.consensus.start()
        except BaseException:
            self.kill()
            raise
        return self

    async def propose(self, payload: bytes) -> list[object]:
        """The outcomes, or the error."""
        future: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()

        def done(outcomes: list[object] | None, error: BaseException | None) -> None:
            if error is not None or outcomes is None:
                future.set_exception(error or AssertionError("neither outcomes nor error"))
            else:
                future.set_result(outcomes)

        self.consensus.propose(payload, done)
        async with asyncio.timeout(5):
            return await future

    async def trim(self, index: int, term: int) -> None:
        """The machine has made everything up to `index` durable."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.consensus.trim(index, term, lambda: future.set_result(None))
        async with asyncio.timeout(5):
            await future

    def copy(self, folder: Path, *, applied_index: int = 0) -> Group:
        """What a kill at this instant leaves, as another folder."""
        shutil.copytree(self.folder, folder)
        return Group(folder, applied_index=applied_index, disk=self.disk)

    def kill(self) -> None:
        """Nothing is flushed or marked."""
        if self.journal._idle is not None:
            self.journal._idle.cancel()
        self.journal._worker.close()
