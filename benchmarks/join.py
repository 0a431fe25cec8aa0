"""How fast a bare machine becomes a member: from a warm install, and from bare Python with the packages to install.

Rule: the clock runs from the command to the first object that was written through another node and read through the
new one. The cold round builds an environment of its own from a folder of wheels that was filled before, so that the
download is not counted; the wheels come from the package index, or from `--wheels DIR`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.client import Config

from benchmarks import report, servers
from tests.ports import free_port

ROUNDS = 5
LIMIT_S = 60.0
SETTLE_S = 4.0
"""Until a node that was removed has no vote any more."""
BODY = os.urandom(4096)
ROOT = Path(__file__).parents[1]


def client(port: int) -> boto3.client:
    """S3 on a node of this machine."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=servers.ACCESS_KEY,
        aws_secret_access_key=servers.SECRET_KEY,
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 1}),
    )


@contextmanager
def node(python: str, words: list[str], folder: Path, port: int) -> Iterator[float]:
    """A node that runs until the block ends; yields when its command was given, once it is ready."""
    command = [python, "-m", "edgestore", *words, "--data", str(folder), "--s3", f"127.0.0.1:{port}"]
    begun = time.monotonic()
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, env={**os.environ, **servers.KEYS}, cwd=folder.parent
        )
        try:
            assert process.stdout is not None
            if not process.stdout.readline().startswith(b"edgestore ready"):
                raise RuntimeError(f"{words[0]} failed: see {log.name}")
            yield begun
        finally:
            process.terminate()
            process.wait(LIMIT_S)


def token(folder: Path) -> str:
    """A join token of the node on `folder`."""
    command = [sys.executable, "-m", "edgestore", "token", "create", "--data", str(folder)]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.strip()


def joined_s(python: str, first: Path, peer: str, folder: Path, key: str, *, begun: float | None = None) -> float:
    """Seconds until the new node has served an object that it did not take in itself."""
    words = ["join", "--token", token(first), "--peer", peer, "--mesh", f"127.0.0.1:{free_port()}"]
    port = free_port()
    with node(python, words, folder, port) as started:
        if client(port).get_object(Bucket="join", Key=key)["Body"].read() != BODY:
            raise RuntimeError("the new node serves something else")
        took_s = time.monotonic() - (started if begun is None else begun)
        command = [sys.executable, "-m", "edgestore", "node", "remove", _youngest(first), "--yes", "--data", str(first)]
        subprocess.run(command, check=True, capture_output=True, cwd=ROOT)  # while it runs: it may have a vote
        time.sleep(SETTLE_S)
    return took_s


def _youngest(first: Path) -> str:
    """The number of the node that joined last."""
    command = [sys.executable, "-m", "edgestore", "node", "list", "--data", str(first)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return listed.splitlines()[-1].split()[0]


def fill_wheels(wheels: Path) -> None:
    """Everything that an install needs, this tree included."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(wheels), f"{ROOT}[server]"]
    subprocess.run(command, check=True)


def cold_s(first: Path, peer: str, temporary: Path, wheels: Path) -> float:
    """From bare Python."""
    environment = temporary / "bare"
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = str(environment / "bin" / "python")
    install = [
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--find-links",
        str(wheels),
        "edgestore[server]",
    ]
    subprocess.run(install, check=True)
    return joined_s(python, first, peer, temporary / "cold", "object", begun=begun)


def measure(wheels: Path | None) -> list[report.Row]:
    """A founder, then joiners one after the other."""
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        first, port, peer = temporary / "first", free_port(), f"127.0.0.1:{free_port()}"
        with node(sys.executable, ["serve", "--mesh", peer], first, port):
            client(port).create_bucket(Bucket="join")
            client(port).put_object(Bucket="join", Key="object", Body=BODY)
            warm = [
                joined_s(sys.executable, first, peer, temporary / f"warm{number}", "object") for number in range(ROUNDS)
            ]
            if wheels is None:
                wheels = temporary / "wheels"
                fill_wheels(wheels)
            cold = cold_s(first, peer, temporary, wheels)
    return [
        report.Row("join from a warm install, median", statistics.median(warm), "s", "<= 3"),
        report.Row("join from bare Python, beside the download", cold, "s", "<= 30"),
    ]


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON list instead of a table")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels that holds all that an install needs")
    arguments = parser.parse_args()
    report.print_rows(measure(arguments.wheels), as_json=arguments.json)


if __name__ == "__main__":
    main()
