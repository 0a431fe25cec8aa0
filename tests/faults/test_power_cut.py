"""Power cuts on a loop-mounted ext4: the image as the block device has it at the kill is mounted in its place."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.faults import ledger
from tests.faults.clients import Client
from tests.faults.disks import Mounted
from tests.faults.process import NodeProcess

ROUNDS = int(os.environ.get("EDGESTORE_POWER_ROUNDS", "12"))
IMAGE_BYTES = 3 * 1024**3
CLIENTS = 6

pytestmark = [pytest.mark.needs_root, pytest.mark.timeout(120 + 20 * ROUNDS)]


def cut_power(disk: Mounted, node: NodeProcess) -> None:
    """Kills the node, keeps the image as it is at that instant, and mounts that."""
    node.kill()
    disk.keep()
    disk.restore()


def test_acknowledged_operations_survive_power_cuts(tmp_path: Path) -> None:
    seed = int(os.environ.get("EDGESTORE_SEED", "0")) or random.randrange(1 << 30)
    rng = random.Random(seed)
    disk = Mounted(tmp_path, IMAGE_BYTES)
    node = NodeProcess(disk.mount / "data")
    node.log = tmp_path / "node.log"
    try:
        node.start()
        ledger.create_buckets(node.client())
        clients = [Client(f"client-{number}", rng.randrange(1 << 30), node.client) for number in range(CLIENTS)]
        for number in range(ROUNDS):
            before = sum(client.acknowledged for client in clients)
            load = ledger.Load(clients)
            time.sleep(rng.uniform(0.2, 2.5))
            cut_power(disk, node)
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
