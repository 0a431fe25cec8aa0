"""What operators do to a running site: weights, draining, removal, redundancy of buckets, a witness."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.faults.process import ACCESS_KEY
from tests.ports import free_port
from tests.site.nodes import SiteNode, edgestore, make_site, rows, stop_all, until, voters

BODY = os.urandom(3000)
LARGE = os.urandom(600_000)


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[SiteNode]]:
    nodes = make_site(tmp_path, 3)
    yield nodes
    stop_all(nodes)


def read(node: SiteNode, bucket: str, key: str) -> bytes:
    """Through that node."""
    return bytes(node.client().get_object(Bucket=bucket, Key=key)["Body"].read())


def test_weight_drain_and_removal_show_everywhere(three: list[SiteNode]) -> None:
    three[0].client().create_bucket(Bucket="photos")
    three[0].client().put_object(Bucket="photos", Key="before", Body=LARGE)
    epoch = three[0].ask("status")["site"]["epoch"]
    assert three[1].ask("node", "set-weight", "3", "77")["weight"] == 77
    assert three[2].ask("node", "drain", "2")["state"] == "draining"
    assert three[0].ask("status")["site"]["epoch"] >= epoch + 2
    assert three[1].ask("node", "drain", "2", "--undo")["state"] == "up"
    assert (
        "nothing to take back"
        in edgestore("node", "drain", "2", "--undo", "--data", str(three[1].data), expect=1).stderr
    )
    assert three[2].ask("node", "drain", "2")["state"] == "draining"
    listed = rows(three[2])
    assert (listed[3]["weight"], listed[2]["state"]) == (77, "draining")
    three[0].client().put_object(Bucket="photos", Key="while-draining", Body=LARGE)
    for node in three:
        assert read(node, "photos", "before") == read(node, "photos", "while-draining") == LARGE
    three[0].ask("node", "remove", "2", "--yes")
    assert three[1].wait(20) == 1
    set_weight = ["node", "set-weight", "2", "7", "--data", str(three[0].data)]
    assert "REMOVED" in edgestore(*set_weight, expect=1).stderr
    until(lambda: voters(three[0]) == [1, 3])
    three[2].client().put_object(Bucket="photos", Key="after", Body=BODY)
    assert read(three[0], "photos", "after") == BODY


def test_a_node_that_was_down_writes_again(three: list[SiteNode]) -> None:
    three[0].client().create_bucket(Bucket="photos")
    until(lambda: voters(three[0]) == [1, 2, 3])
    three[2].kill()
    until(lambda: rows(three[0])[3]["state"] == "down")
    three[0].client().put_object(Bucket="photos", Key="meanwhile", Body=LARGE)
    three[2].start()
    until(lambda: rows(three[0])[3]["state"] == "up")
    for number in range(20):
        three[2].client().put_object(Bucket="photos", Key=f"back-{number}", Body=LARGE if number % 2 else BODY)
    assert read(three[0], "photos", "back-19") == LARGE
    assert read(three[2], "photos", "meanwhile") == LARGE


def test_nodes_that_moved_are_found_where_they_are(three: list[SiteNode]) -> None:
    """A voter, then the leader, whose catalog may not know yet where the first went, then two at once."""
    until(lambda: voters(three[0]) == [1, 2, 3])
    three[0].client().create_bucket(Bucket="photos")
    for moved in ([1], [0], [0, 1]):
        for at in moved:
            three[at].kill()
        for at in moved:
            three[at].mesh = f"127.0.0.1:{free_port()}"
            three[at].place = ["--mesh", three[at].mesh]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda at: three[at].start("serve", *three[at].place), moved))
        until(lambda: all(row["state"] == "up" for row in rows(three[2]).values()))
        three[moved[0]].client().put_object(Bucket="photos", Key="moved", Body=LARGE)
        assert read(three[2], "photos", "moved") == LARGE
        assert [rows(three[2])[at + 1]["address"] for at in moved] == [three[at].mesh for at in moved]


def test_the_redundancy_of_a_bucket_is_set_and_seen(three: list[SiteNode]) -> None:
    assert three[0].ask("bucket", "create", "wide", "--tolerate", "2")["now"][:3] == "1+2"
    three[0].ask("bucket", "create", "plain")
    three[1].ask("bucket", "set", "plain", "--scheme", "1+2")
    seen = {row["name"]: row for row in three[2].ask("bucket", "list")}
    assert (seen["wide"]["tolerate"], seen["wide"]["now"][:3]) == ("2", "1+2")
    assert seen["plain"]["scheme"] == "1+2"
    for bucket in ("wide", "plain"):
        three[0].client().put_object(Bucket=bucket, Key="a", Body=LARGE)
        assert read(three[2], bucket, "a") == LARGE
    three[0].ask("bucket", "set", "plain", "--scheme", "default", "--tolerate", "0")
    assert {row["name"]: row for row in three[2].ask("bucket", "list")}["plain"]["tolerate"] == "0"


def test_a_witness_votes_and_holds_no_content(tmp_path: Path) -> None:
    nodes = make_site(tmp_path, 2)
    witness = SiteNode(tmp_path / "witness")
    nodes.append(witness)
    try:
        first = nodes[0]
        first.ask("bucket", "create", "safe")
        first.ask("bucket", "create", "loose", "--tolerate", "0")
        witness.join(first.token(), first, more=("--witness",))
        until(lambda: voters(first) == [1, 2, 3])
        listed = rows(witness)
        assert [row["witness"] for row in listed.values()] == [False, False, True]
        for bucket in ("safe", "loose"):
            for number in range(4):
                witness.client().put_object(Bucket=bucket, Key=f"a{number}", Body=LARGE)
        assert read(witness, "safe", "a0") == LARGE
        held = sum(path.stat().st_blocks * 512 for path in (witness.data / "segments").rglob("*") if path.is_file())
        assert held < len(LARGE)
        nodes[1].kill()
        until(lambda: rows(first)[2]["state"] == "down")
        assert read(first, "safe", "a1") == read(witness, "safe", "a1") == LARGE
        first.client().put_object(Bucket="loose", Key="alone", Body=LARGE)
        assert read(witness, "loose", "alone") == LARGE
        for through in (first, witness):
            with pytest.raises(ClientError) as refused:
                through.client().put_object(Bucket="safe", Key="alone", Body=LARGE)
            assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        seen = {row["name"]: row["now"] for row in first.ask("bucket", "list")}
        assert seen["loose"] == "1+0 t=0"
        assert seen["safe"].startswith("no writes")
        nodes[1].start()
        until(lambda: rows(first)[2]["state"] == "up")
        first.client().put_object(Bucket="safe", Key="again", Body=LARGE)
        assert read(nodes[1], "safe", "again") == LARGE
    finally:
        stop_all(nodes)


NEWER = "from edgestore.catalog import commands; commands.FEATURE_LEVEL += 1; from edgestore.cli import main; main()"
"""A version that knows one feature level more."""


def level(node: SiteNode) -> int:
    """Of the site, as that node sees it."""
    return int(node.ask("status")["site"]["feature_level"])


def test_an_older_node_keeps_the_feature_level_down_until_it_is_upgraded(tmp_path: Path) -> None:
    nodes = [SiteNode(tmp_path / f"node{number}") for number in (1, 2, 3)]
    first, second, older = nodes
    for node in (first, second):
        node.program = [sys.executable, "-c", NEWER]
    try:
        older.found()
        first.join(older.token(), older)
        second.join(older.token(), older)
        until(lambda: voters(first) == [1, 2, 3])
        before = level(first)
        older.client().create_bucket(Bucket="photos")
        assert level(second) == before
        assert older.stop() == 0
        older.program = first.program
        older.start()
        until(lambda: level(second) == level(older) == before + 1)
        second.client().put_object(Bucket="photos", Key="a", Body=BODY)
        assert read(older, "photos", "a") == BODY
    finally:
        stop_all(nodes)


def test_a_stolen_root_pair_is_replaced_everywhere(three: list[SiteNode]) -> None:
    """As docs/howto/after-a-theft.md has it."""
    three[0].client().create_bucket(Bucket="photos")
    made = three[0].ask("key", "create", "--name", "root")
    edgestore("key", "delete", ACCESS_KEY, "--data", str(three[1].data))
    for node in three:
        until(lambda: made["access_key"] in (node.data / "credentials.toml").read_text())  # noqa: B023
        assert len(node.ask("node", "list")) == 3
        with pytest.raises(ClientError, match="InvalidAccessKeyId"):
            node.client().list_buckets()
    three[2].kill()
    three[2].environment = {"EDGESTORE_ACCESS_KEY": made["access_key"], "EDGESTORE_SECRET_KEY": made["secret_key"]}
    three[2].start()
    assert len(three[2].ask("node", "list")) == 3


def test_a_token_for_too_long_is_refused_in_days(three: list[SiteNode]) -> None:
    refused = edgestore("token", "create", "--ttl", "99999d", "--data", str(three[0].data), expect=1)
    assert "at most 7 days" in refused.stderr
