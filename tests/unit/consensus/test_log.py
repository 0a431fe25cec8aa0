"""Entries are durable before they are applied, come once each and in order, and terms and indices go on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from edgestore.config import DiskConfig
from edgestore.consensus import RaftConsensus
from edgestore.consensus import core as consensus_core
from edgestore.disk import Journal, JournalRecord, RecordKind, SystemFiles
from edgestore.errors import Closing, Corrupt, EdgeStoreError, TooBusy
from tests.unit.consensus.group import DISK, Group


async def test_a_lone_voter_leads_at_once(tmp_path: Path) -> None:
    group = await Group(tmp_path).open()
    assert group.consensus.can_read_now()
    status = group.consensus.status()
    assert (status.is_leader, status.term, status.applied_index) == (True, 1, 2)
    await group.consensus.read_barrier()
    group.kill()


async def test_term_and_vote_are_in_the_journal_before_the_first_entry_of_the_term(tmp_path: Path) -> None:
    group = await Group(tmp_path / "a").open()
    await group.propose(b"x")
    group.copy(tmp_path / "b")
    group.kill()
    found = Journal.open(SystemFiles(str(tmp_path / "b")), "journal", DISK, bytes).records(0)
    kinds = [(record.kind, record.index, record.term, record.payload) for record in found]
    assert kinds.pop(0)[0] is RecordKind.MEMBERS
    assert kinds[0] == (RecordKind.HARD_STATE, 0, 1, b"one")
    assert [kind[:3] for kind in kinds[1:]] == [(RecordKind.ENTRY, 2, 1), (RecordKind.ENTRY, 3, 1)]


async def test_every_restart_replays_what_the_machine_had_not_kept(tmp_path: Path) -> None:
    expected: list[bytes] = []
    term = 0
    group = Group(tmp_path / "0")
    for turn in range(1, 6):
        await group.open()
        assert group.machine.payloads == expected
        assert group.consensus.status().term > term
        term = group.consensus.status().term
        for number in range(10):
            payload = f"{turn}/{number}".encode()
            assert await group.propose(payload) == [payload]
            expected.append(payload)
        killed = group.copy(tmp_path / str(turn))
        group.kill()
        group = killed


async def test_nothing_is_applied_before_its_sync(tmp_path: Path) -> None:
    group = await Group(tmp_path).open()
    order: list[str] = []
    written, apply = group.journal._written, group.machine.apply

    def watched_written(*outcome: Any) -> None:
        order.append("synced")
        written(*outcome)

    def watched_apply(index: int, term: int, payload: bytes | memoryview) -> list[object]:
        order.append("applied")
        return apply(index, term, payload)

    with (
        mock.patch.object(group.journal, "_written", watched_written),
        mock.patch.object(group.machine, "apply", watched_apply),
    ):
        for _ in range(5):
            await group.propose(b"x")
    assert order == ["synced", "applied"] * 5
    group.kill()


async def test_a_member_that_counts_itself_before_its_sync_is_seen(tmp_path: Path) -> None:
    """The rule broken on purpose: the test above can fail."""
    group = await Group(tmp_path).open()
    advance = consensus_core.Core._advance_commit

    def broken(core: consensus_core.Core) -> None:
        core._raft_journal.synced_index = core._raft_journal.entries[-1][1]
        advance(core)

    with mock.patch.object(consensus_core.Core, "_advance_commit", broken):
        before = group.machine.applied_index
        group.consensus.propose(b"x", lambda outcomes, error: None)
        assert group.machine.applied_index == before + 1
    group.kill()


async def test_entries_of_an_older_term_are_committed_by_one_of_this_term_only(tmp_path: Path) -> None:
    group = await Group(tmp_path / "a").open()
    await group.propose(b"old")
    killed = group.copy(tmp_path / "b")
    group.kill()
    killed.journal = Journal.open(SystemFiles(str(killed.folder)), "journal", DISK, bytes)
    killed.consensus = RaftConsensus(killed.journal, killed.machine, member="one")
    starting = asyncio.ensure_future(killed.consensus.start())
    await asyncio.sleep(0)  # leads, and its first entry is not synced yet
    assert killed.consensus.status().committed_index == 1
    assert killed.machine.payloads == []
    starting.cancel()
    killed.kill()


async def test_the_log_goes_on_after_a_trim(tmp_path: Path) -> None:
    group = await Group(tmp_path / "a").open()
    for _ in range(40):
        await group.propose(b"x" * 8000)
    kept = group.consensus.status()
    await group.trim(kept.applied_index, kept.term)
    await asyncio.sleep(0.1)
    assert len(list((tmp_path / "a" / "journal").glob("*.journal"))) <= 2
    await group.propose(b"after")
    killed = group.copy(tmp_path / "b", applied_index=kept.applied_index)
    group.kill()
    await killed.open()
    assert killed.machine.payloads == [b"after"]
    assert killed.consensus.status().term == kept.term + 1
    killed.kill()


@pytest.mark.parametrize("behind", [1, 20])
async def test_a_machine_behind_a_trimmed_log_is_refused(tmp_path: Path, behind: int) -> None:
    group = await Group(tmp_path / "a").open()
    for _ in range(40):
        await group.propose(b"x" * 8000)
    kept = group.consensus.status()
    await group.trim(kept.applied_index, kept.term)
    await asyncio.sleep(0.1)
    first = min(
        record.index
        for record in Journal.open(SystemFiles(str(group.copy(tmp_path / "b").folder)), "journal", DISK, bytes).records(
            0
        )
        if record.kind is RecordKind.ENTRY
    )
    killed = group.copy(tmp_path / "c", applied_index=first - 1 - behind)
    group.kill()
    with pytest.raises(Corrupt, match="journal begins at"):
        await killed.open()


async def test_a_machine_ahead_of_its_log_is_refused(tmp_path: Path) -> None:
    group = await Group(tmp_path / "a").open()
    await group.propose(b"x")
    killed = group.copy(tmp_path / "b", applied_index=group.machine.applied_index + 1)
    group.kill()
    with pytest.raises(Corrupt, match="ahead of its journal"):
        await killed.open()


async def test_a_gap_in_the_log_is_refused(tmp_path: Path) -> None:
    journal = Journal.open(SystemFiles(str(tmp_path / "a")), "journal", DISK, bytes)
    for index in (2, 3, 5):
        journal.append(JournalRecord(0, 0, RecordKind.ENTRY, index, 1, b"\x00x"))
    await journal.close()
    with pytest.raises(Corrupt, match="no entry 4"):
        await Group(tmp_path / "a").open()


async def test_entries_cut_by_a_truncation_do_not_come_back(tmp_path: Path) -> None:
    journal = Journal.open(SystemFiles(str(tmp_path)), "journal", DISK, bytes)
    for index, payload in ((2, b"\x00kept"), (3, b"\x00cut"), (4, b"\x00cut")):
        journal.append(JournalRecord(0, 0, RecordKind.ENTRY, index, 1, payload))
    journal.append(JournalRecord(0, 0, RecordKind.TRUNCATE, 3, 2))
    journal.append(JournalRecord(0, 0, RecordKind.ENTRY, 3, 2, b"\x00new"))
    await journal.close()
    group = await Group(tmp_path).open()
    assert group.machine.payloads == [b"kept", b"new"]
    assert group.consensus.status().term == 3
    group.kill()


async def test_what_the_journal_refuses_is_in_nobodys_log(tmp_path: Path) -> None:
    group = await Group(
        tmp_path / "a", disk=DiskConfig(journal_file_bytes=64 * 1024, journal_pending_max_bytes=100)
    ).open()
    answers: list[BaseException | None] = []
    for number in range(5):
        group.consensus.propose(b"%d" % number * 200, lambda outcomes, error: answers.append(error))
    async with asyncio.timeout(5):
        while len(answers) < 5:
            await asyncio.sleep(0.01)
    assert {type(error) for error in answers} == {type(None), TooBusy}
    assert await group.propose(b"after") == [b"after"]
    killed = group.copy(tmp_path / "b")
    group.kill()
    await killed.open()
    assert killed.machine.payloads == group.machine.payloads
    killed.kill()


async def test_an_entry_that_cannot_be_applied_stops_the_member(tmp_path: Path) -> None:
    group = await Group(tmp_path / "a").open()
    failures: list[BaseException] = []
    group.consensus.on_failure = failures.append
    group.machine.failure = OSError("the catalog is gone")
    answers: list[object] = []
    group.consensus.propose(b"x", lambda outcomes, error: answers.append((outcomes, error)))
    await asyncio.sleep(0.2)
    assert [type(failure.__cause__) for failure in failures] == [OSError]
    assert answers == []
    assert not group.consensus.can_read_now()
    with pytest.raises(Closing):
        await group.propose(b"later")
    killed = group.copy(tmp_path / "b")
    group.kill()
    await killed.open()
    assert killed.machine.payloads == [b"x"]
    killed.kill()


async def test_an_entry_that_cannot_be_applied_ends_the_start(tmp_path: Path) -> None:
    group = await Group(tmp_path / "a").open()
    await group.propose(b"x")
    killed = group.copy(tmp_path / "b")
    group.kill()
    killed.machine.apply(1, 0, b"")
    killed.machine.failure = EdgeStoreError("no")
    with pytest.raises(EdgeStoreError, match="no"):
        await killed.open()


async def test_a_closed_member_takes_and_applies_nothing(tmp_path: Path) -> None:
    group = await Group(tmp_path).open()
    before = group.machine.applied_index
    group.consensus.propose(b"under way", lambda outcomes, error: None)
    group.consensus.close()
    await asyncio.sleep(0.1)
    assert group.machine.applied_index == before
    with pytest.raises(Closing):
        await group.propose(b"late")
    group.kill()


async def test_applied_entries_leave_the_memory(tmp_path: Path) -> None:
    group = await Group(tmp_path).open()
    for _ in range(50):
        await group.propose(b"x" * 1000)
    assert len(group.consensus._raft_journal) == 1
    group.kill()
