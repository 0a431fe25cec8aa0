"""`/-/admin/v1` answers root's signature over TCP, and whoever may open the local socket.

Each refusal is named after the hole that it closes; the numbers are those of the CVE.
"""

from __future__ import annotations

import hmac
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgestore.config import S3Config
from edgestore.node import SOCKET_NAME, _bind_local
from edgestore.observe import NO_METRICS
from edgestore.protocols.admin import Admin
from tests.unit.http.served import Answer
from tests.unit.s3.lanes import OTHER, ROOT, Case, Lanes

ADMIN = "/-/admin/v1"
NEW_KEY = json.dumps({"name": "mallory", "access_key": "AKMALLORY00000000001"}).encode()
FORGED = (
    "AWS4-HMAC-SHA256 Credential={}/20260101/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature={}"
)


@pytest.fixture(scope="module")
def lanes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lanes]:
    lanes = Lanes(tmp_path_factory.mktemp("admin") / "data")
    yield lanes
    lanes.close()


@pytest.fixture(params=["fast", "slow"])
def lane(request: pytest.FixtureRequest) -> str:
    """Administration never takes the fast lane, but reaches a front that has one."""
    return str(request.param)


@pytest.fixture(autouse=True)
def unchanged(lanes: Lanes, request: pytest.FixtureRequest) -> Iterator[None]:
    """A refused request does nothing."""
    yield
    assert {key.access_key for key, _ in lanes.core.tenants.list_keys()} == {ROOT[0], OTHER[0]}
    assert lanes.run(lanes.core.objects.list_buckets(lanes.core.tenants.root())) == []


def create_key(**options: Any) -> Case:
    """What an intruder would ask first."""
    return Case("PUT", f"{ADMIN}/keys", body=NEW_KEY, **options)


def assert_refused(answer: Answer, *statuses: int) -> None:
    """With an error, and without anything of the inside."""
    assert answer.status in (statuses or (403,))
    for secret in (ROOT[1], OTHER[1], OTHER[0], "root:x:"):
        assert secret.encode() not in answer.body


def routes() -> list[tuple[str, str]]:
    """Every row of the table."""
    return list(Admin(None, NO_METRICS)._table)  # type: ignore[arg-type]


def test_root_administers_over_tcp(lanes: Lanes, lane: str) -> None:
    answer = lanes.send(Case(target=f"{ADMIN}/keys"), lane)
    assert answer.status == 200
    assert {row["access_key"] for row in json.loads(answer.body)} == {ROOT[0], OTHER[0]}
    assert all("secret_key" not in row for row in json.loads(answer.body))


@pytest.mark.parametrize(("method", "name"), routes())
@pytest.mark.parametrize("options", [{"sign": "none"}, {"keys": (ROOT[0], "guess")}, {"keys": OTHER}])
def test_no_route_answers_without_roots_signature(
    lanes: Lanes, lane: str, method: str, name: str, options: dict[str, Any]
) -> None:
    body = NEW_KEY if method == "PUT" else None
    assert_refused(lanes.send(Case(method, f"{ADMIN}/{name}", body=body, **options), lane))


@pytest.mark.parametrize("secret", ["", "minioadmin", OTHER[1], ROOT[0]])
def test_known_access_key_without_its_secret_is_refused_2020_11012(lanes: Lanes, lane: str, secret: str) -> None:
    assert_refused(lanes.send(create_key(keys=(ROOT[0], secret)), lane))


@pytest.mark.parametrize("signature", ["0" * 64, "", "x"])
def test_access_key_alone_is_refused_2020_11012(lanes: Lanes, lane: str, signature: str) -> None:
    forged = {"authorization": FORGED.format(ROOT[0], signature), "x-amz-date": "20260101T000000Z"}
    assert_refused(lanes.send(create_key(sign="none", headers=forged), lane), 400, 403)


@pytest.mark.parametrize("header", ["x-forwarded-for", "x-real-ip", "forwarded", "x-amz-source-ip"])
def test_claim_to_be_local_is_not_believed(lanes: Lanes, lane: str, header: str) -> None:
    assert_refused(lanes.send(create_key(sign="none", headers={header: "127.0.0.1", "host": "localhost"}), lane))


def test_owner_cannot_make_itself_more_2024_55949(lanes: Lanes, lane: str) -> None:
    for method, name in (("PUT", "keys"), ("DELETE", f"keys?access_key={ROOT[0]}"), ("GET", "keys")):
        assert_refused(lanes.send(Case(method, f"{ADMIN}/{name}", body=NEW_KEY, keys=OTHER), lane))


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"mallory", b"mallorz"), (b"PUT ", b"DELETE "), (b"/keys ", b"/keys?name=m "), (b"/keys ", b"/buckets ")],
)
def test_request_changed_after_signing_is_refused(lanes: Lanes, lane: str, old: bytes, new: bytes) -> None:
    assert_refused(lanes.send(create_key(tamper=lambda data: data.replace(old, new, 1)), lane))


@pytest.mark.parametrize(
    "payload", ["unsigned", "unsigned trailer", "signed", "signed trailer", "0" * 64, "nonsense", ""]
)
def test_body_that_is_not_signed_as_a_whole_is_refused(lanes: Lanes, lane: str, payload: str) -> None:
    assert_refused(lanes.send(create_key(payload=payload, chunks=(NEW_KEY,)), lane), 400, 403)


@pytest.mark.parametrize("case", [create_key(sign="query"), create_key(age_s=1000), create_key(age_s=-1000)])
def test_signature_in_the_query_or_of_another_time_is_refused(lanes: Lanes, lane: str, case: Case) -> None:
    assert_refused(lanes.send(case, lane))


def test_configured_clock_skew_holds_here_too(tmp_path: Path) -> None:
    lanes = Lanes(tmp_path / "data", s3=S3Config(clock_skew_max_s=60))
    try:
        assert lanes.send(Case(target=f"{ADMIN}/keys", age_s=30), "fast").status == 200
        assert_refused(lanes.send(Case(target=f"{ADMIN}/keys", age_s=100), "fast"))
    finally:
        lanes.close()


def test_body_is_compared_in_constant_time(lanes: Lanes, lane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides is the comparison that takes the same time for all: where it says yes, nothing else says no."""
    changed = Case(target=f"{ADMIN}/status", body=b"{}", tamper=lambda data: data[:-2] + b"[]")
    assert_refused(lanes.send(changed, lane))
    whole = hmac.compare_digest
    verdicts: list[bool] = []

    def agree(left: Any, right: Any) -> bool:
        if isinstance(left, str):
            return whole(left, right)
        verdicts.append(whole(left, right))
        return True

    monkeypatch.setattr(hmac, "compare_digest", agree)
    answer = lanes.send(changed, lane)
    assert (answer.status, json.loads(answer.body)["error"]) == (400, "BadRequest")  # the body is no object
    assert verdicts == [False]


PATHS = [
    f"{ADMIN}/../v1/keys",
    f"{ADMIN}/./keys",
    f"{ADMIN}/%2e%2e/v1/keys",
    f"{ADMIN}/%2e/keys",
    f"{ADMIN}/..%2fv1%2fkeys",
    f"{ADMIN}/key%73",
    f"{ADMIN}//keys",
    f"{ADMIN}/keys/",
    f"{ADMIN}/keys%2f",
    f"{ADMIN}/keys%00",
    f"{ADMIN}/keys;x",
    f"{ADMIN}/../../../../etc/passwd",
    f"{ADMIN}/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
    f"{ADMIN}/..%5c..%5cetc%5cpasswd",
    ADMIN,
    f"{ADMIN}/",
    "/-//admin/v1/keys",
    "//-/admin/v1/keys",
    "/./-/admin/v1/keys",
    "/%2d/admin/v1/keys",
    "/-%2fadmin/v1/keys",
    "/-/ADMIN/v1/keys",
    "/-/ready/../admin/v1/keys",
    "/-/metrics/..%2fadmin/v1/keys",
    "/bucket/../-/admin/v1/keys",
]


@pytest.mark.parametrize("target", PATHS)
@pytest.mark.parametrize("keys", [None, OTHER, ROOT])
def test_path_games_reach_no_route_and_no_file_2022_35919(
    lanes: Lanes, lane: str, target: str, keys: tuple[str, str] | None
) -> None:
    case = Case(target=target, sign="none") if keys is None else Case(target=target, keys=keys)
    for each in (case, replace(case, method="PUT", body=NEW_KEY)):
        assert_refused(lanes.send(each, lane), 400, 403, 404, 405)


def test_absolute_target_needs_the_signature_too(lanes: Lanes, lane: str) -> None:
    assert_refused(lanes.send(Case(target=f"http://store.example{ADMIN}/keys", sign="none"), lane))


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "file:///etc/passwd"])
def test_names_of_files_are_names_2022_35919(lanes: Lanes, lane: str, name: str) -> None:
    for method, route, field in (("PUT", "buckets", "name"), ("DELETE", "keys", "access_key")):
        document = json.dumps({field: name}).encode()
        assert_refused(lanes.send(Case(method, f"{ADMIN}/{route}", body=document), lane), 400, 404)


@pytest.mark.parametrize(
    "document",
    [b"{", b"[]", b'{"name": 1}', b"[" * 60_000, b'{"name": "\\ud800"}', b'{"name": ""}', b"\xff", b" " * 70_000],
)
def test_hostile_document_is_a_bad_request(lanes: Lanes, lane: str, document: bytes) -> None:
    assert_refused(lanes.send(Case("PUT", f"{ADMIN}/keys", body=document), lane), 400, 413)


# --- the local socket -------------------------------------------------------------------------------------


def test_local_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with _bind_local(str(tmp_path)):
            assert (tmp_path / SOCKET_NAME).stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_local_socket_is_trusted_and_no_other(lanes: Lanes, lane: str, tmp_path: Path) -> None:
    lanes.run(lanes.fronts[lane].start_local(_bind_local(str(tmp_path))))
    request = f"GET {ADMIN}/keys HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n".encode()
    received = b""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(tmp_path / SOCKET_NAME))
        client.sendall(request)
        while data := client.recv(65_536):
            received += data
    assert received.startswith(b"HTTP/1.1 200 ")
    assert OTHER[0].encode() in received
    assert_refused(lanes.send(Case(target=f"{ADMIN}/keys", sign="none"), lane))
    assert_refused(lanes.send(Case(target="/bucket/key", sign="none"), lane))
