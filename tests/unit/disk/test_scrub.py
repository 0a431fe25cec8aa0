"""The scrub reads everything once an interval, goes on where it was, and says what it found."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edgestore.disk import Scrubber, scrub
from edgestore.observe import Metrics
from tests.unit.disk.place import (
    CONFIG,
    chunk_id,
    close,
    flip,
    found,
    kill,
    open_segments,
    put,
    segment_file,
)

HOUR_MS = 3_600_000
EVERY_HOUR = replace(CONFIG, scrub_interval_ms=HOUR_MS)


@dataclass
class Clock:
    """Wall time by hand."""

    at_ms: int = 1_800_000_000_000

    def wall_ms(self) -> int:
        return self.at_ms

    def boot_ms(self) -> int:
        return self.at_ms


class Run:
    """A scrubber that runs until a condition holds."""

    def __init__(self, scrubber: Scrubber) -> None:
        self.scrubber = scrubber

    async def until(self, condition: Callable[[], bool]) -> None:
        task = asyncio.ensure_future(self.scrubber.run())
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The look after the start comes at once."""
    monkeypatch.setattr("edgestore.disk.scrubber.AFTER_START_S", 0.0)


async def test_a_pass_is_due_after_the_interval_also_over_restarts(tmp_path: Path) -> None:
    clock = Clock()
    segments = await open_segments(tmp_path)
    for number in range(10):
        await put(segments, number, os.urandom(10_000))
    scrubber = Scrubber(segments, segments._index, EVERY_HOUR, clock)
    await Run(scrubber).until(lambda: scrubber.state.finished_ms == clock.at_ms)
    await close(segments)
    again = await open_segments(tmp_path)
    scrubber = Scrubber(again, again._index, EVERY_HOUR, clock)
    assert scrubber._wait_s() == 3600.0
    clock.at_ms += HOUR_MS
    assert scrubber._wait_s() == 0.0
    clock.at_ms -= 2 * HOUR_MS
    assert scrubber._wait_s() == 0.0
    await close(again)


async def test_a_pass_goes_on_where_a_restart_broke_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgestore.disk.scrubber.ROWS_A_STEP", 2)
    clock, slow = Clock(), replace(EVERY_HOUR, scrub_bytes_per_s=1_000_000)
    segments = await open_segments(tmp_path)
    for number in range(20):
        await put(segments, number, os.urandom(10_000))
    scrubber = Scrubber(segments, segments._index, slow, clock)
    await Run(scrubber).until(lambda: scrubber.state.after >= b"f" + chunk_id(9))
    await close(segments)
    again, metrics = await open_segments(tmp_path), Metrics()
    scrubber = Scrubber(again, again._index, EVERY_HOUR, clock, metrics)
    await Run(scrubber).until(lambda: scrubber.state.finished_ms > 0)
    assert 0 < metrics.value("disk_scrubbed_bytes_total") < 120_000
    await close(again)


@pytest.mark.parametrize("at", ["block", "data", "segment", "row"])
async def test_damage_is_found_counted_and_told_once(tmp_path: Path, at: str, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    segments = await open_segments(tmp_path)
    segments._metrics = metrics
    for number in range(10):
        await put(segments, number, os.urandom(10_000))
    info = found(segments, 4)
    path = segment_file(tmp_path, info.segment)
    key = b"f" + chunk_id(4) + bytes(2)
    if at == "segment":
        value = segments._index.get(key)
        assert value is not None
        segments._index.write([(key, (999).to_bytes(8, "big") + value[8:])])
    elif at == "row":
        value = segments._index.get(key)
        assert value is not None
        segments._index.write([(key, value[:-1] + bytes([value[-1] ^ 1]))])
    else:
        flip(path, info.offset + 30 if at == "block" else info.data_offset + 100)
    scrubber = Scrubber(segments, segments._index, EVERY_HOUR, Clock())
    await Run(scrubber).until(lambda: scrubber.state.finished_ms > 0)
    assert scrubber.state.damaged == 1
    await scrub(segments, CONFIG)
    assert metrics.value("disk_damaged_fragments_total") == 1
    assert caplog.text.count("fragment-damaged") == 1
    assert chunk_id(4).hex() in caplog.text
    kill(segments)


async def test_a_fragment_that_goes_meanwhile_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segments = await open_segments(tmp_path)
    for number in range(3):
        await put(segments, number, os.urandom(10_000))
    info = found(segments, 1)
    flip(segment_file(tmp_path, info.segment), info.data_offset)
    read = segments.read

    async def read_late(*arguments: object) -> memoryview:
        segments.delete(chunk_id(1))
        return await read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(segments, "read", read_late)
    report = await scrub(segments, CONFIG)
    assert report.damaged == 0
    await close(segments)


async def test_the_scrub_waits_while_somebody_waits_for_the_disk(tmp_path: Path) -> None:
    segments = await open_segments(tmp_path)
    for number in range(3):
        await put(segments, number, b"content")
    segments._busy = True
    began_s = asyncio.get_running_loop().time()
    await scrub(segments, CONFIG)
    assert asyncio.get_running_loop().time() - began_s >= 0.25
    segments._busy = False
    await close(segments)
