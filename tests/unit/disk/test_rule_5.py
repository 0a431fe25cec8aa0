"""Rule 5 and what happens without it: each promise holds, and does not hold once the rule is patched away."""

from __future__ import annotations

import asyncio
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest import mock

import pytest

from edgestore.disk import Journal, SystemFiles, journal_recovery
from edgestore.errors import Corrupt
from tests.unit.disk.test_journal import CONFIG, abandon, append, end_of_frames, entry, newest_file, open_journal

BOTH = pytest.mark.parametrize("broken", [False, True], ids=["with the rule", "without it"])


@BOTH
async def test_damage_in_the_synced_part_is_never_taken_for_a_torn_tail(tmp_path: Path, broken: bool) -> None:
    journal = open_journal(tmp_path)
    for index in range(1, 20):
        await append(journal, entry(index, b"acknowledged"))
    await journal.close()
    path = newest_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[end_of_frames(path) // 2] ^= 1
    path.write_bytes(content)
    rule: AbstractContextManager[object] = nullcontext()
    if broken:
        rule = mock.patch.object(journal_recovery, "_note_synced", lambda found, place: None)
    kept = False
    with rule:
        try:
            again = open_journal(tmp_path)
        except Corrupt:
            kept = True
        else:
            kept = len(list(again.records(0))) == 19
            await again.close()
    assert kept is not broken


@BOTH
async def test_stale_frames_of_the_same_place_never_count(tmp_path: Path, broken: bool) -> None:
    """The name of the second file never reached the disk: its frames lie in the spare, at their own places."""
    entropy = (lambda length: bytes(length)) if broken else os.urandom
    for turn in range(2):
        journal = Journal.open(SystemFiles(str(tmp_path)), "journal", CONFIG, entropy)
        await append(journal, entry(turn + 1, b"stale" if turn else b"acknowledged"))
        abandon(journal)
        await asyncio.sleep(0.02)
    newest_file(tmp_path).rename(tmp_path / "journal" / "spare")
    journal = Journal.open(SystemFiles(str(tmp_path)), "journal", CONFIG, entropy)
    abandon(journal)
    again = open_journal(tmp_path)
    found = [record.payload for record in again.records(0)]
    await again.close()
    assert (found == [b"acknowledged"]) is not broken
