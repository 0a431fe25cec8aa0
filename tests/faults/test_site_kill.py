"""Nodes of a site are killed, stopped, cut off and damaged under load: nothing acknowledged is lost, no wrong byte is
read, and the site repairs itself."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import ledger
from tests.faults.site import Site, SiteNode

ROUNDS = int(os.environ.get("EDGESTORE_SITE_ROUNDS", "40"))
CLIENTS = 6
TOLERATED = {3: 1, 5: 2}

Fault = Callable[[Site, random.Random], None]


def kill_one(site: Site, rng: random.Random) -> None:
    """kill -9 of any node, and its restart."""
    _kill(site, rng, 1)


def kill_tolerated(site: Site, rng: random.Random) -> None:
    """As many as the site tolerates."""
    _kill(site, rng, TOLERATED[len(site.nodes)])


def kill_all(site: Site, rng: random.Random) -> None:
    """All at once."""
    _kill(site, rng, len(site.nodes))


def _kill(site: Site, rng: random.Random, count: int) -> None:
    victims = rng.sample(site.nodes, count)
    for victim in victims:
        victim.kill()
    time.sleep(rng.uniform(0, 2))
    site.restart(victims)


def pause_one(site: Site, rng: random.Random) -> None:
    """A node hangs, mostly for a moment, and sometimes for long enough to be taken for dead."""
    victim = rng.choice(site.nodes)
    victim.pause()
    time.sleep(rng.choice((0.3, 1.0, 6.0)))
    victim.resume()


def cut_one(site: Site, rng: random.Random) -> None:
    """A node is cut from all others, in one direction or in both; clients still reach it."""
    assert site.proxies is not None
    victim = rng.choice(site.nodes)
    inward, outward = rng.choice(((True, True), (True, False), (False, True)))
    for other in site.nodes:
        if other is not victim and inward:
            site.proxies.cuts.cut(other.host, victim.host)
        if other is not victim and outward:
            site.proxies.cuts.cut(victim.host, other.host)
    time.sleep(rng.uniform(0.5, 6))
    site.proxies.cuts.heal()


def cut_leader(site: Site, rng: random.Random) -> None:
    """The leader is cut from its followers, not from its clients."""
    assert site.proxies is not None
    leader = _leader(site)
    for other in site.nodes:
        if other is not leader:
            site.proxies.cuts.cut(other.host, leader.host)
            site.proxies.cuts.cut(leader.host, other.host)
    time.sleep(rng.uniform(0.5, 4))
    site.proxies.cuts.heal()


def _leader(site: Site) -> SiteNode:
    status = site.wait_until(lambda found: bool(found.get("leader")))
    return next(node for node in site.nodes if node.number == status["leader"] - 1)


FAULTS: tuple[Fault, ...] = (kill_one, kill_tolerated, kill_all, pause_one, cut_one, cut_leader)


@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.timeout(300 + 20 * ROUNDS)
def test_a_site_keeps_what_it_acknowledged(tmp_path: Path, count: int) -> None:
    seed = int(os.environ.get("EDGESTORE_SEED", "0")) or random.randrange(1 << 30)
    rng = random.Random(seed)
    with Site(tmp_path, count, proxied=True) as site:
        site.found()
        ledger.create_buckets(site.nodes[0].client())
        clients = [
            ledger.Client(f"client-{number}", rng.randrange(1 << 30), site.nodes[0].client) for number in range(CLIENTS)
        ]
        for number in range(ROUNDS // 2):
            before = sum(client.acknowledged for client in clients)
            fault = rng.choice(FAULTS)
            load = ledger.Load(clients, [node.client for node in site.nodes])
            time.sleep(rng.uniform(0.1, 1.0))
            fault(site, rng)
            time.sleep(rng.uniform(0.1, 1.0))
            load.stop()
            site.wait_until(lambda status: status["live_nodes"] == count)
            s3 = rng.choice(site.nodes).client()
            wrong = ledger.check(s3, clients)
            s3.close()
            context = f"seed {seed}, round {number}, {fault.__name__}"
            assert not wrong, f"{context}: {wrong}"
            assert sum(client.acknowledged for client in clients) > before, f"{context}: no progress"
        site.wait_whole()
