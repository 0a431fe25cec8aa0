"""Certificates with real processes: renewed in a running node, after it was away for too long, under a wrong clock."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.faults.trial import cannot_run
from tests.site.nodes import SiteNode, make_site, stop_all, until, voters

LIFE_MS = 6000
SHORT = f"""
[cluster]
certificate_life_ms = {LIFE_MS}
renew_check_ms = 200
"""
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
BODY = os.urandom(3000)


def works(through: SiteNode, other: SiteNode, name: str) -> None:
    """Written through one node, read through another."""
    through.client().put_object(Bucket="photos", Key=name, Body=BODY)
    assert other.client().get_object(Bucket="photos", Key=name)["Body"].read() == BODY


def knows_the_time(node: SiteNode) -> bool:
    """Whether it has heard the others; until then clients are told to try again."""
    try:
        node.client().list_buckets()
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 503:
            raise
        return False
    return True


def test_certificates_are_renewed_without_a_restart(tmp_path: Path) -> None:
    nodes = make_site(tmp_path, 3, configuration=SHORT)
    try:
        nodes[0].client().create_bucket(Bucket="photos")
        first = [(node.data / "node.crt").read_bytes() for node in nodes]
        time.sleep(1.5 * LIFE_MS / 1000)
        for number, node in enumerate(nodes):
            works(node, nodes[number - 1], f"during-{number}")
        assert all((node.data / "node.crt").read_bytes() != before for node, before in zip(nodes, first, strict=True))
        assert {row["state"] for row in nodes[0].ask("node", "list")} == {"up"}
    finally:
        stop_all(nodes)


@pytest.mark.parametrize("which", [1, 2])
def test_a_node_away_for_longer_than_its_certificate_lives_comes_back(tmp_path: Path, which: int) -> None:
    nodes = make_site(tmp_path, 3, configuration=SHORT)
    try:
        nodes[0].client().create_bucket(Bucket="photos")
        away = nodes[which]
        until(lambda: voters(nodes[0]) == [1, 2, 3])
        assert away.stop() == 0
        time.sleep(1.5 * LIFE_MS / 1000)
        nodes[0].client().put_object(Bucket="photos", Key="meanwhile", Body=BODY)
        away.start()
        assert away.client().get_object(Bucket="photos", Key="meanwhile")["Body"].read() == BODY
        works(away, nodes[0], "again")
    finally:
        stop_all(nodes)


@pytest.mark.parametrize("offset", ["-3650d", "+3650d"])
def test_a_node_that_starts_cold_with_a_wrong_clock_talks_to_its_site(tmp_path: Path, offset: str) -> None:
    if not FAKETIME.exists():
        cannot_run("needs libfaketime")
    nodes = make_site(tmp_path, 3)
    wrong = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    try:
        nodes[0].client().create_bucket(Bucket="photos")
        until(lambda: voters(nodes[0]) == [1, 2, 3])
        assert nodes[2].stop() == 0
        nodes[2].environment = wrong
        nodes[2].start()
        works(nodes[0], nodes[1], "among-the-others")
        until(lambda: knows_the_time(nodes[2]))
        works(nodes[2], nodes[0], "through-it")
        until(lambda: {row["state"] for row in nodes[2].ask("node", "list")} == {"up"})
        assert nodes[2].ask("bucket", "list")
    finally:
        stop_all(nodes)
