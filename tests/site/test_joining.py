"""Joining with real processes: one token makes one member, and everything else is refused with what to do."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.process import NodeRefusedError
from tests.site.nodes import SiteNode, edgestore, make_site, stop_all

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
