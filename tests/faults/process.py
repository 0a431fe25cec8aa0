"""A node as a process of its own, to be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.client import Config

from tests.ports import free_port

ACCESS_KEY = "AKFAULTS0000000000001"
SECRET_KEY = "faults-secret-key-000000000000000000001"
START_LIMIT_S = 30.0


class NodeProcess:
    """`edgestore serve` on a data folder; the port is kept over restarts."""

    def __init__(self, data: Path, *, configuration: str = "") -> None:
        self.data = data
        self.log = data.parent / f"{data.name}.log"
        self.port = free_port()
        self.arguments: list[str] = []
        self.environment: dict[str, str] = {}
        self.program = [sys.executable, "-m", "edgestore"]
        if configuration:
            path = data.parent / f"{data.name}.toml"
            path.write_text(configuration)
            self.arguments = ["--config", str(path)]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """The S3 endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def start(self, *words: str) -> float:
        """Starts the node; returns the seconds until it says that it is ready. `words`: instead of `serve`."""
        started = time.monotonic()
        self.launch(*words)
        assert self.process is not None
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        if not line.startswith("edgestore ready"):
            code = self.process.wait(START_LIMIT_S)
            self._close()
            raise NodeRefusedError(code, self.log.read_text()[-4000:])
        return time.monotonic() - started

    def launch(self, *words: str) -> None:
        """Starts the process, and does not wait for what it says."""
        command = [
            *self.program,
            *(words or ("serve",)),
            "--data",
            str(self.data),
            "--s3",
            f"127.0.0.1:{self.port}",
        ]
        environment = {**os.environ, "EDGESTORE_ACCESS_KEY": ACCESS_KEY, "EDGESTORE_SECRET_KEY": SECRET_KEY}
        environment |= self.environment
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.arguments], stdout=subprocess.PIPE, stderr=log, env=environment
            )

    def kill(self) -> None:
        """SIGKILL, and waits until the process is gone."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._close()

    def stop(self) -> int:
        """SIGTERM; returns the exit code. The node has 10 seconds."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(15)
        finally:
            self._close()

    def wait(self, limit_s: float) -> int:
        """For a node that ends by itself; returns the exit code."""
        assert self.process is not None
        try:
            return self.process.wait(limit_s)
        finally:
            self._close()

    def _close(self) -> None:
        assert self.process is not None
        if self.process.stdout is not None:
            self.process.stdout.close()

    def client(self) -> Any:
        """A boto3 client that never retries: an operation is acknowledged once or not at all."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(
                retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=60, max_pool_connections=16
            ),
        )


class NodeRefusedError(Exception):
    """The node did not start. `code` is its exit code, `log` the end of what it wrote."""

    def __init__(self, code: int, log: str) -> None:
        super().__init__(f"exit code {code}: {log}")
        self.code, self.log = code, log
