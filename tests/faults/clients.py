"""Clients that write down what was acknowledged: plain and conditional writes, copies, reads of all and of ranges.

Rule: every key belongs to one client, so its operations are in order, and it reads what it wrote last, through whatever
node; an operation whose answer did not come, or was an error, may have happened or not, or happen later, but never by
half. One that was refused for its condition did not happen.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from botocore.exceptions import BotoCoreError, ClientError

PLAIN, VERSIONED = "plain", "versioned"
PART_BYTES = 5 * 1024 * 1024
RETRYABLE = (503, 507)
"""Not now, and no room; 500 would be a node at a loss."""
CONDITION_FAILED = ("PreconditionFailed", "412", "NoSuchKey", "404")
RETRY_S, RETRY_MAX_S = 0.05, 0.5
"""Nodes that start need the processor more than clients that ask in vain."""
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


def read(s3: Any, bucket: str, name: str, **version: str) -> str | None:
    """The digest of a body, None where there is none; what came short is no digest."""
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
        actions = tuple(self.actions)
        action = self.rng.choices(actions, weights=tuple(self.actions.values()))[0]
        action(self, s3, bucket, name, key)
        self.acknowledged += 1
        self.acknowledged_s.append(time.monotonic())

    def get(self, s3: Any, bucket: str, name: str, key: Key) -> None:
        """What was acknowledged last, or something whose outcome is not known: then that is current from now on."""
        found = read(s3, bucket, name)
        if found not in (key.current, *key.maybe):
            self.misread.append(
                f"{bucket}/{name}: read {found} under load, acknowledged {key.current}, in flight {key.maybe}"
            )
        key.current = found

    def put(self, s3: Any, bucket: str, name: str, key: Key) -> None:
        """A body of some size, mostly small."""
        body = self._body()
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

    def put_absent(self, s3: Any, bucket: str, name: str, key: Key) -> None:
        """Only where nothing is there. A refusal says that something is."""
        body, known = self._body(), (key.current, *key.maybe)
        key.maybe.append(digest(body))
        try:
            answer = s3.put_object(Bucket=bucket, Key=name, Body=body, IfNoneMatch="*")
        except ClientError as error:
            self._refused_condition(error, key)
            if set(known) == {None}:
                self.misread.append(f"{bucket}/{name}: something is there, acknowledged None, in flight {key.maybe}")
            return
        if None not in known:
            self.misread.append(f"{bucket}/{name}: it was absent, acknowledged {known[0]}, in flight {known[1:]}")
        self._is_current(key, digest(body), answer)

    def put_matching(self, s3: Any, bucket: str, name: str, key: Key) -> None:
        """Over what a HEAD has just seen: that is refused only where an operation whose outcome is not known came
        between."""
        known = (key.current, *key.maybe)
        try:
            etag = s3.head_object(Bucket=bucket, Key=name)["ETag"]
        except ClientError as error:
            if error.response["Error"]["Code"] != "404":
                raise
            if None not in known:
                self.misread.append(f"{bucket}/{name}: no HEAD, acknowledged {known[0]}, in flight {known[1:]}")
            return
        body = self._body()
        key.maybe.append(digest(body))
        try:
            answer = s3.put_object(Bucket=bucket, Key=name, Body=body, IfMatch=etag)
        except ClientError as error:
            self._refused_condition(error, key)
            if len(known) == 1:
                self.misread.append(f"{bucket}/{name}: {etag} is not there any more, acknowledged {known[0]}")
            return
        self._is_current(key, digest(body), answer)

    def put_stale(self, s3: Any, bucket: str, name: str, key: Key) -> None:
        """Over something that never was: it is always refused."""
        try:
            s3.put_object(Bucket=bucket, Key=name, Body=b"stale", IfMatch=f'"{self.rng.randbytes(16).hex()}"')
        except ClientError as error:
            if error.response["Error"]["Code"] not in CONDITION_FAILED:
                raise
            return
        self.misread.append(f"{bucket}/{name}: written over an ETag that it never had")

    def copy(self, s3: Any, bucket: str, name: str, key: Key) -> None:
        """Of another key, where it is known what that has."""
        sources = [
            place
            for place, one in self.keys.items()
            if one.current is not None and not one.maybe and place != (bucket, name)
        ]
        if not sources:
            self.put(s3, bucket, name, key)
            return
        source = self.rng.choice(sources)
        body_digest = str(self.keys[source].current)
        key.maybe.append(body_digest)
        answer = s3.copy_object(Bucket=bucket, Key=name, CopySource={"Bucket": source[0], "Key": source[1]})
        self._is_current(key, body_digest, answer)

    def get_range(self, s3: Any, bucket: str, name: str, key: Key) -> None:
        """Some of the bytes that a GET of all has just seen, if it is still the same."""
        try:
            whole = s3.get_object(Bucket=bucket, Key=name)
            body = whole["Body"].read()
            if not body:
                return
            begin = self.rng.randrange(len(body))
            end = self.rng.randrange(begin, len(body))
            part = s3.get_object(Bucket=bucket, Key=name, Range=f"bytes={begin}-{end}", IfMatch=whole["ETag"])
            found = part["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] not in CONDITION_FAILED or (key.current is not None and not key.maybe):
                raise
            return
        if digest(body) not in (key.current, *key.maybe) or found != body[begin : end + 1]:
            self.misread.append(f"{bucket}/{name}: other bytes in {begin}-{end} of {len(body)}, {whole['ETag']}")

    actions: ClassVar[dict[Callable[..., None], int]] = {
        put: 12,
        multipart: 1,
        delete: 4,
        get: 12,
        put_absent: 3,
        put_matching: 3,
        put_stale: 1,
        copy: 3,
        get_range: 4,
    }
    """And how often each comes."""

    def _body(self) -> bytes:
        size = self.rng.choice(SIZES)
        if self.rng.random() < 0.5:
            return self.rng.randbytes(size)
        return (b"edge of the network " * (size // 20 + 1))[:size]

    @staticmethod
    def _refused_condition(error: ClientError, key: Key) -> None:
        """It did not happen, if it was refused for its condition. Raises the error where that was another."""
        if error.response["Error"]["Code"] not in CONDITION_FAILED:
            raise error
        key.maybe.pop()

    @staticmethod
    def _is_current(key: Key, body_digest: str, answer: dict[str, Any]) -> None:
        key.current = body_digest
        key.maybe.pop()
        if "VersionId" in answer:
            key.versions[answer["VersionId"]] = body_digest
