"""Details of S3 that clients lean on, each through the whole protocol."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from pathlib import Path

import pytest

from tests.unit.s3.door import Answer, Door, opened


def keys_of(answer: Answer) -> list[str]:
    return re.findall("<Contents><Key>([^<]*)</Key>", answer.body.decode())


async def delete_objects(door: Door, document: str) -> Answer:
    body = document.encode()
    headers = {"content-md5": b64encode(hashlib.md5(body).digest()).decode()}
    return await door.send("POST", "/bucket?delete=", headers, body)


async def test_a_listing_goes_on_where_its_token_says(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        for key in ("a", "b/1", "b/2", "c%20d", "e"):
            await door.send("PUT", f"/bucket/{key}")
        first = await door.send("GET", "/bucket?delimiter=%2F&list-type=2&max-keys=2&start-after=0")
        assert (keys_of(first), first.field("KeyCount"), first.field("IsTruncated")) == (["a"], "2", "true")
        token = first.field("NextContinuationToken").replace("=", "%3D")
        # A token counts, a start-after beside it does not.
        listing = f"/bucket?continuation-token={token}&delimiter=%2F&encoding-type=url&list-type=2&start-after=e"
        rest = await door.send("GET", listing)
        assert (keys_of(rest), rest.field("IsTruncated"), rest.field("StartAfter")) == (["c%20d", "e"], "false", "e")
        assert keys_of(await door.send("GET", "/bucket?list-type=2&start-after=c%20d")) == ["e"]


@pytest.mark.parametrize("token", ["!!!", "YQ", "YQ%3D%3D%3D", "Y%20Q%3D%3D", "%2F%2F8%3D", "%3D", "YQ%3D%3D!"])
async def test_tokens_that_are_none_are_refused(tmp_path: Path, token: str) -> None:
    async with opened(tmp_path) as door:
        answer = await door.send("GET", f"/bucket?continuation-token={token}&list-type=2")
        assert (answer.status, answer.code) == (400, "InvalidArgument")
        assert (await door.send("GET", f"/?continuation-token={token}")).code == "InvalidArgument"


async def test_every_key_has_a_token(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        keys = ["%F0%9F%98%80", "a%3F%3F%3E", "zz"]
        for key in keys:
            assert (await door.send("PUT", f"/bucket/{key}")).status == 200
        listed, token = [], ""
        for _ in range(3):
            page = await door.send("GET", f"/bucket?{token}encoding-type=url&list-type=2&max-keys=1")
            listed += keys_of(page)
            following = page.field("NextContinuationToken").replace("=", "%3D")
            token = f"continuation-token={following}&"
        assert sorted(listed) == keys


@pytest.mark.parametrize("lane", ["slow", "fast"])
@pytest.mark.parametrize(
    ("range_", "status", "shown"),
    [
        ("bytes=0-", 416, "bytes */0"), ("bytes=-5", 416, "bytes */0"), ("bytes=0-0", 416, "bytes */0"),
        ("bytes=5-2", 200, None), ("bytes=-", 200, None),
    ],
)  # fmt: skip
async def test_no_range_of_nothing_can_be_had(
    tmp_path: Path, lane: str, range_: str, status: int, shown: str | None
) -> None:
    async with opened(tmp_path) as door:
        await door.send("PUT", "/bucket/empty")
        answer = await door.send("GET", "/bucket/empty", {"range": range_}, lane=lane)
        assert (answer.status, answer.headers.get("content-range")) == (status, shown)


@pytest.mark.parametrize("number", ["", "0", "-1", "10001", "1.0", "x"])
async def test_part_numbers_that_are_none_are_refused(tmp_path: Path, number: str) -> None:
    async with opened(tmp_path) as door:
        await door.send("PUT", "/bucket/key", {}, b"hello")
        upload = (await door.send("POST", "/bucket/key?uploads=")).field("UploadId")
        for method, target, headers in (
            ("GET", f"/bucket/key?partNumber={number}", {}),
            ("PUT", f"/bucket/key?partNumber={number}&uploadId={upload}", {}),
            ("PUT", f"/bucket/key?partNumber={number}&uploadId={upload}", {"x-amz-copy-source": "/bucket/key"}),
        ):
            answer = await door.send(method, target, headers)
            assert (answer.status, answer.code) == (400, "InvalidArgument")
        assert (await door.send("GET", "/bucket/key?partNumber=2")).code == "InvalidPartNumber"
        assert (await door.send("GET", "/bucket/key?partNumber=1")).headers["content-range"] == "bytes 0-4/5"


@pytest.mark.parametrize("lane", ["slow", "fast"])
async def test_errors_of_head_have_no_body(tmp_path: Path, lane: str) -> None:
    async with opened(tmp_path) as door:
        await door.send("PUT", "/bucket/key", {}, b"hello")
        for target, headers, status in (
            ("/bucket/none", {}, 404),
            ("/none/key", {}, 404),
            ("/bucket/key?versionId=bogus", {}, 400),
            ("/bucket/key", {"range": "bytes=9-"}, 416),
            ("/bucket/key", {"if-match": "other"}, 412),
            ("/bucket/key", {"if-none-match": "*"}, 304),
        ):
            answer = await door.send("HEAD", target, headers, lane=lane)
            assert (answer.status, answer.body) == (status, b"")


async def test_each_deletion_of_many_has_an_outcome_of_its_own(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        await door.send("PUT", "/bucket/key", {}, b"hello")
        rows = (
            f"<Object><Key>{'k' * 1025}</Key></Object><Object><Key>key</Key><VersionId>bogus</VersionId></Object>"
            "<Object><Key>key</Key><ETag>other</ETag></Object><Object><Key>none</Key></Object>"
        )
        answer = await delete_objects(door, f"<Delete><Quiet>true</Quiet>{rows}</Delete>")
        codes = re.findall("<Code>([^<]*)</Code>", answer.body.decode())
        assert (answer.status, codes) == (200, ["KeyTooLongError", "InvalidArgument", "PreconditionFailed"])
        assert b"<Deleted>" not in answer.body
        assert (await door.send("HEAD", "/bucket/key")).status == 200
        answer = await delete_objects(door, "<Delete><Object><Key>key</Key></Object></Delete>")
        assert b"<Deleted><Key>key</Key></Deleted>" in answer.body


async def test_a_copy_onto_itself_must_change_something(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        await door.send("PUT", "/bucket/key", {"x-amz-meta-a": "1"}, b"hello")
        same = {"x-amz-copy-source": "/bucket/key"}
        assert (await door.send("PUT", "/bucket/key", same)).code == "InvalidRequest"
        replaced = {**same, "x-amz-metadata-directive": "REPLACE", "x-amz-meta-b": "2"}
        assert (await door.send("PUT", "/bucket/key", replaced)).status == 200
        shown = await door.send("GET", "/bucket/key")
        assert (shown.body, "x-amz-meta-a" in shown.headers, shown.headers["x-amz-meta-b"]) == (b"hello", False, "2")


async def test_parts_are_listed_in_pages(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        upload = (await door.send("POST", "/bucket/key?uploads=")).field("UploadId")
        for number in (2, 5, 9):
            await door.send("PUT", f"/bucket/key?partNumber={number}&uploadId={upload}", {}, b"x" * number)
        target = f"/bucket/key?max-parts=2&part-number-marker={{}}&uploadId={upload}"
        first = await door.send("GET", target.format(0))
        assert re.findall("<PartNumber>(.)</PartNumber>", first.body.decode()) == ["2", "5"]
        assert (first.field("IsTruncated"), first.field("NextPartNumberMarker")) == ("true", "5")
        second = await door.send("GET", target.format(5))
        assert re.findall("<PartNumber>(.)</PartNumber>", second.body.decode()) == ["9"]
        assert (second.field("IsTruncated"), second.field("NextPartNumberMarker")) == ("false", "9")
