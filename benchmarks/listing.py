"""Listing: 1 million keys in pages of 1,000, and a delimiter over 10^5 common prefixes, client time included.

Rule: the client walks all pages over HTTP with signed requests and takes the keys out of the XML.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import edgestore
from benchmarks import report, servers
from benchmarks.load import drive_elsewhere
from benchmarks.requests import client, presigned

KEYS = 1_000_000
DEPTHS = ((90_000, 1), (5_000, 20), (5_000, 200))
PREFIXES = sum(folders for folders, _ in DEPTHS)
KEY = re.compile(rb"<Key>([^<]*)</Key>")
PREFIX = re.compile(rb"<CommonPrefixes><Prefix>([^<]*)</Prefix>")
TOKEN = re.compile(rb"<NextContinuationToken>([^<]*)</NextContinuationToken>")


async def _fill(folder: Path, bucket: str, keys: list[str], body: bytes) -> None:
    """Puts small objects through the embedded store, many at once."""
    async with await edgestore.aio.open(folder / "data") as store:
        target = await store.create_bucket(bucket)
        waiting = iter(keys)

        async def work() -> None:
            for key in waiting:
                await target.put(key, body)

        async with asyncio.TaskGroup() as group:
            for _ in range(512):
                group.create_task(work())


def fill(folder: Path, bucket: str, keys: list[str], body: bytes = b"x" * 16) -> None:
    """Fills a bucket of the data folder that no node has open; the benchmark's keys become its root keys."""
    os.environ.update(servers.KEYS)
    asyncio.run(_fill(folder, bucket, keys, body))


def walk(s3: Any, bucket: str, pattern: re.Pattern[bytes], **parameters: str) -> tuple[list[bytes], list[float]]:
    """All pages of a listing; returns what the pattern found, and the seconds of each page."""
    found: list[bytes] = []
    seconds: list[float] = []
    connection: http.client.HTTPConnection | None = None
    token = ""
    while True:
        started = time.perf_counter()
        more = {"ContinuationToken": token} if token else {}
        url = urlsplit(s3.generate_presigned_url("list_objects_v2", Params={"Bucket": bucket, **parameters, **more}))
        connection = connection or http.client.HTTPConnection(url.netloc)
        connection.request("GET", f"{url.path}?{url.query}")
        answer = connection.getresponse()
        document = answer.read()
        if answer.status != 200:
            raise RuntimeError(document.decode())
        found += pattern.findall(document)
        seconds.append(time.perf_counter() - started)
        match = TOKEN.search(document)
        if not match:
            connection.close()
            return found, seconds
        token = match[1].decode()


def deep_prefix_keys() -> list[str]:
    """Folders in the order of `DEPTHS`: so many folders, each with so many keys."""
    depths = [below for folders, below in DEPTHS for _ in range(folders)]
    return [f"p{number:06d}/k{key:04d}" for number, below in enumerate(depths) for key in range(below)]


def page_ms(pages: list[float]) -> list[float]:
    """The median page of each depth, in milliseconds."""
    found, at = [], 0
    for folders, _ in DEPTHS:
        found.append(statistics.median(pages[at : at + folders // 1000]) * 1000)
        at += folders // 1000
    return found


def measure() -> list[report.Row]:
    """Fills once, walks three times."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fill(folder, "flat", [f"folder-{number // 1000:04d}/key-{number:07d}" for number in range(KEYS)])
        fill(folder, "deep", deep_prefix_keys())
        with servers.edgestore(folder) as server:
            s3 = client(server.endpoint, servers.ACCESS_KEY, servers.SECRET_KEY)
            rates = []
            for _ in range(3):
                started = time.perf_counter()
                keys, _ = walk(s3, "flat", KEY)
                rates.append(len(keys) / (time.perf_counter() - started))
                if len(keys) != KEYS or keys != sorted(keys):
                    raise RuntimeError(f"the listing returned {len(keys)} keys")
            pages: list[float] = []
            for _ in range(3):
                prefixes, seconds = walk(s3, "deep", PREFIX, Delimiter="/")
                if len(prefixes) != PREFIXES:
                    raise RuntimeError(f"the listing returned {len(prefixes)} common prefixes")
                pages += seconds if not pages else []
                pages = [min(pair) for pair in zip(pages, seconds, strict=True)]
            gets = drive_elsewhere(
                server.address,
                presigned(s3, "GET", "flat", ["folder-0000/key-0000001"]),
                folder,
                connections=1,
                seconds=1,
            )
    lone, shallow, deep = page_ms(pages)
    return [
        report.Row(
            "ListObjectsV2 over 1 million keys",
            statistics.median(rates),
            "keys/s",
            ">= 200000",
            "GET p50 ms",
            gets.percentile_ms(0.5),
        ),
        report.Row(
            f"page of 1,000 common prefixes that skips {DEPTHS[2][1]} keys each, of one that skips {DEPTHS[1][1]} each",
            deep / shallow,
            "x",
            "<= 1.5",
            "page that skips nothing, ms",
            lone,
        ),
    ]


if __name__ == "__main__":
    report.run(measure, __doc__.splitlines()[0])
