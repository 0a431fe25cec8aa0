"""`make demo`: a node, real files, a kill in the middle of writing, and the proof that nothing acknowledged was lost.

Rule: the client is boto3 as anyone uses it; every figure printed was measured in this run.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.table import Table

from benchmarks.requests import client
from tests.faults.process import ACCESS_KEY, SECRET_KEY, NodeProcess

Row = Callable[[str, int, int, float, list[str]], None]
"""(step, objects, bytes, seconds, what differs)."""
BUCKET = "demo"
LARGE_BYTES = 256 * 1024 * 1024
WORKERS = 8
KILL_AFTER_S = 3.0
console = Console(stderr=True)


def sources() -> dict[str, bytes]:
    """The Python standard library's sources."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = [path for path in root.rglob("*.py") if "site-packages" not in path.parts]
    return {f"stdlib/{path.relative_to(root)}": path.read_bytes() for path in sorted(paths)}


def upload(s3: Any, bodies: dict[str, bytes]) -> float:
    """Puts all of them; returns the seconds."""
    started = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda item: s3.put_object(Bucket=BUCKET, Key=item[0], Body=item[1]), bodies.items()))
    return time.monotonic() - started


def read_back(s3: Any, bodies: dict[str, bytes]) -> tuple[float, list[str]]:
    """(seconds, keys that differ)."""
    started = time.monotonic()

    def differs(item: tuple[str, bytes]) -> str | None:
        return None if s3.get_object(Bucket=BUCKET, Key=item[0])["Body"].read() == item[1] else item[0]

    with ThreadPoolExecutor(WORKERS) as pool:
        wrong = [key for key in pool.map(differs, bodies.items()) if key]
    return time.monotonic() - started, wrong


def listing_differs(s3: Any, expected: set[str], optional: set[str]) -> list[str]:
    """Keys that are listed and should not be, or the other way round. `optional`: written, never acknowledged."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    listed = {entry["Key"] for page in pages for entry in page.get("Contents", [])}
    return sorted((expected - listed) | (listed - expected - optional))


def digest_of(s3: Any, key: str) -> bytes:
    """Streamed: the object may be larger than the memory."""
    digest = hashlib.sha256()
    for piece in s3.get_object(Bucket=BUCKET, Key=key)["Body"].iter_chunks(1 << 20):
        digest.update(piece)
    return digest.digest()


def write_until_killed(node: NodeProcess, acknowledged: dict[str, bytes], begun: set[str]) -> list[str]:
    """Writers note what was acknowledged; the node dies under them. Returns what the node refused while it lived."""
    stop, killed = threading.Event(), threading.Event()
    refused: list[str] = []

    def write(number: int) -> None:
        s3, turn = node.client(), 0
        while not stop.is_set():
            key, body = f"killed/{number}/{turn}", os.urandom((turn * 997) % 200_000)
            begun.add(key)
            try:
                s3.put_object(Bucket=BUCKET, Key=key, Body=body)
            except (BotoCoreError, ClientError) as error:
                if isinstance(error, ClientError) or not killed.is_set():
                    refused.append(f"{key}: {error}")
                return
            acknowledged[key] = body
            turn += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WORKERS)]
    for thread in threads:
        thread.start()
    time.sleep(KILL_AFTER_S)
    killed.set()
    node.kill()
    stop.set()
    for thread in threads:
        thread.join()
    return refused


def transfer_large(s3: Any, folder: Path) -> tuple[float, float, bool, bytes]:
    """One file of 256 MiB with boto3's transfer manager: (seconds up, seconds down, whether it is the same, digest)."""
    source, back = folder / "large", folder / "back"
    digest = hashlib.sha256()
    with source.open("wb") as file:
        for _ in range(LARGE_BYTES // (1 << 20)):
            piece = os.urandom(1 << 20)
            digest.update(piece)
            file.write(piece)
    config = TransferConfig(max_concurrency=4)
    started = time.monotonic()
    s3.upload_file(str(source), BUCKET, "large", Config=config)
    up = time.monotonic()
    s3.download_file(BUCKET, "large", str(back), Config=config)
    down = time.monotonic()
    with back.open("rb") as file:
        same = hashlib.file_digest(file, "sha256").digest() == digest.digest()
    return up - started, down - up, same, digest.digest()


def prove(s3: Any, row: Row, everything: dict[str, bytes], digest: bytes, begun: set[str]) -> list[str]:
    """Reads and lists all that was acknowledged, after the restart. Returns what the listing has wrong."""
    seconds, wrong = read_back(s3, everything)
    row("after kill -9 and restart", len(everything), sum(map(len, everything.values())), seconds, wrong)
    started = time.monotonic()
    same = digest_of(s3, "large") == digest
    row("the 256 MiB again", 1, LARGE_BYTES, time.monotonic() - started, [] if same else ["large"])
    return listing_differs(s3, {*everything, "large"}, begun)


def main() -> int:
    """Runs the whole story; exit code 1 where anything differs."""
    table = Table(title="edgestore demo")
    for column in ("step", "objects", "MB/s", "objects/s", "seconds", "result"):
        table.add_column(column, justify="left" if column in ("step", "result") else "right")
    failed: list[str] = []

    def row(step: str, count: int, size: int, seconds: float, wrong: list[str]) -> None:
        failed.extend(wrong)
        result = f"{len(wrong)} differ" if wrong else "identical"
        table.add_row(
            step, f"{count:,}", f"{size / seconds / 1e6:,.0f}", f"{count / seconds:,.0f}", f"{seconds:.2f}", result
        )

    with tempfile.TemporaryDirectory(prefix="edgestore-demo-") as temporary:
        node = NodeProcess(Path(temporary) / "data")
        console.print(f"A node on {node.data}, endpoint {node.endpoint}")
        node.start()
        s3 = client(node.endpoint, ACCESS_KEY, SECRET_KEY)
        s3.create_bucket(Bucket=BUCKET)
        bodies = sources()
        size = sum(len(body) for body in bodies.values())
        console.print(f"Uploading the standard library: {len(bodies):,} files, {size / 1e6:.0f} MB")
        row("upload a tree", len(bodies), size, upload(s3, bodies), [])
        failed.extend(listing_differs(s3, set(bodies), set()))
        seconds, wrong = read_back(s3, bodies)
        row("read it back", len(bodies), size, seconds, wrong)
        console.print("One file of 256 MiB, up and down")
        up, down, same, digest = transfer_large(s3, Path(temporary))
        row("upload 256 MiB", 1, LARGE_BYTES, up, [] if same else ["large"])
        row("download it", 1, LARGE_BYTES, down, [] if same else ["large"])
        console.print(f"Writing with {WORKERS} clients for {KILL_AFTER_S:.0f} s, then kill -9")
        acknowledged: dict[str, bytes] = {}
        begun: set[str] = set()
        failed.extend(write_until_killed(node, acknowledged, begun))
        recovery = node.start()
        s3 = client(node.endpoint, ACCESS_KEY, SECRET_KEY)
        failed.extend(prove(s3, row, {**bodies, **acknowledged}, digest, begun))
        if not acknowledged:
            failed.append("nothing was acknowledged before the kill: it proves nothing")
        node.stop()
    Console().print(table)
    print(f"Acknowledged before the kill: {len(acknowledged):,} objects.")
    for name in failed:
        console.print(f"BAD {name}")
    print(f"Recovered in {recovery:.2f} s. Lost, wrong or refused: {len(failed)}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
