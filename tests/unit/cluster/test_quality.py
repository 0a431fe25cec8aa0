"""Quality: slow, failing, damaging and flapping nodes lose it within a minute, and earn it back."""

from __future__ import annotations

import random

import pytest

from edgestore.cluster import Observer, Scores
from edgestore.config import ClusterConfig
from edgestore.net import Outcome

CONFIG = ClusterConfig()
NAMES = tuple("abcde")


class Site:
    """Five nodes that call each other ten times a second; the catalog takes what the leader says."""

    def __init__(self, seed: int = 1, names: tuple[str, ...] = NAMES) -> None:
        self.random = random.Random(seed)
        self.names = names
        self.now_ms = 0.0
        self.observers = {name: Observer(CONFIG) for name in names}
        self.scores = Scores(CONFIG)
        self.published = dict.fromkeys(names, 100)
        self.slow = dict.fromkeys(names, 1.0)
        self.failing = dict.fromkeys(names, 0.0)
        self.damaging = dict.fromkeys(names, 0.0)
        self.full: set[str] = set()
        self.loss = 0.0
        self.silent = False
        self.epochs = 0

    def run(self, seconds: float) -> None:
        end_ms = self.now_ms + seconds * 1000
        while self.now_ms < end_ms:
            self.now_ms += 100
            if not self.silent:
                self._calls()
            if self.now_ms % CONFIG.quality_interval_ms == 0:
                reports = {name: observer.views(self.now_ms) for name, observer in self.observers.items()}
                changes = self.scores.judge(self.published, reports, self.now_ms, self.full)
                self.epochs += bool(changes)
                self.published |= changes

    def _calls(self) -> None:
        for observer in self.names:
            for subject in self.names:
                if subject == observer:
                    continue
                outcome = Outcome.GOOD
                if self.random.random() < self.failing[subject] + self.loss:
                    outcome = Outcome.FAILED
                elif self.random.random() < self.damaging[subject]:
                    outcome = Outcome.DAMAGED
                size_bytes = self.random.choice((0, 4096, 65_536, 262_144))
                took_us = 900 * (1 + size_bytes / 65_536) * self.random.lognormvariate(0, 0.5)
                busy = self.slow[subject] * self.slow[observer]
                self.observers[observer].saw(subject, outcome, took_us * busy, self.now_ms, size_bytes=size_bytes)


@pytest.mark.parametrize("kind", ["slow", "failing", "damaging"])
@pytest.mark.parametrize("names", [NAMES, NAMES[:3]])
def test_a_bad_node_loses_nine_tenths_within_a_minute_and_earns_it_back(kind: str, names: tuple[str, ...]) -> None:
    site = Site(names=names)
    site.run(60)
    assert set(site.published.values()) == {100}
    was = getattr(site, kind)["b"]
    getattr(site, kind)["b"] = {"slow": 10.0, "failing": 0.2, "damaging": 0.01}[kind]
    site.run(60)
    assert site.published["b"] <= 10
    assert {quality for name, quality in site.published.items() if name != "b"} == {100}
    getattr(site, kind)["b"] = was
    site.run(60)
    assert site.published["b"] <= 30
    site.run(330)
    assert site.published["b"] == 100


def test_it_takes_few_epochs() -> None:
    site = Site()
    site.slow["b"] = 10
    site.run(60)
    site.slow["b"] = 1
    site.run(400)
    assert site.epochs <= 14


def test_a_busy_observer_and_a_bad_network_condemn_nobody() -> None:
    site = Site()
    site.loss = 0.3
    site.run(300)
    assert set(site.published.values()) == {100}


def test_one_observer_that_lies_condemns_nobody() -> None:
    site = Site()
    site.run(30)
    reports = {name: observer.views(site.now_ms) for name, observer in site.observers.items()}
    for _ in range(20):
        site.now_ms += 2000
        lie = tuple(type(view)(view.member, 100.0, 90.0 if view.member == "b" else 0.0) for view in reports["a"])
        assert site.scores.judge(site.published, reports | {"a": lie}, site.now_ms) == {}


def test_a_short_hiccup_costs_nothing() -> None:
    site = Site()
    site.run(30)
    site.slow["b"] = 10
    site.run(4)
    site.slow["b"] = 1
    site.run(60)
    assert site.published["b"] == 100


def test_a_full_node_is_at_the_floor_until_it_has_had_room_for_a_while() -> None:
    site = Site()
    site.full = {"b"}
    site.run(CONFIG.quality_interval_ms / 1000)
    assert site.published == dict.fromkeys(NAMES, 100) | {"b": CONFIG.quality_floor}
    site.full.clear()
    site.run(CONFIG.quality_proof_ms / 1000 - 10)
    assert site.published["b"] == CONFIG.quality_floor
    site.run(400)
    assert site.published["b"] == 100


def test_a_flapping_node_is_at_the_floor_until_it_has_held_still() -> None:
    site = Site()
    for _ in range(CONFIG.quality_flaps_max):
        site.scores.went_down("b", site.now_ms)
        site.run(20)
    assert site.published["b"] == CONFIG.quality_floor
    site.run(CONFIG.quality_flap_window_ms / 1000 + 400)
    assert site.published["b"] == 100


def test_who_falls_again_must_prove_itself_for_longer() -> None:
    site = Site()
    waits = []
    for _ in range(3):
        site.slow["b"] = 10
        site.run(60)
        assert site.published["b"] == CONFIG.quality_floor
        site.slow["b"] = 1
        waited = 0
        while site.published["b"] == CONFIG.quality_floor:
            site.run(10)
            waited += 10
        waits.append(waited)
        site.run(30)
    assert waits == sorted(waits)
    assert waits[2] >= 3 * waits[0] * 0.9


def test_without_evidence_a_node_earns_it_back_too() -> None:
    site = Site()
    site.slow["b"] = 10
    site.run(60)
    site.silent = True
    site.run(500)
    assert site.published["b"] == 100


def test_alone_with_one_other_only_failures_count() -> None:
    site = Site(names=("a", "b"))
    site.slow["b"] = 100
    site.run(60)
    assert site.published["b"] == 100
    site.failing["b"] = 0.5
    site.run(60)
    assert site.published["b"] == CONFIG.quality_floor
