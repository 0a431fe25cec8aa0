"""What happens to a site under load, each a function of the site and of random numbers; all of it is healed when it
returns, and every node runs again."""

from __future__ import annotations

import random
import shutil
import time

from tests.faults.site import Site, SiteNode
from tests.faults.trial import TOLERATED, Fault

AWAY_MIN_S, AWAY_MAX_S = 0.2, 6.0


def away_s(rng: random.Random) -> float:
    """For how long a node is gone: mostly for a moment, and often enough for long enough to be called down (3 s)."""
    return AWAY_MIN_S * (AWAY_MAX_S / AWAY_MIN_S) ** rng.random()


def kill_one(site: Site, rng: random.Random) -> None:
    """kill -9 of any node, and its restart."""
    _kill(site, rng, [rng.choice(site.nodes)])


def kill_leader(site: Site, rng: random.Random) -> None:
    """kill -9 of the leader."""
    _kill(site, rng, [site.leader()])


def kill_tolerated(site: Site, rng: random.Random) -> None:
    """As many as the site tolerates."""
    _kill(site, rng, rng.sample(site.nodes, TOLERATED[len(site.nodes)]))


def kill_all(site: Site, rng: random.Random) -> None:
    """All at once."""
    _kill(site, rng, site.nodes)


def kill_again(site: Site, rng: random.Random) -> None:
    """A node dies while it recovers."""
    victim = rng.choice(site.nodes)
    victim.kill()
    for _ in range(2):
        victim.begin()
        time.sleep(rng.uniform(0.3, 1.5))
        victim.kill()
    site.restart([victim])


def replace_one(site: Site, rng: random.Random) -> None:
    """A node dies with its disk, and another machine takes its place. Whole before and after: meanwhile nothing else
    may be lost."""
    site.wait_whole()
    victim = rng.choice(site.nodes)
    status = site.wait_until(lambda found: bool(found["leader"]))
    number = next(row["number"] for row in status["nodes"] if row["address"] == victim.advertised)
    victim.kill()
    shutil.rmtree(victim.data)
    site.running()[0].command("node", "remove", str(number), "--yes")
    site.join(victim)
    site.wait_whole()


def _kill(site: Site, rng: random.Random, victims: list[SiteNode]) -> None:
    site.kill(victims)
    time.sleep(away_s(rng))
    site.restart(victims)


def pause_one(site: Site, rng: random.Random) -> None:
    """A node hangs, mostly for a moment, and sometimes for long enough to be taken for dead."""
    _pause(rng.choice(site.nodes), away_s(rng))


def pause_leader(site: Site, rng: random.Random) -> None:
    """The leader hangs, and believes that it leads when it goes on."""
    _pause(site.leader(), away_s(rng))


def pause_long(site: Site, rng: random.Random) -> None:
    """Half a minute."""
    _pause(rng.choice(site.nodes), 30)


def _pause(victim: SiteNode, pause_s: float) -> None:
    victim.pause()
    time.sleep(pause_s)
    victim.resume()


def cut_one(site: Site, rng: random.Random) -> None:
    """A node is cut from all others in both directions; clients still reach it."""
    _cut(site, rng.choice(site.nodes), inward=True, outward=True, cut_s=away_s(rng))


def cut_one_way(site: Site, rng: random.Random) -> None:
    """A node hears the others, and they do not hear it; or the other way round."""
    inward = rng.random() < 0.5
    _cut(site, rng.choice(site.nodes), inward=inward, outward=not inward, cut_s=away_s(rng))


def cut_leader(site: Site, rng: random.Random) -> None:
    """The leader is cut from its followers, not from its clients."""
    _cut(site, site.leader(), inward=True, outward=True, cut_s=away_s(rng))


def cut_pair(site: Site, rng: random.Random) -> None:
    """Two nodes do not reach each other; all the others reach both."""
    one, other = rng.sample(site.nodes, 2)
    site.cuts.cut(one.host, other.host)
    site.cuts.cut(other.host, one.host)
    time.sleep(away_s(rng))
    site.cuts.heal()


def _cut(site: Site, victim: SiteNode, *, inward: bool, outward: bool, cut_s: float) -> None:
    for other in site.nodes:
        if other is not victim and inward:
            site.cuts.cut(other.host, victim.host)
        if other is not victim and outward:
            site.cuts.cut(victim.host, other.host)
    time.sleep(cut_s)
    site.cuts.heal()


KILLS: tuple[Fault, ...] = (kill_one, kill_leader, kill_tolerated, kill_all, kill_again)
PAUSES: tuple[Fault, ...] = (pause_one, pause_leader)
CUTS: tuple[Fault, ...] = (cut_one, cut_one_way, cut_leader, cut_pair)
