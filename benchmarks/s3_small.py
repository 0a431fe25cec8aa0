"""Small objects over HTTP: GET and durable PUT of 4 KiB at 64 connections, against `rclone serve s3` in the same run.

Rule: the servers take turns on the same two cores, several rounds, and medians are quoted. Every folder is written to
once before the clock starts: rclone refuses what meets a folder that another request is just making.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import report, servers
from benchmarks.load import Request, drive_elsewhere
from benchmarks.requests import as_boto3_sends, client, presigned

OBJECT_BYTES = 4096
KEYS = 4000
FOLDERS = 100
CONNECTIONS = 64
SECONDS = 5.0
ROUNDS = 3
BUCKET = "benchmark"


def prepare(s3: Any, *, boto3_forms: bool) -> dict[str, list[Request]]:
    """Creates the bucket and makes every request of the run."""
    s3.create_bucket(Bucket=BUCKET)
    body = os.urandom(OBJECT_BYTES)
    keys = [f"folder-{number % FOLDERS:02d}/object-{number:06d}" for number in range(KEYS)]
    for key in keys[:FOLDERS]:
        s3.put_object(Bucket=BUCKET, Key=key, Body=body)
    forms = {"PUT": presigned(s3, "PUT", BUCKET, keys, body), "GET": presigned(s3, "GET", BUCKET, keys)}
    if boto3_forms:
        forms["PUT as boto3"] = as_boto3_sends(s3, "PUT", BUCKET, keys, body)
        forms["GET as boto3"] = as_boto3_sends(s3, "GET", BUCKET, keys)
    return forms


def measure_server(server: servers.Server, forms: dict[str, list[Request]], folder: Path) -> dict[str, float]:
    """Requests per second of each form; an answer that is an error stops the run."""
    figures = {}
    for name, requests in forms.items():
        outcome = drive_elsewhere(server.address, requests, folder, connections=CONNECTIONS, seconds=SECONDS)
        if outcome.failures:
            raise RuntimeError(f"{outcome.failures} of {outcome.requests} {name} failed")
        figures[name] = outcome.per_second
    return figures


def measure() -> list[report.Row]:
    """Ours and the peer in turn."""
    ours: dict[str, list[float]] = {}
    peers: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for start, figures, forms_of_boto3 in ((servers.edgestore, ours, True), (servers.rclone, peers, False)):
            with tempfile.TemporaryDirectory() as temporary, start(Path(temporary)) as server:
                s3 = client(server.endpoint, servers.ACCESS_KEY, servers.SECRET_KEY)
                for name, value in measure_server(
                    server, prepare(s3, boto3_forms=forms_of_boto3), Path(temporary)
                ).items():
                    figures.setdefault(name, []).append(value)
    own = {name: statistics.median(values) for name, values in ours.items()}
    peer = {name: statistics.median(values) for name, values in peers.items()}
    rclone = "rclone serve s3"
    return [
        report.Row("GET 4 KiB, 64 connections, ratio", own["GET"] / peer["GET"], "x", ">= 1.8", rclone, peer["GET"]),
        report.Row("GET 4 KiB, 64 connections", own["GET"], "1/s", ">= 20000", rclone, peer["GET"]),
        report.Row(
            "PUT 4 KiB durable, 64 connections, ratio", own["PUT"] / peer["PUT"], "x", ">= 6", rclone, peer["PUT"]
        ),
        report.Row("PUT 4 KiB durable, 64 connections", own["PUT"], "1/s", ">= 10000", rclone, peer["PUT"]),
        report.Row(
            "GET as boto3 sends it", own["GET as boto3"] / own["GET"], "x", ">= 0.8", "pre-signed GET", own["GET"]
        ),
        report.Row(
            "PUT as boto3 sends it", own["PUT as boto3"] / own["PUT"], "x", ">= 0.6", "pre-signed PUT", own["PUT"]
        ),
    ]


if __name__ == "__main__":
    report.run(measure, __doc__.splitlines()[0])
