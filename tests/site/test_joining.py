"""Joining with real processes: one token makes one member, and everything else is refused with what to do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from edgestore.catalog import commands
from edgestore.clock import SystemClock, system_entropy
from edgestore.cluster import JoinRequest, parse_token
from edgestore.config import NetConfig
from edgestore.errors import BadRequest, InvalidToken, TooBusy
from edgestore.net import Credentials, Method, Peers, Rights, SystemNetwork
from edgestore.security import load_key, make_request, new_key
from tests.faults.process import NodeRefusedError
from tests.ports import free_port
from tests.site.nodes import SiteNode, edgestore, make_site, stop_all, until

BODY = os.urandom(4000)


@pytest.fixture
def first(tmp_path: Path) -> Iterator[SiteNode]:
    node = SiteNode(tmp_path / "first")
    node.found()
    yield node
    if node.process is not None and node.process.poll() is None:
        node.stop()


def test_three_nodes_are_one_store(tmp_path: Path) -> None:
    nodes = make_site(tmp_path, 3)
    try:
        nodes[0].client().create_bucket(Bucket="photos")
        for number, node in enumerate(nodes):
            node.client().put_object(Bucket="photos", Key=f"from-{number}", Body=BODY)
        for node in nodes:
            for number in range(3):
                assert node.client().get_object(Bucket="photos", Key=f"from-{number}")["Body"].read() == BODY
        rows = nodes[2].ask("node", "list")
        assert [row["number"] for row in rows] == [1, 2, 3]
        assert {row["zone"] for row in rows} == {"z1", "z2", "z3"}
        site = nodes[1].ask("status")["site"]
        assert site["leader"] in (1, 2, 3)
        assert "survives" in site["distance"]
    finally:
        stop_all(nodes)


def test_content_in_chunks_is_read_through_another_node(tmp_path: Path) -> None:
    nodes = make_site(tmp_path, 3)
    bodies = {"copies": os.urandom(60_000), "units": os.urandom(700_000), "chunks": os.urandom(9_000_000)}
    try:
        nodes[0].client().create_bucket(Bucket="photos")
        for name, body in bodies.items():
            nodes[1].client().put_object(Bucket="photos", Key=name, Body=body)
        for node in nodes:
            for name, body in bodies.items():
                assert node.client().get_object(Bucket="photos", Key=name)["Body"].read() == body
    finally:
        stop_all(nodes)


def test_a_later_start_needs_no_token(tmp_path: Path) -> None:
    nodes = make_site(tmp_path, 2)
    try:
        nodes[0].client().create_bucket(Bucket="photos")
        nodes[0].client().put_object(Bucket="photos", Key="a", Body=BODY)
        assert nodes[1].stop() == 0
        nodes[1].start()
        assert nodes[1].client().get_object(Bucket="photos", Key="a")["Body"].read() == BODY
        assert len(nodes[0].ask("node", "list")) == 2
    finally:
        stop_all(nodes)


def members(node: SiteNode) -> list[tuple[int, str]]:
    """Who belongs to the site."""
    return [(row["number"], row["member"]) for row in node.ask("node", "list")]


def refused(node: SiteNode, token: str, first: SiteNode, **changes: str) -> str:
    """What the joiner says; it must not say it in a traceback, nor leave a member behind."""
    before = members(first)
    with pytest.raises(NodeRefusedError) as found:
        node.join(token, first)
    assert found.value.code == 1
    assert "Traceback" not in found.value.log
    assert members(first) == before
    return found.value.log


def test_a_wrong_secret_is_refused(tmp_path: Path, first: SiteNode) -> None:
    token = first.token()
    wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
    assert "token" in refused(SiteNode(tmp_path / "second"), wrong, first)


def test_a_token_that_was_used_is_refused(tmp_path: Path, first: SiteNode) -> None:
    token, second = first.token(), SiteNode(tmp_path / "second")
    second.join(token, first)
    try:
        assert "used" in refused(SiteNode(tmp_path / "third"), token, first)
    finally:
        assert second.stop() == 0


def test_a_token_that_ran_out_is_refused(tmp_path: Path, first: SiteNode) -> None:
    token = first.token("1s")
    time.sleep(1.5)
    assert "too old" in refused(SiteNode(tmp_path / "second"), token, first)


def test_a_member_of_another_site_hears_nothing_of_the_secret(tmp_path: Path, first: SiteNode) -> None:
    version, _, token_id, secret = first.token().split(".")
    wrong = ".".join((version, "0" * 64, token_id, secret))
    assert "another site" in refused(SiteNode(tmp_path / "second"), wrong, first)


def test_a_peer_that_belongs_to_another_site_does_not_keep_a_node_from_joining_its_own(
    tmp_path: Path, first: SiteNode
) -> None:
    strange, second = SiteNode(tmp_path / "strange"), SiteNode(tmp_path / "second")
    try:
        strange.found()
        second.join(first.token(), strange, first)
        assert len(members(first)) == 2
        assert len(members(strange)) == 1
    finally:
        stop_all([strange, second])


def test_an_address_that_is_taken_is_said_before_the_token_is_spent(tmp_path: Path, first: SiteNode) -> None:
    token, second = first.token(), SiteNode(tmp_path / "second")
    host, _, port = second.mesh.rpartition(":")
    with socket.create_server((host, int(port))):
        assert second.mesh in refused(second, token, first)
    second.join(token, first)
    assert second.stop() == 0


def test_a_folder_that_holds_a_store_does_not_join(tmp_path: Path, first: SiteNode) -> None:
    second = SiteNode(tmp_path / "second")
    second.data.mkdir()
    edgestore("bucket", "create", "mine", "--data", str(second.data))
    assert "empty folder" in refused(second, first.token(), first)


def test_a_removed_node_is_shut_out_and_stops(tmp_path: Path) -> None:
    nodes = make_site(tmp_path, 2)
    try:
        nodes[0].ask("node", "remove", "2", "--yes")
        assert nodes[1].wait(20) == 1
        assert "removed" in nodes[1].log.read_text()
        with pytest.raises(NodeRefusedError) as found:
            nodes[1].start()
        assert found.value.code == 1
    finally:
        stop_all(nodes)


def test_papers_and_files_of_a_member_are_its_own(tmp_path: Path, first: SiteNode) -> None:
    for name in ("node.key", "node.crt", "ca.crt", "site.json"):
        assert (first.data / name).stat().st_mode & 0o777 == 0o600
    assert json.loads((first.data / "site.json").read_text())["listen"] == first.mesh


def test_nobody_opens_the_folder_of_a_member_alone(first: SiteNode) -> None:
    assert first.stop() == 0
    failed = edgestore("ls", "--data", str(first.data), expect=1)
    assert "edgestore serve" in failed.stderr


def test_strangers_put_nothing_into_the_log(first: SiteNode) -> None:
    before = first.ask("status")["applied_index"]
    token = parse_token(first.token())
    grown = first.ask("status")["applied_index"] - before

    async def flood() -> list[object]:
        stranger = Credentials(lambda facts: Rights.NONE)
        peers = Peers(
            SystemNetwork(), NetConfig(), stranger, member="ab" * 16, clock=SystemClock(), entropy=system_entropy
        )
        node = commands.NewNode("ab" * 16, first.mesh, "", "", 1 << 40, b"", b"", 1)
        proof = make_request(load_key(new_key(system_entropy)), "ab" * 16)
        asked = JoinRequest(token.token_id, "no", proof, node)
        wrong = [asked, replace(asked, token_id=bytes(8)), replace(asked, node=replace(node, zone="z" * 50_000))]
        heads = [msgspec.msgpack.encode(request) for request in wrong * 4]
        asking = [
            asyncio.create_task(peers.call_address(first.mesh, token.ca_digest, Method.JOIN, head, timeout_s=10))
            for head in heads
        ]
        await asyncio.wait(asking)
        return [task.exception() for task in asking]

    refused = asyncio.run(flood())
    assert all(isinstance(error, InvalidToken | BadRequest | TooBusy) for error in refused), refused
    assert sum(isinstance(error, InvalidToken) for error in refused) >= 2
    assert first.ask("status")["applied_index"] - before - grown <= 2


@pytest.mark.parametrize("step", ["write_authority", "write_certificate", "write_site"])
def test_a_joiner_that_was_killed_with_its_token_used_joins_again(tmp_path: Path, first: SiteNode, step: str) -> None:
    """Between steps 5 and 7 of docs/internals/joining.md: the site knows the member, its folder does not know the
    site."""
    token, second = first.token(), SiteNode(tmp_path / "second")
    killed = f"import os; from edgestore.core import membership; membership.{step} = lambda *a: os.kill(os.getpid(), 9)"
    whole, second.program = second.program, [sys.executable, "-c", f"{killed}; from edgestore.cli import main; main()"]
    with pytest.raises(NodeRefusedError) as found:
        second.join(token, first)
    assert found.value.code == -signal.SIGKILL
    assert not (second.data / "site.json").exists()
    assert [number for number, _ in members(first)] == [1, 2]
    second.program = whole
    second.join(token, first)
    try:
        assert [number for number, _ in members(first)] == [1, 2]
        second.client().create_bucket(Bucket="photos")
    finally:
        assert second.stop() == 0


def test_a_join_that_nobody_answers_ends_when_it_is_told_to(tmp_path: Path, first: SiteNode) -> None:
    token, second = first.token(), SiteNode(tmp_path / "second")
    second.launch("join", "--token", token, "--peer", f"127.0.0.1:{free_port()}", *second.place)
    until(lambda: "join-postponed" in second.log.read_text())
    begun = time.monotonic()
    assert second.process is not None
    second.process.send_signal(signal.SIGINT)
    assert second.wait(5) == 1
    assert time.monotonic() - begun < 3
    assert "the same token can be shown again" in second.log.read_text()
    second.join(token, first)
    assert second.stop() == 0


def test_a_join_that_is_stopped_after_it_was_admitted_says_how_to_go_on(tmp_path: Path, first: SiteNode) -> None:
    token, second = first.token(), SiteNode(tmp_path / "second")
    stopped = (
        "import os; from edgestore.core import membership; write = membership.write_site; "
        "membership.write_site = lambda *a: (write(*a), os.kill(os.getpid(), 2))"
    )
    whole, second.program = second.program, [sys.executable, "-c", f"{stopped}; from edgestore.cli import main; main()"]
    with pytest.raises(NodeRefusedError) as found:
        second.join(token, first)
    assert found.value.code == 1
    assert f"go on with `edgestore serve --data {second.data}`" in found.value.log
    second.program = whole
    second.start()
    assert second.stop() == 0


def test_a_join_through_an_s3_address_is_refused_at_once(tmp_path: Path, first: SiteNode) -> None:
    second, begun = SiteNode(tmp_path / "second"), time.monotonic()
    with pytest.raises(NodeRefusedError) as found:
        second.start("join", "--token", first.token(), "--peer", f"127.0.0.1:{first.port}", *second.place)
    assert "not a mesh address" in found.value.log
    assert time.monotonic() - begun < 10
