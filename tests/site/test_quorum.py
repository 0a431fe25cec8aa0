"""What a node says of itself with and without a quorum, and the way on by hand when the quorum is lost for good."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from edgestore import connect as edgestore_connect
from edgestore.errors import Unavailable
from tests.faults.process import ACCESS_KEY, SECRET_KEY
from tests.site.nodes import SiteNode, edgestore, make_site, stop_all, until, voters

SMALL = os.urandom(4000)
LARGE = os.urandom(600_000)
ANSWER_LIMIT_S = 10.0


def as_it_is_here(request: Any, **_: Any) -> None:
    """Asks for what the node has applied, whether or not it hears of the others."""
    request.headers["x-edgestore-consistency"] = "local"


def ready(node: SiteNode) -> int:
    """The status of `/-/ready`."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=ANSWER_LIMIT_S)
    connection.request("GET", "/-/ready")
    status = connection.getresponse().status
    connection.close()
    return status


def test_two_nodes_write_only_together(tmp_path: Path) -> None:
    impatient = "[meta]\npropose_timeout_s = 2.0\n[cluster]\nvoter_stable_ms = 1000\n"
    nodes = make_site(tmp_path, 2, configuration=impatient)
    one, two = nodes
    bodies = {"small": SMALL, "large": LARGE}
    try:
        until(lambda: voters(one) == [1, 2])
        one.client().create_bucket(Bucket="photos")
        for name, body in bodies.items():
            two.client().put_object(Bucket="photos", Key=name, Body=body)
        two.kill()
        until(lambda: ready(one) == 503)
        for name, body in bodies.items():
            with pytest.raises(ClientError) as refused:
                one.client().put_object(Bucket="photos", Key=f"{name}-alone", Body=body)
            assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        two.start()
        until(lambda: ready(one) == ready(two) == 200)
        for name, body in bodies.items():
            one.client().put_object(Bucket="photos", Key=f"{name}-again", Body=body)
            for node in nodes:
                for key in (name, f"{name}-again"):
                    assert node.client().get_object(Bucket="photos", Key=key)["Body"].read() == body
    finally:
        stop_all(nodes)


def test_what_cannot_be_read_now_is_refused_before_anything_is_said(tmp_path: Path) -> None:
    """And not answered with 200 and a body that breaks off: clients ask again by themselves."""
    nodes = make_site(tmp_path, 3)
    survivor, *lost = nodes
    s3 = survivor.client()
    s3.meta.events.register("before-sign.s3.GetObject", as_it_is_here)
    try:
        s3.create_bucket(Bucket="photos")
        s3.put_object(Bucket="photos", Key="large", Body=LARGE)
        assert s3.get_object(Bucket="photos", Key="large")["Body"].read() == LARGE
        for node in lost:
            node.kill()
        with pytest.raises(ClientError) as refused:
            s3.get_object(Bucket="photos", Key="large")
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    finally:
        stop_all(nodes)


def test_the_survivor_of_a_lost_quorum_goes_on_by_hand(tmp_path: Path) -> None:
    nodes = make_site(tmp_path, 3)
    survivor, *lost = nodes
    try:
        survivor.client().create_bucket(Bucket="photos")
        survivor.client().put_object(Bucket="photos", Key="small", Body=SMALL)
        assert [ready(node) for node in nodes] == [200, 200, 200]
        assert all(node.ask("status")["serves"] for node in nodes)
        for node in lost:
            node.kill()
        begun = time.monotonic()
        while ready(survivor) == 200:
            assert time.monotonic() - begun < ANSWER_LIMIT_S
        keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
        with edgestore_connect(survivor.endpoint, **keys) as store:
            with pytest.raises(Unavailable):
                store.bucket("photos").get("small")
            cut_off = store.bucket("photos", consistency="local")
            assert cut_off.get("small").read() == SMALL
            assert [version.key for version in cut_off.list()] == ["small"]
        found = survivor.ask("status")
        assert not found["serves"]
        assert "no more node" in found["site"]["distance"]
        survivor.stop()

        recover = ["site", "recover", "--from-survivors", "--data", str(survivor.data)]
        refused = edgestore(*recover, expect=130)
        assert "nodes that are given up for ever: 2, 3" in refused.stderr
        kill = "import os; from edgestore.core import recovery; from edgestore.cli import main; "
        kill += "recovery.Meta.open = lambda *a, **k: os.kill(os.getpid(), 9); main()"
        command = [sys.executable, "-c", kill, *recover, "--yes"]
        killed = subprocess.run(command, check=False, timeout=60)
        assert killed.returncode == -signal.SIGKILL  # the stop-sign is in the log, and nobody is removed yet
        done = edgestore(*recover, "--yes", "--json")
        assert '"removed": [2, 3]' in done.stdout
        again = edgestore(*recover, "--yes", expect=1)
        assert "a majority of the voters survives" in again.stderr

        survivor.start()
        s3 = survivor.client()
        assert s3.get_object(Bucket="photos", Key="small")["Body"].read() == SMALL
        s3.put_object(Bucket="photos", Key="large", Body=SMALL * 100)
        assert s3.get_object(Bucket="photos", Key="large")["Body"].read() == SMALL * 100
        assert [row["state"] for row in survivor.ask("node", "list")] == ["up", "removed", "removed"]
    finally:
        for node in nodes:
            if node.process is not None and node.process.poll() is None:
                node.kill()


def test_a_start_without_a_quorum_says_what_it_waits_for(tmp_path: Path) -> None:
    nodes = make_site(tmp_path, 3)
    first = nodes[0]
    try:
        until(lambda: voters(first) == [1, 2, 3])
        for node in nodes:
            node.kill()
        first.launch()
        until(lambda: "waiting for a majority of the voters: 1 of 3 answer" in first.log.read_text())
        assert first.process is not None
        assert first.process.poll() is None
    finally:
        first.kill()
