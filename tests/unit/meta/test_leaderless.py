"""What a proposer is told where nobody leads, and where nobody says what became of its operation."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgestore.config import Config, MetaConfig
from edgestore.errors import Unavailable
from edgestore.net import Method
from tests.unit.meta.life import bucket
from tests.unit.meta.test_snapshots import CONFIG, Node, Peers


def unreachable(method: Any) -> None:
    raise Unavailable("nobody is there")


def with_timeouts(*, propose_s: float, read_ms: int) -> Config:
    meta: MetaConfig = replace(CONFIG.meta, propose_timeout_s=propose_s)
    return replace(CONFIG, meta=meta, consensus=replace(CONFIG.consensus, read_timeout_ms=read_ms))


async def test_what_was_handed_to_nobody_is_refused_as_soon_as_a_read_is(tmp_path: Path) -> None:
    peers: dict[str, Peers] = {}
    Peers(peers, "one")
    two = Node(tmp_path, Peers(peers, "two"), "one")
    two.peers.harm = unreachable
    await two.open(with_timeouts(propose_s=30.0, read_ms=200))
    waiting = asyncio.gather(*(two.meta.propose(1, bucket(f"b{n}")) for n in range(3)), return_exceptions=True)
    async with asyncio.timeout(5):
        errors = await waiting
    assert [type(error) for error in errors] == [Unavailable] * 3
    assert all("nothing was done" in str(error) for error in errors)
    assert two.meta._proposals.waiting == 0
    await two.close()


async def test_what_a_leader_may_have_got_is_never_said_not_to_have_happened(tmp_path: Path) -> None:
    peers: dict[str, Peers] = {}
    one = await Node(tmp_path / "one", Peers(peers, "one"), "one").open()
    await one.meta.ready()
    two = await Node(tmp_path / "two", Peers(peers, "two"), "one").open(with_timeouts(propose_s=1.0, read_ms=200))
    await two.meta.ready()
    lost: list[Any] = []

    def harm(method: Any) -> None:
        if method == Method.PROPOSE:
            lost.append(method)
            raise Unavailable("the connection was lost: whether it came is not known")

    two.peers.harm = harm
    with pytest.raises(Unavailable, match="not known yet"):
        await two.meta.propose(1, bucket("b"))
    assert lost
    await two.close()
    await one.close()
