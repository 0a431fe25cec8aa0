"""What cannot be encoded, applied, flushed or answered hurts nobody else, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from edgestore.config import ConsensusConfig, DiskConfig
from edgestore.disk import RocksIndex
from edgestore.disk.system_files import SystemFile
from edgestore.errors import BadRequest, Closing, Denied, EdgeStoreError, StorageFull, TooBusy, Unavailable
from tests.unit.disk.test_journal_full import FullFiles
from tests.unit.meta.life import CONFIG, Life, bucket, put


async def test_an_operation_that_cannot_be_encoded_fails_alone(tmp_path: Path) -> None:
    life = await Life(tmp_path).open()
    record = await life.meta.propose(1, bucket("b"))
    answers: dict[str, Any] = {}
    for turn in range(4):
        for key in ("good", "bad\ud800", "fine"):
            name = f"{key}{turn}"
            life.meta.submit(1, put(record, name), lambda value, error, name=name: answers.update({name: error}))
    async with asyncio.timeout(5):
        await life.meta.propose(1, put(record, "later"))
    assert {type(error) for name, error in answers.items() if name.startswith("bad")} == {BadRequest}
    assert [error for name, error in answers.items() if not name.startswith("bad")] == [None] * 8
    await life.close()


async def test_a_caller_that_raises_in_its_callback_holds_nobody_up(tmp_path: Path) -> None:
    life = await Life(tmp_path).open()
    record = await life.meta.propose(1, bucket("b"))
    answered = []

    def raises(value: object, error: BaseException | None) -> None:
        raise RuntimeError("a bug of the caller")

    life.meta.submit(1, put(record, "first"), raises)
    life.meta.submit(1, put(record, "second"), lambda value, error: answered.append(error))
    async with asyncio.timeout(5):
        await life.meta.propose(1, put(record, "third"))
    assert answered == [None]
    await life.close()


async def test_an_entry_that_cannot_be_applied_stops_the_node_and_answers_what_waits(tmp_path: Path) -> None:
    life = await Life(tmp_path).open()
    failures: list[BaseException] = []
    life.journal.on_failure = failures.append
    with mock.patch.object(life.store, "write", side_effect=OSError("the catalog is gone")):
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable):
                await life.meta.propose(1, bucket("lost"))
    with pytest.raises(Unavailable):
        await life.meta.propose(1, bucket("later"))
    assert not life.meta.can_read_now()
    assert len(failures) == 1
    life.kill()


async def test_who_waits_hears_why_the_node_stops(tmp_path: Path) -> None:
    life = await Life(tmp_path).open()
    answers: list[BaseException | None] = []
    life.meta.submit(1, bucket("b"), lambda value, error: answers.append(error))
    life.meta.fail(Denied("node 3 was removed from the site"))
    assert isinstance(answers[0], Unavailable)
    assert "not known: node 3 was removed" in str(answers[0])
    life.kill()


async def test_a_failed_flush_stops_the_node(tmp_path: Path) -> None:
    config = replace(CONFIG, meta=replace(CONFIG.meta, flush_operations_max=2))
    life = await Life(tmp_path).open(config)
    failures: list[BaseException] = []
    life.journal.on_failure = failures.append
    record = await life.meta.propose(1, bucket("b"))
    with mock.patch.object(life.store, "flush", side_effect=EdgeStoreError("the disk is gone")):
        async with asyncio.timeout(5):
            while not failures:
                try:
                    await life.meta.propose(1, put(record, "k"))
                except Unavailable:
                    break
    assert failures
    life.kill()


async def test_a_journal_that_takes_no_more_leaves_no_hole(tmp_path: Path) -> None:
    """An entry that the journal refused is in nobody's log: the next one follows without a gap."""
    config = replace(CONFIG, disk=DiskConfig(journal_file_bytes=256 * 1024, journal_pending_max_bytes=10_000))
    config = replace(config, consensus=ConsensusConfig(entry_operations_max=4, entries_in_flight_max=8))
    life = await Life(tmp_path / "a").open(config)
    record = await life.meta.propose(1, bucket("b"))
    answers: dict[str, BaseException | None] = {}
    for number in range(64):
        name = str(number)
        life.meta.submit(
            1, put(record, name, b"x" * 4000), lambda value, error, name=name: answers.update({name: error})
        )
    async with asyncio.timeout(5):
        while len(answers) < 64:
            await asyncio.sleep(0.01)
    killed = life.copy(tmp_path / "b")
    life.kill()
    again = await killed.open(config)
    for name, error in answers.items():
        assert (again.meta.state.head(record, name) is not None) == (error is None)
    await again.close()


async def test_a_disk_that_fails_at_the_start_ends_the_start(tmp_path: Path) -> None:
    with mock.patch.object(SystemFile, "write_synced", side_effect=EdgeStoreError("the disk is gone")):
        async with asyncio.timeout(5):
            with pytest.raises(EdgeStoreError):
                await Life(tmp_path).open()


async def test_a_closing_node_takes_no_more(tmp_path: Path) -> None:
    life = await Life(tmp_path).open()
    closing = asyncio.get_running_loop().create_task(life.meta.close())
    await asyncio.sleep(0)
    with pytest.raises(Closing):
        await life.meta.propose(1, bucket("late"))
    await closing
    await life.journal.close()
    life.store.close()


async def test_a_full_journal_answers_storage_full_and_recovers(tmp_path: Path) -> None:
    """507 for what waits, reads go on; the flush that follows gives a file back, and with it deletes go on."""
    config = replace(CONFIG, consensus=ConsensusConfig(entry_operations_max=4, entry_bytes_max=32 * 1024))
    life = Life(tmp_path)
    life.files = FullFiles(str(tmp_path))
    await life.open(config)
    record = await life.meta.propose(1, bucket("b"))
    async with asyncio.timeout(5):
        while not life.journal._has_spare:
            await asyncio.sleep(0.005)
    life.files.is_full = True
    keys, refusal = 0, None
    with mock.patch.object(life.store, "flush", side_effect=StorageFull("no space for the catalog")):
        while keys < 500 and refusal is None:
            try:
                await life.meta.propose(1, put(record, str(keys), b"x" * 8000))
                keys += 1
            except StorageFull as error:
                refusal = error
        assert refusal is not None
        assert life.meta.can_read_now()
        assert life.meta.state.head(record, "0") is not None
    async with asyncio.timeout(10):
        while True:
            try:
                await life.meta.propose(1, put(record, "again", b"x" * 8000))
                break
            except (StorageFull, TooBusy):
                await asyncio.sleep(0.05)
    life.kill()
    again = await Life(tmp_path).open(config)
    assert again.meta.state.usage(record).current_objects == keys + 1
    await again.close()


async def test_a_flush_that_the_journal_has_no_room_for_is_tried_again(tmp_path: Path) -> None:
    config = replace(CONFIG, meta=replace(CONFIG.meta, flush_operations_max=2))
    life = await Life(tmp_path).open(config)
    record = await life.meta.propose(1, bucket("b"))
    failures: list[BaseException] = []
    life.journal.on_failure = failures.append
    with mock.patch.object(life.meta._consensus._snapshots, "trim", side_effect=TooBusy("full")) as trim:
        for number in range(6):
            await life.meta.propose(1, put(record, str(number)))
        await asyncio.sleep(0.1)
        assert trim.called
    life.meta._flushes.again_s = 0.0
    await life.meta.propose(1, put(record, "last"))
    await asyncio.sleep(0.1)
    assert failures == []
    assert life.meta._flushes.unflushed <= 1
    await life.close()


async def test_a_start_that_cannot_flush_goes_on(tmp_path: Path) -> None:
    life = await Life(tmp_path).open()
    await life.meta.propose(1, bucket("b"))
    life.kill()
    with mock.patch.object(RocksIndex, "flush", side_effect=StorageFull("no space for the catalog")):
        again = await Life(tmp_path).open()
        assert again.meta.state.bucket("b")
        again.kill()


async def test_an_end_waits_for_what_still_uses_the_store(tmp_path: Path) -> None:
    life = await Life(tmp_path).open()
    events: list[str] = []
    begun = threading.Event()

    def flush() -> None:
        begun.set()
        time.sleep(0.2)
        events.append("flushed")

    life.meta._worker.submit(flush, lambda result, error: None)
    begun.wait(5)
    life.meta.fail(Unavailable("this node was removed"))
    await life.meta.close()
    events.append("closed")
    assert events == ["flushed", "closed"]
    await life.journal.close()
    life.store.close()
