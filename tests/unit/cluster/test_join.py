"""Whom a joiner asks, in which order, and what it says of those that do not let it in."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from edgestore.catalog import commands
from edgestore.cluster import JoinAnswer, JoinRequest, ask_to_join
from edgestore.config import ClusterConfig
from edgestore.errors import BadRequest, EdgeStoreError, Unavailable

REQUEST = JoinRequest(b"id", "secret", b"", commands.NewNode("member", "a:1", "", "", 1, b"", b"", 1))
ANSWER = JoinAnswer(bytes(16), 2, b"", b"certificate", (), ())
TOKEN: Any = SimpleNamespace(ca_digest=b"")
S3 = BadRequest("s3:9000 is not a mesh address")


class Town:
    """`net.Peers` of a joiner: what each address answers."""

    def __init__(self, answers: dict[str, EdgeStoreError | None]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def call_address(self, address: str, *_: object, timeout_s: float) -> Any:
        self.asked.append(address)
        error = self.answers[address]
        if error is not None:
            raise error
        return SimpleNamespace(head=msgspec.msgpack.encode(ANSWER))


async def ask(town: Any, timeout_s: float = 5.0) -> JoinAnswer:
    return await ask_to_join(town, ClusterConfig(join_timeout_s=timeout_s), TOKEN, tuple(town.answers), REQUEST)


async def test_an_address_that_is_no_member_does_not_keep_the_next_from_being_asked() -> None:
    town = Town({"s3:9000": S3, "good:9100": None})
    assert await ask(town) == ANSWER
    assert town.asked == ["s3:9000", "good:9100"]


async def test_where_none_is_a_member_the_last_refusal_is_told_at_once() -> None:
    with pytest.raises(BadRequest, match="not a mesh address"):
        await ask(Town({"s3:9000": S3}))


async def test_what_is_said_again_and_again_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgestore.cluster.join.ASK_AGAIN_S", 0.01)
    caplog.set_level(logging.INFO, "edgestore.cluster")
    town = Town({"dead:9100": Unavailable("dead:9100 cannot be reached: refused")})
    with pytest.raises(Unavailable, match="cannot be reached"):
        await ask(town, timeout_s=0.3)
    assert len(town.asked) > 2
    assert [record.getMessage() for record in caplog.records] == [
        "join-postponed address=dead:9100 reason=dead:9100 cannot be reached: refused"
    ]
