"""One identity is one node: a copy stops both, a stolen one is shut out, and the rest of the site goes on."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

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


def test_the_survivor_of_three_goes_on_alone_and_the_lost_are_fenced(tmp_path: Path) -> None:
    nodes = make_site(tmp_path, 3)
    try:
        nodes[0].client().create_bucket(Bucket="photos")
        nodes[0].client().put_object(Bucket="photos", Key="kept", Body=BODY)
        until(lambda: voters(nodes[0]) == [1, 2, 3])
        for node in nodes:
            node.kill()
        words = ("site", "recover", "--from-survivors", "--data", str(nodes[0].data))
        refused = edgestore(*words, expect=1, typed="n\n")
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
