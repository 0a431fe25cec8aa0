"""Snapshots of the catalog between nodes, cut short at any step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from edgestore.catalog import Table
from edgestore.meta import snapshots
from edgestore.records import BucketRecord
from tests.sim.disk import SimFiles
from tests.sim.model import Violation
from tests.sim.site.machines import Machine
from tests.sim.site.metas import MetaSite, bucket, put
from tests.sim.site.test_metas import AWAY_S, alike, digest, followers, ready, run
from tests.sim.site.wires import Weather


async def grow(site: MetaSite, machine: Machine, record: BucketRecord, count: int) -> None:
    """More of the catalog than the log keeps."""
    for number in range(count):
        await site.propose(machine, put(record, f"key-{number % 60}", bytes(300)))


def test_a_node_that_was_away_for_long_takes_a_snapshot() -> None:
    async def work(site: MetaSite) -> None:
        await ready(site)
        first, *_, away = [site.leader() or site.machines[0], *await followers(site)]
        away.stays_down = True
        away.kill(power=True)
        record = await site.propose(first, bucket("b"))
        await grow(site, first, record, 200)
        away.stays_down = False
        away.start()
        await site.serve_all()
        seen: list[list[str]] = []
        meta = site.meta(away)
        meta.watch((Table.BUCKET_NAMES,), lambda _: seen.append([one.name for one in meta.state.buckets(None)]))
        await ready(site)
        await alike(site)
        assert site.meta(away)._machine.folder != "catalog"
        assert seen[-1] == ["b"], "who watches reads the rows of the snapshot"
        await site.propose(away, put(record, "after"))
        away.kill(power=True)
        await asyncio.sleep(0.01)
        await site.serve_all()
        await ready(site)
        await alike(site)
        assert list(away.disk.stores) == [site.meta(away)._machine.folder]

    run(MetaSite(3, 3), work)


@pytest.mark.parametrize("way", ["steps", "disk"])
@pytest.mark.parametrize("part", range(2))
def test_a_snapshot_may_be_cut_short_at_any_step(way: str, part: int) -> None:
    """The receiver dies at a step or at a call of its disk, again and again, and has it all in the end."""

    async def work(site: MetaSite) -> None:
        await ready(site)
        first, *_, away = [site.leader() or site.machines[0], *await followers(site)]
        record = await site.propose(first, bucket("b"))
        for crash_at in range(30 + part, 190, 6):
            away.stays_down = True
            away.kill(power=True)
            await asyncio.sleep(AWAY_S)
            await grow(site, site.leader() or first, record, 40)
            away.stays_down = False
            away.start()
            assert away.life is not None
            if way == "steps":
                away.life.crash_at = crash_at
            else:
                away.disk.crash_at = away.disk.operations + crash_at // 2
            await asyncio.sleep(1)
            away.forget_plans()
            await site.serve_all()
            await ready(site)
            await alike(site)

    run(MetaSite(100 + part, 3), work)


def unsynced_files(patch: pytest.MonkeyPatch) -> None:
    """What is received is named before it is on the disk."""
    whole = snapshots._write_piece
    patch.setattr(snapshots, "_write_piece", lambda *place, is_last: whole(*place, is_last=False))


def unsynced_folder(patch: pytest.MonkeyPatch) -> None:
    """... or before its name is."""
    synced = SimFiles.sync_folder
    patch.setattr(
        SimFiles, "sync_folder", lambda self, path: None if path.startswith("catalog.") else synced(self, path)
    )


@pytest.mark.parametrize("plant", [unsynced_files, unsynced_folder])
def test_a_snapshot_that_is_named_before_it_is_durable_is_noticed(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Violation):
        test_a_snapshot_may_be_cut_short_at_any_step("disk", 0)


@pytest.mark.parametrize("seed", range(4))
def test_a_snapshot_comes_over_bad_wires_and_from_sources_that_die(seed: int) -> None:
    async def work(site: MetaSite) -> None:
        await ready(site)
        first, *_, away = [site.leader() or site.machines[0], *await followers(site)]
        record = await site.propose(first, bucket("b"))
        away.stays_down = True
        away.kill(power=True)
        await asyncio.sleep(AWAY_S)
        await grow(site, site.leader() or first, record, 60)
        site.wires.weather = Weather(lost=0.05, doubled=0.1, overtaken=0.2)
        away.stays_down = False
        away.start()
        for _ in range(3):
            await asyncio.sleep(site.rng.uniform(0.05, 0.4))
            leader = site.leader()
            if leader is not None:
                leader.kill(power=True)
        await asyncio.sleep(1)
        site.wires.weather = Weather()
        await site.serve_all()
        await ready(site)
        await alike(site)
        assert len({digest(site, machine) for machine in site.machines}) == 1

    run(MetaSite(200 + seed, 3), work)
