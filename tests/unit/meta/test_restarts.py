"""After a kill the journal alone makes up for what the catalog had not flushed: log time, operations, indices."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from edgestore.catalog import commands
from edgestore.config import MetaConfig
from edgestore.errors import Corrupt
from tests.unit.meta.life import CONFIG, Clock, Life, bucket, put

ELEVEN_MINUTES_MS = 11 * 60_000


async def test_log_time_goes_on_from_what_was_replayed(tmp_path: Path) -> None:
    clock = Clock()
    life = await Life(tmp_path / "a").open(clock=clock)
    await life.meta.propose(1, bucket("before"))
    clock.boot += ELEVEN_MINUTES_MS
    await life.meta.propose(1, bucket("late"))  # in the journal only: the catalog was flushed at its first start
    last_ms = life.meta.log_time_ms()
    killed = life.copy(tmp_path / "b")
    life.kill()
    again = await killed.open(clock=Clock())
    assert again.meta.log_time_ms() >= last_ms
    await again.meta.propose(1, bucket("after"))
    assert {found.name for found in again.meta.state.buckets()} == {"before", "late", "after"}
    await again.close()


async def test_every_kill_keeps_what_was_acknowledged_once(tmp_path: Path) -> None:
    """A copy of the folder after each acknowledgement is a kill at that instant."""
    config = replace(CONFIG, meta=MetaConfig(flush_operations_max=7))
    life = await Life(tmp_path / "live").open(config)
    record = await life.meta.propose(1, bucket("b"))
    copies = []
    for number in range(20):
        await life.meta.propose(1, put(record, str(number), b"x" * 3000))
        copies.append(life.copy(tmp_path / str(number)))
    await life.close()
    for number, killed in enumerate(copies):
        again = await killed.open(config)
        present = [again.meta.state.head(record, str(key)) is not None for key in range(20)]
        assert present == [key <= number for key in range(20)]
        assert again.meta.state.usage(record).current_objects == number + 1
        await again.meta.propose(1, put(record, "after"))
        again.kill()


async def test_a_torn_tail_costs_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    life = await Life(tmp_path / "a").open()
    record = await life.meta.propose(1, bucket("b"))
    await life.meta.propose(1, put(record, "kept", b"x" * 3000))
    path = max((tmp_path / "a" / "journal").glob("*.journal"))
    end = len(path.read_bytes().rstrip(b"\0"))
    life.meta.submit(1, put(record, "torn", b"y" * 3000), lambda value, error: None)
    await asyncio.sleep(0)
    await asyncio.sleep(0.2)
    killed = life.copy(tmp_path / "b")
    life.kill()
    torn = tmp_path / "b" / "journal" / path.name
    with torn.open("r+b") as file:
        file.seek(end + 1000)
        file.write(bytes(5000))
    again = await killed.open()
    assert again.meta.state.head(record, "kept") is not None
    assert again.meta.state.head(record, "torn") is None
    await again.meta.propose(1, put(record, "after"))
    await again.close()


async def test_an_operation_id_is_applied_once_across_a_kill(tmp_path: Path) -> None:
    life = await Life(tmp_path / "a").open()
    now_ms = life.meta.log_time_ms()
    operation = commands.Operation(77, 1, 0, now_ms, 1, bucket("once"))
    payload = commands.encode_entry(commands.Entry(1, 0, 0, now_ms, (operation,)))
    outcomes = []
    for folder in ("b", "c", "d"):
        future = asyncio.get_running_loop().create_future()
        life.meta._consensus.propose(payload, lambda found, error, future=future: future.set_result(found))
        outcomes += await future
        killed = life.copy(tmp_path / folder)
        life.kill()
        life = await killed.open()
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert [found.name for found in life.meta.state.buckets()] == ["once"]
    await life.close()


async def test_a_journal_without_its_first_file_is_refused(tmp_path: Path) -> None:
    life = await Life(tmp_path / "a").open()
    record = await life.meta.propose(1, bucket("b"))
    for number in range(100):
        await life.meta.propose(1, put(record, str(number), b"x" * 8000))
    killed = life.copy(tmp_path / "b")
    life.kill()
    files = sorted((tmp_path / "b" / "journal").glob("*.journal"))
    assert len(files) > 3
    for path in files[:2]:
        path.unlink()
    with pytest.raises(Corrupt):
        await killed.open()
