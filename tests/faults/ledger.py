"""A mixed load that writes down what was acknowledged, and the check of a node against those notes.

Rule: every key belongs to one client, so its operations are in order, and it reads what it wrote last, through whatever
node; an operation whose answer did not come, or was an error, may have happened or not, or happen later, but never by
half.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

PLAIN, VERSIONED = "plain", "versioned"
PART_BYTES = 5 * 1024 * 1024
DELETE_MAX = 1000
"""Versions in one request."""
RETRYABLE = (503, 507)
"""Not now, and no room; 500 would be a node at a loss."""
POLL_S = 0.01
RETRY_S, RETRY_MAX_S = 0.05, 0.5
"""Nodes that start need the processor more than clients that ask in vain."""
PROGRESS_LIMIT_S = 120.0
SIZES = (0, 1, 700, 4096, 8192, 8193, 60_000, 262_144, 300_000, 1_500_000)


@dataclass
class Key:
    """What is known of one key. `current` None: it is not there. `maybe`: outcomes of the operation under way and of
    those whose outcome is not known, since the last check."""

    current: str | None = None
    maybe: list[str | None] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    markers: set[str] = field(default_factory=set)


def _said(error: BotoCoreError | ClientError) -> str:
    return str(error.response["Error"]["Code"]) if isinstance(error, ClientError) else type(error).__name__


def digest(body: bytes) -> str:
    """What identifies a body in the notes."""
    return hashlib.sha256(body).hexdigest()


class Client:
    """One client with keys of its own in both buckets."""

    def __init__(self, name: str, seed: int, make: Callable[[], Any]) -> None:
        self.name, self.rng, self.make = name, random.Random(seed), make
        self.keys: dict[tuple[str, str], Key] = {}
        self.acknowledged = self.failed = 0
        self.failures: Counter[str] = Counter()
        """Of a site, by what they said."""
        self.acknowledged_s: list[float] = []
        """When, by the monotonic clock, since the load began."""
        self.misread: list[str] = []
        """What was read under load and can be explained by no order of the operations."""
        self.refused: ClientError | None = None
        """What a node that was alive answered in place of doing its work."""
        self.roams = False
        """Whether each operation goes to any node: what was written through one is read through another."""
        self.clocks_are_wrong = False
        """Then a node may also refuse what was signed at a time that it takes for wrong."""

    def run(self, stop: threading.Event) -> None:
        """Operates until told to stop or until the node is gone, which only a connection can tell."""
        s3 = self.make()
        try:
            while not stop.is_set():
                self.step(s3)
        except BotoCoreError:
            return
        except ClientError as error:
            self.refused = error
        finally:
            s3.close()

    def run_on(self, stop: threading.Event, makers: list[Callable[[], Any]]) -> None:
        """Operates until told to stop, on one of several nodes after another: a node that is gone or answers that it
        cannot now makes the client go to the next one. Any other error is a refusal."""
        clients = [make() for make in makers]
        at, in_a_row = self.rng.randrange(len(clients)), 0
        try:
            while not stop.is_set():
                if self.roams:
                    at = self.rng.randrange(len(clients))
                try:
                    self.step(clients[at])
                    in_a_row = 0
                except (BotoCoreError, ClientError) as error:
                    if isinstance(error, ClientError) and not self._is_retryable(error):
                        self.refused = error
                        return
                    self.failed += 1
                    self.failures[_said(error)] += 1
                    at, in_a_row = (at + 1) % len(clients), in_a_row + 1
                    stop.wait(min(RETRY_S * in_a_row, RETRY_MAX_S))
        finally:
            for client in clients:
                client.close()

    def _is_retryable(self, error: ClientError) -> bool:
        if self.clocks_are_wrong and error.response["Error"]["Code"] in ("RequestTimeTooSkewed", "403"):
            return True
        return error.response["ResponseMetadata"]["HTTPStatusCode"] in RETRYABLE

    def step(self, s3: Any) -> None:
        """One operation on a random key."""
        bucket = self.rng.choice((PLAIN, VERSIONED))
        name = f"{self.name}/{self.rng.randrange(12):02d}"
        key = self.keys.setdefault((bucket, name), Key())
        actions = (self.put, self.multipart, self.delete, self.get)
        action = self.rng.choices(actions, weights=(12, 1, 4, 12))[0]
        action(s3, bucket, name, key)
        self.acknowledged += 1
        self.acknowledged_s.append(time.monotonic())

    def get(self, s3: Any, bucket: str, name: str, key: Key) -> None:
        """What was acknowledged last, or something whose outcome is not known: then that is current from now on."""
        found = _read(s3, bucket, name)
        if found not in (key.current, *key.maybe):
            self.misread.append(
                f"{bucket}/{name}: read {found} under load, acknowledged {key.current}, in flight {key.maybe}"
            )
        key.current = found

    def put(self, s3: Any, bucket: str, name: str, key: Key) -> None:
        """A body of some size, mostly small."""
        size = self.rng.choice(SIZES)
        body = (
            self.rng.randbytes(size) if self.rng.random() < 0.5 else (b"edge of the network " * (size // 20 + 1))[:size]
        )
        key.maybe.append(digest(body))
        answer = s3.put_object(Bucket=bucket, Key=name, Body=body)
        self._is_current(key, digest(body), answer)

    def multipart(self, s3: Any, bucket: str, name: str, key: Key) -> None:
        """Two parts."""
        parts = [self.rng.randbytes(PART_BYTES), self.rng.randbytes(1000)]
        upload = s3.create_multipart_upload(Bucket=bucket, Key=name)["UploadId"]
        done = []
        for number, part in enumerate(parts, 1):
            answer = s3.upload_part(Bucket=bucket, Key=name, UploadId=upload, PartNumber=number, Body=part)
            done.append({"PartNumber": number, "ETag": answer["ETag"]})
        key.maybe.append(digest(b"".join(parts)))
        answer = s3.complete_multipart_upload(Bucket=bucket, Key=name, UploadId=upload, MultipartUpload={"Parts": done})
        self._is_current(key, digest(b"".join(parts)), answer)

    def delete(self, s3: Any, bucket: str, name: str, key: Key) -> None:
        """Of the current version."""
        key.maybe.append(None)
        answer = s3.delete_object(Bucket=bucket, Key=name)
        key.current = key.maybe.pop()
        if "VersionId" in answer:
            key.markers.add(answer["VersionId"])

    @staticmethod
    def _is_current(key: Key, body_digest: str, answer: dict[str, Any]) -> None:
        key.current = body_digest
        key.maybe.pop()
        if "VersionId" in answer:
            key.versions[answer["VersionId"]] = body_digest


def create_buckets(s3: Any) -> None:
    """One plain, one with versions."""
    for bucket in (PLAIN, VERSIONED):
        s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Enabled"})


def check(s3: Any, clients: list[Client]) -> list[str]:
    """Compares node and notes; returns what is wrong. What an interrupted operation did becomes part of the notes."""
    wrong: list[str] = []
    wrong += [f"{client.name} was refused: {client.refused}" for client in clients if client.refused is not None]
    wrong += [misread for client in clients for misread in client.misread]
    listed = {bucket: _listed(s3, bucket) for bucket in (PLAIN, VERSIONED)}
    versions = _listed_versions(s3, VERSIONED)
    with ThreadPoolExecutor(len(clients)) as threads:
        for found in threads.map(lambda client: _check_client(s3, client, versions), clients):
            wrong += found
    wrong += [f"{VERSIONED}/{name}: versions that nobody wrote: {rows}" for name, rows in versions.items()]
    for bucket, names in listed.items():
        expected = {
            name
            for client in clients
            for (where, name), key in client.keys.items()
            if where == bucket and key.current is not None
        }
        if expected != names:
            wrong.append(f"{bucket}: listing differs from content by {sorted(expected ^ names)[:5]}")
    return wrong


def _check_client(s3: Any, client: Client, versions: dict[str, dict[str, bool]]) -> list[str]:
    """Of its keys; takes them out of `versions`."""
    wrong: list[str] = []
    for (bucket, name), key in client.keys.items():
        found = _read(s3, bucket, name)
        if bucket == VERSIONED:
            wrong += _compare_versions(s3, name, key, versions.pop(name, {}))
        if found not in (key.current, *key.maybe):
            wrong.append(f"{bucket}/{name}: found {found}, acknowledged {key.current}, in flight {key.maybe}")
        key.current, key.maybe = found, []
        for version, body_digest in key.versions.items():
            if (seen := _read(s3, bucket, name, VersionId=version)) != body_digest:
                wrong.append(f"{bucket}/{name} version {version}: found {seen}, acknowledged {body_digest}")
    return wrong


def prune(s3: Any, clients: list[Client], versions_max: int) -> None:
    """Deletes the uploads that were left and all but some versions of each key, for good. Nothing else may be under
    way."""
    for bucket in (PLAIN, VERSIONED):
        for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", []):
            s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
    newest = _newest_versions(s3)
    doomed: list[dict[str, str]] = []
    for client in clients:
        for (bucket, name), key in client.keys.items():
            if bucket != VERSIONED:
                continue
            for version in [one for one in (*key.versions, *key.markers) if one != newest.get(name)][versions_max:]:
                doomed.append({"Key": name, "VersionId": version})
                key.versions.pop(version, None)
                key.markers.discard(version)
    for start in range(0, len(doomed), DELETE_MAX):
        answer = s3.delete_objects(Bucket=VERSIONED, Delete={"Objects": doomed[start : start + DELETE_MAX]})
        assert "Errors" not in answer, answer["Errors"]


def _newest_versions(s3: Any) -> dict[str, str]:
    """Of each key. Deleting it would bring the one before it back."""
    return {
        row["Key"]: str(row["VersionId"])
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=VERSIONED)
        for kind in ("Versions", "DeleteMarkers")
        for row in page.get(kind, [])
        if row["IsLatest"]
    }


def _listed(s3: Any, bucket: str) -> set[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {row["Key"] for page in pages for row in page.get("Contents", [])}


def _listed_versions(s3: Any, bucket: str) -> dict[str, dict[str, bool]]:
    """Of each key: version id -> whether it is an object (not a delete marker)."""
    found: dict[str, dict[str, bool]] = {}
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
        for kind in ("Versions", "DeleteMarkers"):
            for row in page.get(kind, []):
                found.setdefault(row["Key"], {})[row["VersionId"]] = kind == "Versions"
    return found


def _compare_versions(s3: Any, name: str, key: Key, found: dict[str, bool]) -> list[str]:
    """Every acknowledged version is listed as what it is, and beside them at most what has no known outcome. That
    becomes part of the notes."""
    noted = {**dict.fromkeys(key.versions, True), **dict.fromkeys(key.markers, False)}
    wrong = [
        f"{VERSIONED}/{name}: version {one} is not listed as it is" for one in noted if found.get(one) != noted[one]
    ]
    left = list(key.maybe)
    for version, is_object in found.items():
        if version in noted:
            continue
        body_digest = _read(s3, VERSIONED, name, VersionId=version) if is_object else None
        if body_digest not in left:
            wrong.append(f"{VERSIONED}/{name}: version {version} ({body_digest}) is nobody's, in flight {key.maybe}")
            continue
        left.remove(body_digest)
        if body_digest is not None:
            key.versions[version] = body_digest
        else:
            key.markers.add(version)
    return wrong


def _read(s3: Any, bucket: str, name: str, **version: str) -> str | None:
    try:
        answer = s3.get_object(Bucket=bucket, Key=name, **version)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchVersion"):
            return None
        raise
    body = answer["Body"].read()
    if len(body) != answer["ContentLength"]:
        return f"{len(body)} of {answer['ContentLength']} bytes"
    return digest(body)


class Load:
    """Clients in threads, until stopped. `makers`: of clients of several nodes, which they go round."""

    def __init__(self, clients: list[Client], makers: list[Callable[[], Any]] | None = None) -> None:
        self.stop_event = threading.Event()
        self.threads = [
            threading.Thread(target=client.run, args=(self.stop_event,))
            if makers is None
            else threading.Thread(target=client.run_on, args=(self.stop_event, makers))
            for client in clients
        ]
        for client in clients:
            client.acknowledged_s.clear()
        self.started_s = self.stopped_s = time.monotonic()
        self._clients = clients
        for thread in self.threads:
            thread.start()

    def wait_acknowledged(self, count: int) -> None:
        """Returns when so many more operations are. Raises TimeoutError."""
        wanted = count + sum(client.acknowledged for client in self._clients)
        deadline_s = time.monotonic() + PROGRESS_LIMIT_S
        while sum(client.acknowledged for client in self._clients) < wanted:
            if not any(thread.is_alive() for thread in self.threads):
                return
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"less than {count} operations acknowledged in {PROGRESS_LIMIT_S} s")
            time.sleep(POLL_S)

    def longest_gap_s(self) -> float:
        """The longest time in which nothing at all was acknowledged. Once it is stopped."""
        moments = [moment for client in self._clients for moment in client.acknowledged_s]
        ordered = sorted([self.started_s, *moments, self.stopped_s])
        return max(after - before for before, after in pairwise(ordered))

    def stop(self) -> None:
        """Returns when every client has ended."""
        self.stop_event.set()
        self.stopped_s = time.monotonic()
        for thread in self.threads:
            thread.join(120)
            assert not thread.is_alive(), "a client hangs"
