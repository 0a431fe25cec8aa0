"""Members, snapshots and stop-signs in the journal: written where the rules say, and refused where they do not fit."""

from __future__ import annotations

import asyncio
import os
import tracemalloc
from pathlib import Path

import msgspec
import pytest

from edgestore.config import ConsensusConfig, DiskConfig
from edgestore.consensus.journal import RaftJournal
from edgestore.consensus.messages import Fetch, Fetched
from edgestore.consensus.transport import RaftPort
from edgestore.disk import Journal, JournalRecord, RecordKind, SystemFiles
from edgestore.disk.journal_recovery import FrameReader, recover
from edgestore.errors import Corrupt
from edgestore.records import Member, MembersRecord, SnapshotRecord
from tests.unit.consensus.group import DISK, Group
from tests.unit.consensus.several import Several
from tests.unit.disk.test_journal import append, open_journal

ONE = (Member("one"),)


def first_frame_kinds(folder: Path) -> list[set[RecordKind]]:
    """Of every file, the kinds in the frame that opens it."""
    files, kinds = SystemFiles(str(folder)), []
    for checked in recover(files, "journal").files:
        file = files.open(checked.path)
        frame = next(FrameReader(file, checked.number, checked.salt).frames())
        kinds.append({record.kind for record in frame.records})
        file.close()
    return kinds


async def test_every_file_but_the_first_begins_with_hard_state_and_members(tmp_path: Path) -> None:
    group = await Group(tmp_path).open()
    for _ in range(40):
        await group.propose(b"x" * 8000)
    group.kill()
    kinds = first_frame_kinds(tmp_path)
    assert len(kinds) > 3
    assert all({RecordKind.HARD_STATE, RecordKind.MEMBERS} <= found for found in kinds[1:])


async def test_members_are_written_once(tmp_path: Path) -> None:
    for _ in range(2):
        group = await Group(tmp_path).open()
        assert group.consensus._raft_journal.members == ONE
        group.kill()
    journal = open_journal(tmp_path, DISK)
    found = [record for record in journal.records(0) if record.kind is RecordKind.MEMBERS]
    assert {msgspec.msgpack.decode(record.payload, type=MembersRecord) for record in found} == {MembersRecord(ONE)}
    await journal.close()


async def test_the_journal_of_another_member_is_refused(tmp_path: Path) -> None:
    group = await Group(tmp_path).open()
    group.kill()
    other = Group(tmp_path)
    other.member = "two"
    with pytest.raises(Corrupt, match="belongs to member one"):
        await other.open()


async def test_a_snapshot_names_its_folder_and_members(tmp_path: Path) -> None:
    group = await Group(tmp_path).open()
    await group.propose(b"x")
    index = group.machine.applied_index
    flushed: list[int] = []

    async def flush() -> None:
        await group.propose(b"applied while the flush ran")
        flushed.append(group.machine.applied_index)

    async with asyncio.timeout(5):
        await group.consensus.snapshot(flush)
    assert flushed == [index + 1]
    group.kill()
    journal = open_journal(tmp_path, DISK)
    found = [record for record in journal.records(0) if record.kind is RecordKind.SNAPSHOT]
    assert {record.index for record in found} == {index}, "what was applied before the flush began"
    assert msgspec.msgpack.decode(found[0].payload, type=SnapshotRecord) == SnapshotRecord("catalog", ONE)
    await journal.close()


@pytest.mark.parametrize(
    "record",
    [
        JournalRecord(0, 0, RecordKind.STOP_SIGN, 5, 1, b"\xc1"),
        JournalRecord(0, 1, RecordKind.HARD_STATE, term=2, payload=b"one"),
        JournalRecord(0, 0, RecordKind.MEMBERS, payload=b"\xc1"),
    ],
    ids=["stop-sign", "incarnation", "payload"],
)
async def test_what_this_version_does_not_know_is_refused(tmp_path: Path, record: JournalRecord) -> None:
    group = await Group(tmp_path).open()
    await append(group.journal, record)
    group.kill()
    with pytest.raises(Corrupt, match="version"):
        await Group(tmp_path).open()


async def test_a_start_does_not_hold_what_was_applied(tmp_path: Path) -> None:
    """Of 12 MiB in the journal a start keeps what the state machine lacks, and reads through a window."""
    config = DiskConfig(journal_file_bytes=16 * 1024 * 1024)
    journal = open_journal(tmp_path, config)
    for index in range(2, 50):
        await append(journal, JournalRecord(0, 0, RecordKind.ENTRY, index, 1, b"\x00" + os.urandom(256 * 1024)))
    await journal.close()
    tracemalloc.start()
    try:
        again = Journal.open(SystemFiles(str(tmp_path)), "journal", config, os.urandom)
        log = RaftJournal(again, 0, applied_index=47)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [entry[1] for entry in log.entries] == [47, 48, 49]
    assert peak_bytes < 6 * 1024 * 1024
    await again.close()


async def test_who_has_fetched_is_known_of_as_many_members_as_the_setting_says(tmp_path: Path) -> None:
    group = await Group(tmp_path).open()
    await group.propose(b"one")
    fetches, known_max = group.consensus._fetches, ConsensusConfig().fetches_max
    names = [f"member {number}" for number in range(known_max + 10)]
    for name in [*names, names[20]]:
        await fetches.serve(name, Fetch(0, group.consensus.incarnation, 0, 0))
    assert list(fetches.fetched) == [*names[10:20], *names[21:], names[20]]
    group.kill()


def test_an_answer_to_another_question_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Taken for the next one it would append entries that are there already, under other indices."""
    site, whole, earlier, again = Several(), RaftPort.fetch, list[Fetched](), [3]

    async def fetch(self: RaftPort, member: str, asked: Fetch, timeout_s: float) -> Fetched:
        if earlier and again[0]:
            again[0] -= 1
            return earlier[0]
        answer = await whole(self, member, asked, timeout_s)
        earlier.extend([answer] if answer.entries else [])
        return answer

    async def main() -> None:
        monkeypatch.setattr(RaftPort, "fetch", fetch)
        await site.add("a", "b", "c")
        leader = await site.leader()
        await site.propose(leader, b"first")
        await site.add("d", founders=("a", "b", "c"))
        learner = site.members["d"]
        await learner.groups[0].read_barrier()
        await site.propose(leader, b"second")
        await site.until(lambda: len(learner.machines[0].payloads) == 2)
        assert learner.machines[0].payloads == [b"first", b"second"]
        assert learner.groups[0].status().last_index == leader.groups[0].status().last_index
        assert again == [0]

    site.run(main())
