"""Power cuts on a loop-mounted ext4: the image as the block device has it at the kill is mounted in its place."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults import ledger
from tests.faults.process import NodeProcess

ROUNDS = int(os.environ.get("EDGESTORE_POWER_ROUNDS", "20"))
IMAGE_BYTES = 3 * 1024**3
CLIENTS = 6

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(120 + 20 * ROUNDS)]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


class Mounted:
    """An ext4 file system in a file, mounted on a folder."""

    def __init__(self, folder: Path) -> None:
        self.image, self.copy, self.mount = folder / "disk.img", folder / "cut.img", folder / "mount"
        self.mount.mkdir()
        with self.image.open("wb") as file:
            file.truncate(IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", str(self.image))
        self.attach()

    def attach(self) -> None:
        """Mounts the image."""
        _run("mount", "-o", "loop", str(self.image), str(self.mount))

    def detach(self) -> None:
        """Unmounts; what is still in the page cache goes to the image that is then thrown away."""
        _run("umount", str(self.mount))

    def cut_power(self, node: NodeProcess) -> None:
        """Kills the node, keeps the image as it is at that instant, and mounts that."""
        node.kill()
        _run("cp", "--sparse=always", str(self.image), str(self.copy))
        self.detach()
        shutil.move(self.copy, self.image)
        self.attach()


def test_acknowledged_operations_survive_power_cuts(tmp_path: Path) -> None:
    seed = int(os.environ.get("EDGESTORE_SEED", "0")) or random.randrange(1 << 30)
    rng = random.Random(seed)
    disk = Mounted(tmp_path)
    node = NodeProcess(disk.mount / "data")
    node.log = tmp_path / "node.log"
    try:
        node.start()
        ledger.create_buckets(node.client())
        clients = [ledger.Client(f"client-{number}", rng.randrange(1 << 30), node.client) for number in range(CLIENTS)]
        for number in range(ROUNDS):
            before = sum(client.acknowledged for client in clients)
            load = ledger.Load(clients)
            time.sleep(rng.uniform(0.2, 2.5))
            disk.cut_power(node)
            load.stop()
            node.start()
            s3 = node.client()
            wrong = ledger.check(s3, clients)
            s3.close()
            assert not wrong, f"seed {seed}, round {number}: {wrong}"
            assert sum(client.acknowledged for client in clients) > before, f"seed {seed}, round {number}: no progress"
        assert sum(client.acknowledged for client in clients) > ROUNDS * CLIENTS
    finally:
        if node.process is not None and node.process.poll() is None:
            node.kill()
        disk.detach()
