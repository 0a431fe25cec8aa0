"""What the demo's S3 clients do: put, get, list and transfer with boto3, on another node where one cannot.

Rule: only a broken connection and a 503 are tried again, on the next node, and counted; every other answer is a
refusal, and fails the demo.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from boto3.exceptions import S3UploadFailedError
from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as ConnectionFailed
from urllib3.exceptions import HTTPError

from tests.faults.site import SiteNode

BUCKET = "demo"
WORKERS = 8
PIECE_BYTES = 1024 * 1024
LARGE_KEY = "large"
BODY_BYTES_MAX = 200_000
LONG_BODY_BYTES = 6 * 1024 * 1024
LONG_BODY_EVERY = 40
GIVE_UP_S = 30.0
PAUSE_S = 0.05
RETRYABLE_STATUS = 503
BROKEN = (ConnectionFailed, HTTPClientError, IncompleteReadError, HTTPError)
"""The answer did not come, or not whole."""

Answer = TypeVar("Answer")
Advance = Callable[[int], None]
"""Told of what is done, in the step's unit."""


class RefusedError(Exception):
    """An operation that no node did, or that one refused for another reason than that it cannot do it now."""


def _is_retryable(error: BaseException) -> bool:
    if isinstance(error, S3UploadFailedError):
        error = error.__context__ or error
    if isinstance(error, ClientError):
        return int(error.response["ResponseMetadata"]["HTTPStatusCode"]) == RETRYABLE_STATUS
    return isinstance(error, BROKEN)


class Clients:
    """One boto3 client a node, without retries of its own. `retries` counts what was sent again."""

    def __init__(self, nodes: Sequence[SiteNode]) -> None:
        self._clients = [node.client() for node in nodes]
        self._lock = threading.Lock()
        self.retries = 0
        self.reasons: dict[str, int] = {}

    def renew(self, place: int, node: SiteNode) -> None:
        """The node is another one from now on, at the same address."""
        self._clients[place] = node.client()

    def ask(self, place: int, operation: Callable[[Any], Answer]) -> tuple[int, Answer]:
        """(the node that did it, its answer): the one asked for, or the next that can. Raises RefusedError."""
        deadline = time.monotonic() + GIVE_UP_S
        while True:
            try:
                return place, operation(self._clients[place])
            except (*BROKEN, ClientError, S3UploadFailedError) as error:
                if not _is_retryable(error) or time.monotonic() > deadline:
                    raise RefusedError(f"node {place + 1}: {error}") from error
                self._count(error)
            place = (place + 1) % len(self._clients)
            time.sleep(PAUSE_S)

    def _count(self, error: BaseException) -> None:
        with self._lock:
            self.retries += 1
            name = type(error).__name__ if not isinstance(error, ClientError) else error.response["Error"]["Code"]
            self.reasons[name] = self.reasons.get(name, 0) + 1


def put_all(clients: Clients, place: int, bodies: dict[str, bytes], advance: Advance) -> list[str]:
    """Puts them through one node; returns what was refused."""

    def put(item: tuple[str, bytes]) -> str | None:
        try:
            clients.ask(place, lambda s3: s3.put_object(Bucket=BUCKET, Key=item[0], Body=item[1]))
        except RefusedError as error:
            return f"{item[0]}: {error}"
        finally:
            advance(1)
        return None

    with ThreadPoolExecutor(WORKERS) as pool:
        return [wrong for wrong in pool.map(put, bodies.items()) if wrong]


def differing(
    clients: Clients, place: int, keys: Sequence[str], body: Callable[[str], bytes], advance: Advance
) -> list[str]:
    """Gets them through one node and compares every byte; returns the keys that differ or were refused."""

    def differs(key: str) -> str | None:
        try:
            _, found = clients.ask(place, lambda s3: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
        except RefusedError as error:
            return f"{key}: {error}"
        finally:
            advance(1)
        return None if found == body(key) else f"{key}: other bytes"

    with ThreadPoolExecutor(WORKERS) as pool:
        return [wrong for wrong in pool.map(differs, keys) if wrong]


def listing_differs(clients: Clients, place: int, expected: set[str], optional: set[str]) -> list[str]:
    """What is listed and should not be, or the other way round. `optional`: begun, never acknowledged."""

    def listed(s3: Any) -> set[str]:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return {entry["Key"] for page in pages for entry in page.get("Contents", [])}

    _, found = clients.ask(place, listed)
    return [f"{key}: listing" for key in sorted((expected - found) | (found - expected - optional))]


def upload_large(clients: Clients, place: int, source: Path, advance: Advance) -> list[str]:
    """One file by boto3's transfer manager; returns what was refused."""
    config = TransferConfig(max_concurrency=4)
    try:
        clients.ask(place, lambda s3: s3.upload_file(str(source), BUCKET, LARGE_KEY, Config=config, Callback=advance))
    except RefusedError as error:
        return [f"{LARGE_KEY}: {error}"]
    return []


def large_differs(clients: Clients, place: int, source: Path, advance: Advance) -> list[str]:
    """Reads it through one node, piece by piece beside the file."""

    def compare(s3: Any) -> bool:
        body = s3.get_object(Bucket=BUCKET, Key=LARGE_KEY)["Body"]
        with source.open("rb") as file:
            for piece in body.iter_chunks(PIECE_BYTES):
                if piece != file.read(len(piece)):
                    return False
                advance(len(piece))
            return not file.read(1)

    try:
        _, same = clients.ask(place, compare)
    except RefusedError as error:
        return [f"{LARGE_KEY}: {error}"]
    return [] if same else [f"{LARGE_KEY}: other bytes"]


def load_body(key: str) -> bytes:
    """What a writer writes under a key: made from the key, so that it can be compared without being kept."""
    rng, turn = random.Random(key), int(key.rpartition("/")[2])
    is_long = turn % LONG_BODY_EVERY == LONG_BODY_EVERY - 1
    return rng.randbytes(LONG_BODY_BYTES if is_long else rng.randrange(BODY_BYTES_MAX))


@dataclass
class Load:
    """Writers on all nodes, each with keys of its own. `acknowledged`: (when, key), in order of the answers."""

    clients: Clients
    nodes: int
    advance: Advance
    acknowledged: list[tuple[float, str]] = field(default_factory=list)
    begun: set[str] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(WORKERS)]
        for thread in self._threads:
            thread.start()

    def _write(self, number: int) -> None:
        place, turn = number % self.nodes, 0
        while not self._stop.is_set():
            key = f"load/{number}/{turn}"
            body = load_body(key)
            self.begun.add(key)
            try:
                place, _ = self.clients.ask(place, lambda s3: s3.put_object(Bucket=BUCKET, Key=key, Body=body))  # noqa: B023
            except RefusedError as error:
                self.refused.append(f"{key}: {error}")
                return
            self.acknowledged.append((time.monotonic(), key))
            self.advance(1)
            turn += 1

    def stop(self) -> None:
        """Returns when every writer has ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def keys(self) -> list[str]:
        """All that was acknowledged."""
        return [key for _, key in self.acknowledged]

    def longest_pause_s(self, since: float) -> float:
        """Of all writers together, from an instant on: the longest time without an acknowledgement."""
        times = [since, *(when for when, _ in self.acknowledged if when >= since)]
        return max((after - before for before, after in pairwise(times)), default=GIVE_UP_S)
