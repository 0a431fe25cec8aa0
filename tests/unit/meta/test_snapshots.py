"""A snapshot of a real catalog, from one folder of this machine into another."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgestore.catalog import Table
from edgestore.clock import SystemClock
from edgestore.config import Config, ConsensusConfig, DiskConfig, MetaConfig
from edgestore.consensus import machine_folder
from edgestore.disk import Journal, RocksIndex, SystemFiles
from edgestore.errors import NotFound, Unavailable
from edgestore.meta import GroupSetup, Meta
from edgestore.meta.wire import OpenSnapshot, ReadPiece, encode
from edgestore.net import Method
from edgestore.records import Member
from tests.unit.meta.life import bucket, put

CONFIG = Config(
    disk=DiskConfig(journal_file_bytes=256 * 1024),
    consensus=ConsensusConfig(log_kept_bytes=1024, log_behind_max_bytes=2048),
    meta=MetaConfig(snapshot_piece_bytes=64 * 1024, resend_after_ms=200),
)


class Peers:
    """`net.Peers` of nodes on one loop, by member. `harm` is asked about each call before it is made."""

    def __init__(self, all_of_them: dict[str, Peers], member: str) -> None:
        self.all, self.member = all_of_them, member
        all_of_them[member] = self
        self.handlers: dict[Any, Callable[..., Awaitable[Any]]] = {}
        self.topics: dict[Any, Callable[..., None]] = {}
        self.ports: dict[type, Any] = {}
        self.harm: Callable[[Any], None] = lambda method: None

    def serve(self, method: Any, handler: Callable[..., Awaitable[Any]]) -> None:
        self.handlers[method] = handler

    def on_message(self, topic: Any, handler: Callable[..., None]) -> None:
        self.topics[topic] = handler

    def on_connected(self, callback: Callable[[str], None]) -> None:
        pass

    def known(self) -> dict[str, str]:
        return dict.fromkeys(self.all, "")

    def is_connected(self, member: str) -> bool:
        return member in self.all

    def send(self, member: str, topic: Any, head: bytes) -> bool:
        asyncio.get_running_loop().call_soon(
            self.all[member].topics[topic], SimpleNamespace(member=self.member), bytes(head)
        )
        return True

    async def call(
        self, member: str, method: Any, head: bytes, payload: Any = (), *, timeout_s: float, lane: object = None
    ) -> Any:
        self.harm(method)
        handler = self.all[member].handlers[method]
        async with asyncio.timeout(timeout_s):
            reply = await handler(SimpleNamespace(member=self.member), head, memoryview(b"".join(payload)))
        if isinstance(reply, bytes):
            return SimpleNamespace(head=reply, payload=memoryview(b""))
        return SimpleNamespace(head=reply.head, payload=memoryview(b"".join(reply.payload)))


class Node:
    """A meta on a folder, with peers."""

    def __init__(self, folder: Path, peers: Peers, founder: str) -> None:
        self.files, self.peers, self.founder = SystemFiles(str(folder)), peers, founder

    async def open(self, config: Config = CONFIG) -> Node:
        self.journal = Journal.open(self.files, "journal", config.disk, os.urandom)
        open_folder = partial(RocksIndex.open, self.files, write_buffer_bytes=1 << 20, cache_bytes=1 << 20)
        self.meta = await Meta.open(
            self.files,
            self.journal,
            open_folder(machine_folder(self.journal)),
            config.meta,
            config.consensus,
            clock=SystemClock(),
            entropy=os.urandom,
            member=self.peers.member,
            setup=GroupSetup(
                0,
                self.peers,  # type: ignore[arg-type]
                (Member(self.founder),),
                open_folder,
            ),
        )
        return self

    async def close(self) -> None:
        await self.meta.close()
        await self.journal.close()
        self.meta.store.close()


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("drops", [0, 3])
async def test_a_new_member_takes_a_snapshot_and_goes_on_where_it_was_cut_off(tmp_path: Path, drops: int) -> None:
    peers: dict[str, Peers] = {}
    one = await Node(tmp_path / "one", Peers(peers, "one"), "one").open()
    await one.meta.ready()
    record = await one.meta.propose(1, bucket("b"))
    for number in range(200):
        await one.meta.propose(1, put(record, f"key-{number}", os.urandom(4096)))
    await one.meta.flush()

    two = Node(tmp_path / "two", Peers(peers, "two"), "one")
    reads, left = 0, drops

    def harm(method: Any) -> None:
        nonlocal reads, left
        if method == Method.SNAPSHOT_READ:
            reads += 1
            if left and reads % 4 == 0:
                left -= 1
                raise Unavailable("the line is cut")

    two.peers.harm = harm
    await two.open()
    seen: list[list[str]] = []
    two.meta.watch((Table.BUCKET_NAMES,), lambda _: seen.append([row.name for row in two.meta.state.buckets()]))
    await two.meta.ready()
    assert seen[-1] == ["b"], "who watches reads what the snapshot brought"
    folder = two.meta._machine.folder
    assert folder.startswith("catalog.")
    sizes = [(tmp_path / "two" / folder / name).stat().st_size for name in os.listdir(tmp_path / "two" / folder)]
    assert reads - drops <= sum(sizes) / CONFIG.meta.snapshot_piece_bytes + len(sizes) + 4  # no piece came twice
    version = await two.meta.propose(1, put(record, "through-two"))
    assert two.meta.state.head(record, "through-two") == version
    for number in range(200):
        found, own = (node.meta.state.head(record, f"key-{number}") for node in (one, two))
        assert found is not None
        assert found == own
        assert one.meta.state.inline(record, found) == two.meta.state.inline(record, found)
    await wait_for(lambda: not [name for name in os.listdir(tmp_path / "one") if ".sent-" in name])
    await wait_for(lambda: "catalog" not in os.listdir(tmp_path / "two"))
    await two.close()
    two = await Node(tmp_path / "two", Peers(peers, "two"), "one").open()
    await two.meta.ready()
    assert two.meta._machine.folder == folder
    assert two.meta.state.head(record, "through-two") == version
    await two.close()
    await one.close()


async def test_a_receiver_that_drips_does_not_hold_the_log_for_ever(tmp_path: Path) -> None:
    peers: dict[str, Peers] = {}
    limits = replace(CONFIG.meta, snapshot_idle_s=0.5, snapshot_min_bytes_per_s=1 << 30)
    one = await Node(tmp_path / "one", Peers(peers, "one"), "one").open(replace(CONFIG, meta=limits))
    await one.meta.ready()
    await one.meta.flush()
    dripping = Peers(peers, "two")

    async def ask(method: Method, request: object) -> object:
        return await dripping.call("one", method, encode(request), timeout_s=5)

    await ask(Method.SNAPSHOT_OPEN, OpenSnapshot(0, b"drip"))
    begun, reads = asyncio.get_running_loop().time(), 0
    with pytest.raises(NotFound):
        while asyncio.get_running_loop().time() < begun + 5:
            await ask(Method.SNAPSHOT_READ, ReadPiece(0, b"drip", 0, 0, 1))
            reads += 1
            await asyncio.sleep(0.1)
    assert reads >= 3
    await one.close()
