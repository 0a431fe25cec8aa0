"""Objects on a site of three nodes: the catalog and the first disk of one core, the disks of two more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgestore.catalog import commands
from edgestore.chunks import bytes_body
from edgestore.core import Core
from edgestore.core.site_view import MetaSites
from edgestore.errors import TooBusy, Unavailable
from edgestore.objects import PartRequest, PutRequest, UploadRequest
from edgestore.records import SITE_TENANT, NodeState, Principal, VersionRecord
from tests.unit.chunks.site import Nodes
from tests.unit.chunks.site import opened as opened_site
from tests.unit.objects.test_objects import CONFIG, get, opened, put

SECRET = b"s" * 32
QUICK = replace(CONFIG, chunks=replace(CONFIG.chunks, fragment_timeout_s=0.5, write_timeout_s=3.0))
SIZES = (100, 9000, 200_000, 1_000_000, 5_000_000)


def member(number: int) -> str:
    """As the catalog wants it."""
    return f"{number:032x}"


def new_node(number: int, member: str) -> commands.NewNode:
    """A node of 100 GiB in a zone of its own."""
    return commands.NewNode(member, f"10.0.0.{number}:9100", "", f"z{number}", 100 << 30, b"k%d" % number, b"n", 1)


@asynccontextmanager
async def site_of_three(folder: Path) -> AsyncIterator[tuple[Core, Principal, Nodes, MetaSites]]:
    """The core is node 1."""
    async with opened(folder / "core", QUICK) as (core, root), opened_site(folder / "others", 3) as nodes:
        own = core.identity.member_id.hex()
        await core.meta.propose(SITE_TENANT, commands.FoundNode(new_node(1, own)))
        for number in (2, 3):
            token = b"token%d" % number
            await core.meta.propose(SITE_TENANT, commands.CreateToken(token, SECRET, 60_000))
            await core.meta.propose(SITE_TENANT, commands.AddNode(new_node(number, member(number)), token, SECRET))
        sites = MetaSites(core.meta, own, lambda member: False)
        core.chunks.join_site(sites, nodes.site.views[1])
        nodes.site.stores[1] = core.chunks
        await core.objects.create_bucket(root, "bucket")
        yield core, root, nodes, sites


async def turn(core: Core, number: int, state: NodeState) -> None:
    """Another state of a node, as the leader's loop decides it."""
    await core.meta.propose(SITE_TENANT, commands.SetNodeState(number, state, NodeState.UP))


async def put_small(core: Core, root: Principal, key: str, data: bytes) -> VersionRecord:
    """As the fast lane does."""
    future: asyncio.Future[VersionRecord] = asyncio.get_running_loop().create_future()

    def done(record: VersionRecord | None, error: BaseException | None) -> None:
        if record is not None:
            future.set_result(record)
        else:
            future.set_exception(error or AssertionError)

    core.objects.put_small(root, PutRequest("bucket", key), data, done)
    return await future


async def test_what_is_put_comes_back_and_goes_everywhere_when_deleted(tmp_path: Path) -> None:
    async with site_of_three(tmp_path) as (core, root, nodes, _):
        bodies = {f"key-{size}": os.urandom(size) for size in SIZES}
        for key, body in bodies.items():
            await put(core, root, key, body)
        bodies["small"] = os.urandom(30_000)
        await put_small(core, root, "small", bodies["small"])
        for dead in (None, 2, 3):
            for number, faults in nodes.site.faults.items():
                faults.is_dead = number == dead
            for key, body in bodies.items():
                assert await get(core, root, key) == body
        assert list(nodes.segments[2].chunk_ids())
        assert not core.meta.state.degraded(10)


def node_3_dies_behind_a_write(core: Core, nodes: Nodes) -> None:
    """The next one: it has confirmed, and is down by the commit."""
    site = core.chunks.site
    assert site is not None
    for name in ("write", "write_small"):
        whole = getattr(site, name)

        async def and_then_a_death(*given: object, inner: object = whole) -> object:
            stored = await inner(*given)  # type: ignore[operator]
            if not nodes.site.faults[3].is_dead:
                nodes.site.faults[3].is_dead = True
                await turn(core, 3, NodeState.DOWN)
            return stored

        setattr(site, name, and_then_a_death)


async def test_a_mended_body_that_finds_no_place_in_line_leaves_no_number_open(tmp_path: Path) -> None:
    """Its chunks were written again under new numbers, and those must not hold back the mark for ever (rule 6)."""
    async with site_of_three(tmp_path) as (core, root, nodes, _):
        node_3_dies_behind_a_write(core, nodes)
        submit, named = core.meta.submit, list[commands.Command]()

        def full_the_second_time(owner: int, command: commands.Command, done: Any) -> None:
            named.extend([command] if isinstance(command, commands.PutObject) else [])
            if len(named) > 1:
                raise TooBusy("a test says so")
            submit(owner, command, done)

        core.meta.submit = full_the_second_time  # type: ignore[method-assign]
        with pytest.raises(TooBusy):
            await put(core, root, "key", os.urandom(2_000_000))
        first, second = (one.content.extents[0].chunks[-1] for one in named if isinstance(one, commands.PutObject))
        assert second.number > first.number, "it was written again"
        assert core.chunks.low_water() > second.number


@pytest.mark.parametrize("size", [30_000, 2_000_000])
async def test_a_commit_behind_a_death_is_mended_and_proposed_again(tmp_path: Path, size: int) -> None:
    """Node 3 goes down between its confirmation and the commit: two fragments of 2+1 are too few (rule 1)."""
    async with site_of_three(tmp_path) as (core, root, nodes, _):
        node_3_dies_behind_a_write(core, nodes)
        data = os.urandom(size)
        if size <= 262_144:
            await put_small(core, root, "key", data)
        else:
            await put(core, root, "key", data)
        assert await get(core, root, "key") == data
        nodes.site.faults[2].is_dead = True
        assert await get(core, root, "key") == data  # this node alone holds a copy


async def test_parts_lie_on_several_nodes_too(tmp_path: Path) -> None:
    async with site_of_three(tmp_path) as (core, root, nodes, _):
        upload = await core.objects.create_upload(root, UploadRequest("bucket", "key"))
        part = PartRequest("bucket", "key", upload.upload_id, 1)
        await core.objects.put_part(root, part, bytes_body(core.chunks.pool, os.urandom(300_000)))
        assert all(list(nodes.segments[number].chunk_ids()) for number in (2, 3))


async def test_with_too_few_nodes_writes_stop_and_reads_go_on(tmp_path: Path) -> None:
    async with site_of_three(tmp_path) as (core, root, nodes, _):
        bodies = {f"key-{number}": os.urandom(20_000) for number in range(12)}
        for key, body in bodies.items():
            await put(core, root, key, body)
        for number in (2, 3):
            nodes.site.faults[number].is_dead = True
            await turn(core, number, NodeState.DOWN)
        with pytest.raises(Unavailable):
            await put(core, root, "other", os.urandom(20_000))
        read = 0
        for key, body in bodies.items():
            try:
                assert await get(core, root, key) == body
                read += 1
            except Unavailable:
                continue  # both its copies lie on the dead
        assert read
