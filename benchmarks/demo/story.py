"""What happens in the demo, step by step; every figure in its table was measured in this run.

Rule: anything that differs, anything refused beside what a client may try again, and anything left to repair at the
end is a failure.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.demo.clients import (
    BUCKET,
    LARGE_KEY,
    WORKERS,
    Clients,
    Load,
    differing,
    large_differs,
    listing_differs,
    load_body,
    put_all,
    upload_large,
)
from benchmarks.demo.screen import Screen, ask, seconds_of
from tests.faults.site import Site, SiteNode

LARGE_BYTES = 256 * 1024 * 1024
LOAD_BEFORE_S = 3.0
LOAD_AFTER_S = 6.0
LIVE_LIMIT_S = 60.0
REPAIR_LIMIT_S = 120.0
REPAIR_POLL_S = 0.3
NODES_OF_TWO_DEATHS = 5
"""From here on a site outlives two of its nodes at once by default."""
QUIET_POLLS = 3


def sources() -> dict[str, bytes]:
    """The Python standard library's sources."""
    root = Path(sysconfig.get_paths()["stdlib"])
    paths = [path for path in root.rglob("*.py") if "site-packages" not in path.parts]
    return {f"stdlib/{path.relative_to(root)}": path.read_bytes() for path in sorted(paths)}


def random_file(path: Path) -> Path:
    """256 MiB that nothing compresses."""
    with path.open("wb") as file:
        for _ in range(LARGE_BYTES // (1 << 20)):
            file.write(os.urandom(1 << 20))
    return path


class Story:
    """The site, its clients, and what has gone wrong so far (`failed`)."""

    def __init__(self, site: Site, screen: Screen, folder: Path) -> None:
        self._site, self._screen, self._folder = site, screen, folder
        self.failed: list[str] = []
        self.clients: Clients

    def run(self) -> None:
        """From bare folders to the proof."""
        self.found()
        bodies, large = sources(), random_file(self._folder / "large")
        self.store(bodies, large)
        victim, number, load = self.lose_a_node()
        everything = [*bodies, *load.keys()]

        def body(key: str) -> bytes:
            return bodies[key] if key in bodies else load_body(key)

        place = self._another(victim)
        self.prove("without that node", place, everything, body, large, load)
        self.replace(victim, number)
        dead = [node for node in self._site.nodes if node is not victim][: self._tolerance()]
        self._site.kill(dead)
        self._screen.say(f"kill -9 of {len(dead)} more: what the new node has was repaired, or this fails")
        self._until_live(len(self._site.nodes) - len(dead), "a death that nobody noticed")
        self.prove(f"by the new node, {len(dead)} other dead", victim.number, everything, body, large, load)

    def found(self) -> None:
        """One node founds the site, the others join by tokens."""
        first, *others = self._site.nodes
        seconds = []
        with self._screen.step(
            f"{len(self._site.nodes)} nodes: one founds a site, the others join by a token each", len(self._site.nodes)
        ) as advance:
            first.start()
            advance(1)
            for node in others:
                seconds.append(self._site.join(node))
                advance(1)
            self._until_live(len(self._site.nodes), "a node that joined and is not up")
            self._until(self._has_voters, LIVE_LIMIT_S, "voters for the tolerance")
        self._screen.row("a node joins, median", sorted(seconds)[len(seconds) // 2], "serves")
        self.clients = Clients(self._site.nodes)
        self.clients.ask(0, lambda s3: s3.create_bucket(Bucket=BUCKET))

    def store(self, bodies: dict[str, bytes], large: Path) -> None:
        """Real files in through one node and out through another."""
        size, last = sum(len(body) for body in bodies.values()), len(self._site.nodes) - 1
        with self._screen.step(
            f"The standard library, {len(bodies):,} files, in through node 1", len(bodies)
        ) as advance:
            started = time.monotonic()
            refused = put_all(self.clients, 0, bodies, advance)
            self._row("a tree in through node 1", started, refused, len(bodies), size, well="stored")
        with self._screen.step(f"and out through node {last + 1}", len(bodies)) as advance:
            started = time.monotonic()
            wrong = differing(self.clients, last, list(bodies), bodies.__getitem__, advance)
            self._row(f"out through node {last + 1}", started, wrong, len(bodies), size)
        self.failed += listing_differs(self.clients, 1, set(bodies), set())
        with self._screen.step("One file of 256 MiB in through node 1", LARGE_BYTES) as advance:
            started = time.monotonic()
            refused = upload_large(self.clients, 0, large, advance)
            self._row("256 MiB in through node 1", started, refused, 1, LARGE_BYTES, well="stored")
        with self._screen.step("and out through node 2", LARGE_BYTES) as advance:
            started = time.monotonic()
            wrong = large_differs(self.clients, 1, large, advance)
            self._row("out through node 2", started, wrong, 1, LARGE_BYTES)

    def lose_a_node(self) -> tuple[SiteNode, int, Load]:
        """Writers on all nodes; the leader dies under them and its disk is wiped; they go on."""
        leader = self._status()["leader"] or 1
        victim = self._site.nodes[leader - 1]
        retried = self.clients.retries
        with self._screen.step(
            f"{WORKERS} writers on all nodes; then kill -9 of node {leader}, which leads", None
        ) as advance:
            load = Load(self.clients, len(self._site.nodes), advance)
            started = time.monotonic()
            time.sleep(LOAD_BEFORE_S)
            killed = time.monotonic()
            victim.kill()
            shutil.rmtree(victim.data)
            before = len(load.acknowledged)
            self._screen.say(
                f"Node {leader} is dead and its disk is wiped; {before:,} objects were acknowledged so far"
            )
            time.sleep(LOAD_AFTER_S)
            load.stop()
        after = len(load.acknowledged) - before
        if not before or not after:
            load.refused.append(f"{before} acknowledged before the kill, {after} after it: it proves nothing")
        retried = self.clients.retries - retried
        pause_s = load.longest_pause_s(killed)
        self._row(
            "written meanwhile", started, load.refused, len(load.acknowledged), well=f"{retried} retried elsewhere"
        )
        self._screen.row("longest pause of all writers", pause_s, f"{before:,} before, {after:,} after")
        return victim, leader, load

    def prove(
        self, when: str, place: int, keys: list[str], body: Callable[[str], bytes], large: Path, load: Load
    ) -> None:
        """Reads and lists all that was acknowledged, through one node."""
        with self._screen.step(f"Everything again, {when}", len(keys)) as advance:
            started = time.monotonic()
            wrong = differing(self.clients, place, keys, body, advance)
            wrong += listing_differs(self.clients, place, {*keys, LARGE_KEY}, load.begun)
            self._row(f"all of it {when}", started, wrong, len(keys))
        with self._screen.step(f"and the 256 MiB, {when}", LARGE_BYTES) as advance:
            started = time.monotonic()
            wrong = large_differs(self.clients, place, large, advance)
            self._row("the 256 MiB again", started, wrong, 1, LARGE_BYTES)

    def replace(self, victim: SiteNode, number: int) -> None:
        """The machine comes back with an empty disk: a new token, a new member; the old one is removed for ever."""
        with self._screen.step("A new token: the same machine joins again, with its empty disk", None):
            seconds = self._site.join(victim)
            self.clients.renew(victim.number, victim)
            member = self._site.nodes[self._another(victim)]
            member.command("node", "remove", str(number), "--yes")
        self._screen.row("the node joins again", seconds, "serves")
        with self._screen.step("Repair", None):
            started = time.monotonic()
            most = self._repair(started)
        self._screen.row("repaired to full redundancy", seconds_of(started), f"{most:,} extents were left")

    def _repair(self, started: float) -> int:
        """Waits until no node of the site sees anything left, several times in a row; the most that was left."""
        most = quiet = 0
        while quiet < QUIET_POLLS:
            found = [ask(node) for node in self._site.running()]
            most = max(most, *(status["repair_left"] for status in found if status is not None), 0)
            quiet = quiet + 1 if all(status is not None and self._is_whole(status) for status in found) else 0
            if time.monotonic() - started > REPAIR_LIMIT_S:
                last = next((status for status in found if status is not None), {})
                self.failed.append(f"repair: {last.get('repair_left')} extents left; {last.get('distance')}")
                break
            time.sleep(REPAIR_POLL_S)
        return most

    def _is_whole(self, status: dict[str, Any]) -> bool:
        """All nodes up, nothing left to repair, and as many deaths survived as the site's size promises."""
        promised = f"survives the loss of any {self._tolerance()} more node"
        return (
            self._live(status) == len(self._site.nodes)
            and status["repair_left"] == status["unreadable"] == 0
            and status["distance"].startswith(promised)
        )

    def _tolerance(self) -> int:
        return 1 if len(self._site.nodes) < NODES_OF_TWO_DEATHS else 2

    def _has_voters(self, status: dict[str, Any]) -> bool:
        voters = sum(row["voter"] and row["state"] == "up" for row in status["nodes"])
        return voters >= 2 * self._tolerance() + 1 and bool(status["leader"])

    @staticmethod
    def _live(status: dict[str, Any]) -> int:
        return sum(row["state"] == "up" and not row["suspected"] for row in status["nodes"])

    def _another(self, node: SiteNode) -> int:
        """The place of a node that runs and is not this one."""
        return next(other.number for other in self._site.running() if other is not node)

    def _status(self) -> dict[str, Any]:
        return self._site.wait_until(lambda status: bool(status["leader"]), LIVE_LIMIT_S)

    def _until_live(self, count: int, fault: str) -> None:
        self._until(lambda status: self._live(status) == count, LIVE_LIMIT_S, fault)

    def _until(self, holds: Callable[[dict[str, Any]], bool], limit_s: float, fault: str) -> None:
        """Waits for it; where it does not come the demo goes on, and has failed."""
        try:
            self._site.wait_until(holds, limit_s)
        except TimeoutError as error:
            self.failed.append(f"{fault}: {error}")

    def _row(
        self, step: str, started: float, wrong: list[str], objects: int, size: int = 0, *, well: str = "identical"
    ) -> None:
        self.failed += wrong
        result = f"{len(wrong)} wrong" if wrong else well
        self._screen.row(step, seconds_of(started), result, objects=objects, size=size)
