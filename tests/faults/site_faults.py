"""What happens to a site under load, each a function of the site and of random numbers; all of it is healed when it
returns, and every node runs again."""

from __future__ import annotations

import random
import shutil
import time
from itertools import permutations, product

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
    _pause([rng.choice(site.nodes)], away_s(rng))


def pause_leader(site: Site, rng: random.Random) -> None:
    """The leader hangs, and believes that it leads when it goes on."""
    _pause([site.leader()], away_s(rng))


def pause_some(site: Site, rng: random.Random) -> None:
    """Several nodes hang together, or all: the clocks of all of them go on."""
    _pause(rng.sample(site.nodes, rng.randint(2, len(site.nodes))), away_s(rng))


def pause_long(site: Site, rng: random.Random) -> None:
    """Half a minute."""
    _pause([rng.choice(site.nodes)], 30)


def _pause(victims: list[SiteNode], pause_s: float) -> None:
    for victim in victims:
        victim.pause()
    time.sleep(pause_s)
    for victim in victims:
        victim.resume()


def cut_one(site: Site, rng: random.Random) -> None:
    """A node is cut from all others in both directions; clients still reach it."""
    _cut_off(site, rng, [rng.choice(site.nodes)])


def cut_one_way(site: Site, rng: random.Random) -> None:
    """A node hears the others, and they do not hear it; or the other way round."""
    victim, inward = rng.choice(site.nodes), rng.random() < 0.5
    _cut_off(site, rng, [victim], inward=inward, outward=not inward)


def cut_leader(site: Site, rng: random.Random) -> None:
    """The leader is cut from its followers, not from its clients."""
    _cut_off(site, rng, [site.leader()])


def cut_some(site: Site, rng: random.Random) -> None:
    """As many as the site tolerates, who still reach each other: each part may believe that it is the site."""
    _cut_off(site, rng, rng.sample(site.nodes, TOLERATED[len(site.nodes)]))


def cut_pair(site: Site, rng: random.Random) -> None:
    """Two nodes do not reach each other; all the others reach both."""
    one, other = rng.sample(site.nodes, 2)
    _cut(site, rng, [(one, other), (other, one)])


def cut_all(site: Site, rng: random.Random) -> None:
    """Every node is alone."""
    _cut(site, rng, list(permutations(site.nodes, 2)))


def _cut_off(
    site: Site, rng: random.Random, victims: list[SiteNode], *, inward: bool = True, outward: bool = True
) -> None:
    others = [node for node in site.nodes if node not in victims]
    inwards = list(product(others, victims)) if inward else []
    outwards = list(product(victims, others)) if outward else []
    _cut(site, rng, inwards + outwards)


def _cut(site: Site, rng: random.Random, ways: list[tuple[SiteNode, SiteNode]]) -> None:
    for source, target in ways:
        site.cuts.cut(source.host, target.host)
    time.sleep(away_s(rng))
    site.cuts.heal()


KILLS: tuple[Fault, ...] = (kill_one, kill_leader, kill_tolerated, kill_all, kill_again)
PAUSES: tuple[Fault, ...] = (pause_one, pause_leader, pause_some)
CUTS: tuple[Fault, ...] = (cut_one, cut_one_way, cut_leader, cut_some, cut_pair, cut_all)
NAMED: tuple[Fault, ...] = (kill_one, kill_leader, kill_tolerated, kill_all, pause_leader, cut_one_way, cut_leader)
"""What a short trial meets whatever its seed draws."""
