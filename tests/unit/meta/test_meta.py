"""Operations are acknowledged after their sync, applied once each, and survive a restart at any point."""

from __future__ import annotations

import asyncio
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pysyncobj.syncobj
import pytest

from edgestore.catalog import Table, commands
from edgestore.config import MetaConfig
from edgestore.disk.system_files import SystemFile
from edgestore.errors import BadRequest, BucketExists, Corrupt, EdgeStoreError, TooBusy, Unavailable
from edgestore.records import BucketRecord
from tests.unit.meta.life import CONFIG, Clock, Life, bucket, put


@pytest.mark.parametrize("ending", ["close", "kill"])
async def test_acknowledged_operations_survive(tmp_path: Path, ending: str) -> None:
    expected: list[str] = []
    for turn in range(4):
        life = await Life(tmp_path).open()
        record = life.meta.state.bucket("b") if turn else await life.meta.propose(1, bucket("b"))
        for key in expected:
            assert life.meta.state.head(record, key) is not None
        assert life.meta.state.usage(record).current_objects == len(expected)
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(life.meta.propose(1, put(record, f"{turn}/{number}")))
        expected += [f"{turn}/{number}" for number in range(50)]
        if ending == "kill":
            life.kill()
        else:
            await life.close()


async def test_terms_and_indices_go_on(tmp_path: Path) -> None:
    seen = (0, 0)
    for turn in range(5):
        life = await Life(tmp_path).open()
        await life.meta.propose(1, bucket(f"bucket-{turn}"))
        status = life.meta.status()
        assert status.term > seen[0]
        assert status.applied_index > seen[1]
        assert status.applied_index == status.committed_index == status.synced_index
        seen = (status.term, status.applied_index)
        if turn % 2:
            await life.close()
        else:
            life.kill()


async def test_many_operations_share_one_entry_and_one_sync(tmp_path: Path) -> None:
    life = await Life(tmp_path).open()
    record = await life.meta.propose(1, bucket("b"))
    before = life.meta.applied_index
    async with asyncio.TaskGroup() as group:
        for number in range(200):
            group.create_task(life.meta.propose(1, put(record, str(number))))
    assert life.meta.applied_index - before <= 4
    await life.close()


async def test_nothing_is_acknowledged_before_the_sync(tmp_path: Path) -> None:
    life = await Life(tmp_path).open()
    record = await life.meta.propose(1, bucket("b"))
    order: list[str] = []
    written = life.journal._written

    def watched(*outcome: Any) -> None:
        order.append("synced")
        written(*outcome)

    with mock.patch.object(life.journal, "_written", watched):
        future = asyncio.get_running_loop().create_future()
        life.meta.submit(1, put(record, "k"), lambda value, error: (order.append("answered"), future.set_result(0)))
        await future
    assert order[:2] == ["synced", "answered"]
    await life.close()


async def test_a_failed_operation_answers_with_its_error_and_changes_nothing(tmp_path: Path) -> None:
    life = await Life(tmp_path).open()
    await life.meta.propose(1, bucket("b"))
    with pytest.raises(BucketExists):
        await life.meta.propose(1, bucket("b"))
    assert [found.name for found in life.meta.state.buckets()] == ["b"]
    await life.close()


async def test_an_operation_id_is_applied_once(tmp_path: Path) -> None:
    life = await Life(tmp_path).open()
    operation = commands.Operation(77, 1, 0, life.meta.log_time_ms(), 1, bucket("once"))
    payload = commands.encode_entry(commands.Entry(1, 0, 0, life.meta.log_time_ms(), (operation,)))
    outcomes: list[Any] = []
    for _ in range(2):
        future = asyncio.get_running_loop().create_future()
        life.meta._consensus.propose(payload, lambda found, error, future=future: future.set_result(found))
        outcomes += await future
    first, second = outcomes
    assert isinstance(first, BucketRecord)
    assert second == first
    life.kill()
    again = await Life(tmp_path).open()
    future = asyncio.get_running_loop().create_future()
    again.meta._consensus.propose(payload, lambda found, error: future.set_result(found))
    assert await future == [first]
    await again.close()


async def test_the_journal_is_trimmed_after_a_flush_only(tmp_path: Path) -> None:
    life = await Life(tmp_path).open()
    record = await life.meta.propose(1, bucket("b"))
    for number in range(150):
        await life.meta.propose(1, put(record, str(number), b"x" * 8000))
    before = len(list((tmp_path / "journal").glob("*.journal")))
    assert before > 3
    await life.meta.flush()
    await asyncio.sleep(0.1)
    assert len(list((tmp_path / "journal").glob("*.journal"))) < before
    life.kill()
    again = await Life(tmp_path).open()
    assert again.meta.state.usage(record).current_objects == 150
    await again.close()


async def test_flushes_happen_by_themselves(tmp_path: Path) -> None:
    config = replace(CONFIG, meta=MetaConfig(flush_operations_max=20))
    life = await Life(tmp_path).open(config)
    record = await life.meta.propose(1, bucket("b"))
    with mock.patch.object(life.store, "flush", wraps=life.store.flush) as flush:
        for number in range(100):
            await life.meta.propose(1, put(record, str(number)))
        assert 2 <= flush.call_count <= 6
    await life.close()


async def test_a_catalog_ahead_of_its_journal_is_refused(tmp_path: Path) -> None:
    life = await Life(tmp_path).open()
    await life.meta.propose(1, bucket("b"))
    await life.close()
    for path in (tmp_path / "journal").iterdir():
        path.unlink()
    with pytest.raises(Corrupt, match="ahead of its journal"):
        await Life(tmp_path).open()


async def test_proposals_are_bounded(tmp_path: Path) -> None:
    life = await Life(tmp_path).open(replace(CONFIG, meta=MetaConfig(proposals_max=10)))
    with pytest.raises(TooBusy):
        for number in range(20):
            life.meta.submit(1, bucket(f"bucket-{number}"), lambda value, error: None)
    await life.close()


async def test_a_failed_journal_answers_what_waits_and_takes_no_more(tmp_path: Path) -> None:
    life = await Life(tmp_path).open()
    with mock.patch.object(SystemFile, "write_synced", side_effect=EdgeStoreError("the disk is gone")):
        with pytest.raises(Unavailable):
            await life.meta.propose(1, bucket("lost"))
    with pytest.raises(Unavailable):
        await life.meta.propose(1, bucket("later"))
    life.kill()
    again = await Life(tmp_path).open()
    assert again.meta.state.buckets() == []
    await again.close()


async def test_log_time_never_goes_back(tmp_path: Path) -> None:
    clock = Clock()
    life = await Life(tmp_path).open(clock=clock)
    first = life.meta.log_time_ms()
    assert first == 5_000_000
    clock.boot += 1000
    clock.wall = 1
    assert life.meta.log_time_ms() == first + 1000
    clock.boot -= 500
    assert life.meta.log_time_ms() == first + 1000
    await life.meta.propose(1, bucket("b"))
    await life.close()
    later = Clock()
    later.wall = 7
    again = await Life(tmp_path).open(clock=later)
    assert again.meta.log_time_ms() >= first + 1000
    await again.close()


async def test_nothing_is_ever_pickled(tmp_path: Path) -> None:
    with (
        mock.patch.object(pickle, "dumps", side_effect=AssertionError),
        mock.patch.object(pickle, "loads", side_effect=AssertionError),
    ):
        life = await Life(tmp_path).open()
        await life.meta.propose(1, bucket("b"))
        await life.meta.flush()
        await life.close()
        again = await Life(tmp_path).open()
        assert again.meta.state.bucket("b")
        await again.close()
    with pytest.raises(Corrupt, match="never pickled"):
        pysyncobj.syncobj.pickle.loads(b"")


async def test_a_watch_hears_of_its_tables_before_the_proposer(tmp_path: Path) -> None:
    life = await Life(tmp_path).open()
    heard: list[tuple[int, int]] = []

    def changed(index: int) -> None:
        heard.append((index, len(life.meta.state.access_keys())))

    end = life.meta.watch((Table.ACCESS_KEYS,), changed)
    record = await life.meta.propose(1, bucket("b"))
    await life.meta.propose(1, put(record, "k"))
    assert heard == []
    future = asyncio.get_running_loop().create_future()
    life.meta.submit(1, commands.PutKey("access", "secret", 2, 0), lambda value, error: future.set_result(list(heard)))
    assert await future == [(life.meta.applied_index, 1)]
    await life.meta.propose(1, commands.DeleteKey("access"))
    assert heard[1:] == [(life.meta.applied_index, 0)]
    end()
    await life.meta.propose(1, commands.PutKey("access", "secret", 2, 0))
    assert len(heard) == 2
    with pytest.raises(BadRequest):
        life.meta.watch((Table.HEADS,), changed)
    for _ in range(64):
        life.meta.watch((Table.TENANTS,), changed)
    with pytest.raises(BadRequest):
        life.meta.watch((Table.TENANTS,), changed)
    await life.close()


async def test_the_operator_steps_log_time_forward_only(tmp_path: Path) -> None:
    clock = Clock()
    life = await Life(tmp_path).open(clock=clock)
    hour_ms = 3_600_000
    await life.meta.step_log_time(clock.wall + hour_ms)
    assert life.meta.log_time_ms() == clock.wall + hour_ms
    assert life.meta.state.site().log_time_ms == clock.wall + hour_ms
    clock.boot += 10
    assert life.meta.log_time_ms() == clock.wall + hour_ms + 10
    with pytest.raises(BadRequest, match="never goes back"):
        await life.meta.step_log_time(clock.wall)
    await life.close()
    again = await Life(tmp_path).open(clock=Clock())
    assert again.meta.log_time_ms() >= clock.wall + hour_ms
    await again.close()
