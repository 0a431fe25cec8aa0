"""kill -9 under a mixed load, again and again: nothing acknowledged is lost, nothing is half there."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.faults import ledger
from tests.faults.clients import Client
from tests.faults.process import NodeProcess

ROUNDS = int(os.environ.get("EDGESTORE_KILL_ROUNDS", "30"))
CLIENTS = 6


@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_acknowledged_operations_survive_kill_9(tmp_path: Path) -> None:
    seed = int(os.environ.get("EDGESTORE_SEED", "0")) or random.randrange(1 << 30)
    rng = random.Random(seed)
    node = NodeProcess(tmp_path / "data")
    node.start()
    try:
        ledger.create_buckets(node.client())
        clients = [Client(f"client-{number}", rng.randrange(1 << 30), node.client) for number in range(CLIENTS)]
        for number in range(ROUNDS):
            before = sum(client.acknowledged for client in clients)
            load = ledger.Load(clients)
            time.sleep(rng.uniform(0.1, 1.2))
            node.kill()
            load.stop()
            node.start()
            s3 = node.client()
            wrong = ledger.check(s3, clients)
            s3.close()
            assert not wrong, f"seed {seed}, round {number}: {wrong}"
            assert sum(client.acknowledged for client in clients) > before, f"seed {seed}, round {number}: no progress"
        assert sum(client.acknowledged for client in clients) > ROUNDS * CLIENTS
    finally:
        node.kill()
