"""The check of a node against what clients have noted (`clients.py`), and the load that they make together.

Rule: what an interrupted operation did becomes part of the notes when it is seen, and is held to from then on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from tests.faults.clients import PLAIN, VERSIONED, Client, Key, read

DELETE_MAX = 1000
"""Versions in one request."""
POLL_S = 0.01
PROGRESS_LIMIT_S = 120.0


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
        found = read(s3, bucket, name)
        if bucket == VERSIONED:
            wrong += _compare_versions(s3, name, key, versions.pop(name, {}))
        if found not in (key.current, *key.maybe):
            wrong.append(f"{bucket}/{name}: found {found}, acknowledged {key.current}, in flight {key.maybe}")
        key.current, key.maybe = found, []
        for version, body_digest in key.versions.items():
            if (seen := read(s3, bucket, name, VersionId=version)) != body_digest:
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
        body_digest = read(s3, VERSIONED, name, VersionId=version) if is_object else None
        if body_digest not in left:
            wrong.append(f"{VERSIONED}/{name}: version {version} ({body_digest}) is nobody's, in flight {key.maybe}")
            continue
        left.remove(body_digest)
        if body_digest is not None:
            key.versions[version] = body_digest
        else:
            key.markers.add(version)
    return wrong


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
