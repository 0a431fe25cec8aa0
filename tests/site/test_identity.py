"""One identity is one node: a copy stops both, a stolen one is shut out, and the rest of the site goes on."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from edgestore.clock import SystemClock
from edgestore.config import Config, NetConfig
from edgestore.core.recovery import catalog_of
from edgestore.errors import Denied
from edgestore.net import Credentials, Method, Peers, Rights, SystemNetwork
from edgestore.observe import Metrics
from edgestore.security import Authority, issue, load_key, new_key
from tests.site.nodes import SiteNode, edgestore, make_site, rows, stop_all, until, voters

BODY = os.urandom(3000)


def test_a_copied_identity_stops_both_and_the_site_goes_on(tmp_path: Path) -> None:
    nodes = make_site(tmp_path, 3)
    copy = SiteNode(tmp_path / "copy")
    try:
        nodes[0].client().create_bucket(Bucket="photos")
        until(lambda: voters(nodes[0]) == [1, 2, 3])
        shutil.copytree(nodes[2].data, copy.data, ignore=shutil.ignore_patterns("*.sock", "lock"))
        copy.launch("serve", "--mesh", copy.mesh)
        for twin in (nodes[2], copy):
            assert twin.wait(20) == 1
            assert "runs twice" in twin.log.read_text()
        nodes[0].client().put_object(Bucket="photos", Key="after", Body=BODY)
        assert nodes[1].client().get_object(Bucket="photos", Key="after")["Body"].read() == BODY
        assert rows(nodes[0])[3]["state"] == "quarantined"
    finally:
        stop_all([*nodes, copy])


def test_a_stolen_node_is_shut_out_by_one_command(tmp_path: Path) -> None:
    nodes = make_site(tmp_path, 3)
    try:
        nodes[0].client().create_bucket(Bucket="photos")
        until(lambda: voters(nodes[0]) == [1, 2, 3])
        nodes[2].kill()  # taken away as it ran
        stolen = rows(nodes[0])[3]["member"]
        nodes[0].ask("node", "remove", "3", "--yes")
        until(lambda: voters(nodes[0]) == [1, 2])
        nodes[2].launch("serve")
        assert nodes[2].wait(20) == 1
        assert "removed" in nodes[2].log.read_text()
        assert "edgestore ready" not in nodes[2].log.read_text()
        assert rows(nodes[0])[3]["member"] == stolen
        nodes[0].client().put_object(Bucket="photos", Key="after", Body=BODY)
        assert nodes[1].client().get_object(Bucket="photos", Key="after")["Body"].read() == BODY
    finally:
        stop_all(nodes)


def test_the_authority_on_a_stolen_disk_opens_no_door(tmp_path: Path) -> None:
    """The catalog holds the authority's key: what it signs for a member that never joined has no rights."""
    nodes = make_site(tmp_path, 3)
    try:
        until(lambda: voters(nodes[0]) == [1, 2, 3])
        nodes[2].kill()
        nodes[0].ask("node", "remove", "3", "--yes")
        members = {row["number"]: row["member"] for row in rows(nodes[0]).values()}
        for number, node in enumerate(nodes[:2], 1):
            with pytest.raises(Denied):
                asyncio.run(ask_as_a_thief(nodes[2].data, members[number], node.mesh))
    finally:
        stop_all(nodes)


async def ask_as_a_thief(stolen: Path, member: str, address: str) -> None:
    """Asks a node for fragments, under a new name that the authority of the stolen disk vouches for."""
    async with catalog_of(str(stolen), Config()) as (_, _, state):
        record, site_id, now_ms = state.authority(), state.site().site_id, state.site().log_time_ms
    assert record is not None
    key, name = new_key(os.urandom), os.urandom(16).hex()
    authority = Authority(record.certificate, record.key)
    credentials = Credentials(lambda facts: Rights.MEMBER)
    certificate = issue(authority, name, site_id, load_key(key).public_key(), now_ms, 1 << 40)
    credentials.load(key, certificate, authority.certificate_der)
    peers = Peers(
        SystemNetwork(),
        NetConfig(),
        credentials,
        member=name,
        clock=SystemClock(),
        entropy=os.urandom,
        metrics=Metrics(),
    )
    try:
        await peers.start("127.0.0.1", 0)
        peers.know(member, address)
        await peers.call(member, Method.FRAGMENT_READ, b"\x90", timeout_s=5)
    finally:
        await peers.close()


def test_the_survivor_of_three_goes_on_alone_and_the_lost_are_fenced(tmp_path: Path) -> None:
    nodes = make_site(tmp_path, 3)
    try:
        nodes[0].client().create_bucket(Bucket="photos")
        nodes[0].client().put_object(Bucket="photos", Key="kept", Body=BODY)
        until(lambda: voters(nodes[0]) == [1, 2, 3])
        for node in nodes:
            node.kill()
        words = ("site", "recover", "--from-survivors", "--data", str(nodes[0].data))
        refused = edgestore(*words, expect=130, typed="n\n")
        assert "given up for ever: 2, 3" in refused.stderr
        site_id = refused.stderr.split("site ", 1)[1][:32]
        assert "nothing was done" in edgestore(*words, expect=2, typed="y\nanother\n").stderr
        edgestore(*words, typed=f"y\n{site_id}\n")
        nodes[0].start()
        assert nodes[0].client().get_object(Bucket="photos", Key="kept")["Body"].read() == BODY
        nodes[0].client().put_object(Bucket="photos", Key="alone", Body=BODY)
        assert {number: row["state"] for number, row in rows(nodes[0]).items()} == {
            1: "up",
            2: "removed",
            3: "removed",
        }
        for lost in nodes[1:]:
            lost.launch("serve")
            assert lost.wait(20) == 1
            assert "removed" in lost.log.read_text()
        fresh = SiteNode(tmp_path / "fresh")
        nodes.append(fresh)
        fresh.join(nodes[0].token(), nodes[0])
        assert fresh.client().get_object(Bucket="photos", Key="alone")["Body"].read() == BODY
    finally:
        stop_all(nodes)
