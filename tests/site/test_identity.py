"""One identity is one node: a copy stops both, a stolen one is shut out, and the rest of the site goes on."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from edgestore.chunks.remote import ReadHead
from edgestore.clock import SystemClock
from edgestore.config import Config, NetConfig
from edgestore.core.membership import Papers, read_papers
from edgestore.core.recovery import catalog_of
from edgestore.disk import SystemFiles
from edgestore.errors import Denied, EdgeStoreError, NotFound
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


def test_what_lies_on_a_stolen_disk_opens_no_door(tmp_path: Path) -> None:
    """Neither the node's own key and certificate, nor what the authority, whose key the catalog holds, signs for a
    member that never joined."""
    nodes = make_site(tmp_path, 3)
    try:
        until(lambda: voters(nodes[0]) == [1, 2, 3])
        nodes[2].kill()
        members = {row["number"]: row["member"] for row in rows(nodes[0]).values()}
        own = own_papers(nodes[2].data)
        for number, node in enumerate(nodes[:2], 1):
            assert ask_as(own, members[3], members[number], node.mesh) is None
        nodes[0].ask("node", "remove", "3", "--yes")
        name, forged = os.urandom(16).hex(), asyncio.run(forged_papers(nodes[2].data))
        for number, node in enumerate(nodes[:2], 1):
            for papers, thief in ((own, members[3]), (forged(name), name)):
                refused = ask_as(papers, thief, members[number], node.mesh)
                assert isinstance(refused, Denied)
    finally:
        stop_all(nodes)


def own_papers(stolen: Path) -> Papers:
    """As the thief finds them."""
    papers = read_papers(SystemFiles(str(stolen)))
    assert papers is not None
    return papers


async def forged_papers(stolen: Path) -> Callable[[str], Papers]:
    """Makes papers for any name, signed by the authority of the stolen disk."""
    async with catalog_of(str(stolen), Config()) as (_, _, state):
        record, site_id, now_ms = state.authority(), state.site().site_id, state.site().log_time_ms
    assert record is not None
    authority = Authority(record.certificate, record.key)

    def forge(name: str) -> Papers:
        key = new_key(os.urandom)
        certificate = issue(authority, name, site_id, load_key(key).public_key(), now_ms, 1 << 40)
        return Papers(key, certificate, authority.certificate_der)

    return forge


def ask_as(papers: Papers, name: str, member: str, address: str) -> EdgeStoreError | None:
    """Asks a node for a fragment that nobody has. Returns how it is refused, None for one who may ask."""

    async def ask() -> None:
        credentials = Credentials(lambda facts: Rights.MEMBER)
        credentials.load(papers.key, papers.certificate, papers.authority)
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
            head = msgspec.msgpack.encode(ReadHead(bytes(16), 0, 0, 1))
            await peers.call(member, Method.FRAGMENT_READ, head, timeout_s=5)
        finally:
            await peers.close()

    try:
        asyncio.run(ask())
    except NotFound:
        return None
    except EdgeStoreError as error:
        return error
    raise AssertionError("a fragment that nobody has was found")


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
