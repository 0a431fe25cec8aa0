"""Fronts shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.http.served import LOOPS, Served


@pytest.fixture(scope="module", params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """What the node runs on: they differ in when they pause, read and hand a connection over."""
    return str(request.param)


@pytest.fixture(scope="module")
def fast(loop: str) -> Iterator[Served]:
    """Both lanes."""
    served = Served("fast", loop=loop)
    yield served
    served.close()


@pytest.fixture(scope="module")
def slow(loop: str) -> Iterator[Served]:
    """The slow lane for everything."""
    served = Served("slow", loop=loop)
    yield served
    served.close()


@pytest.fixture(params=["fast", "slow"])
def served(request: pytest.FixtureRequest, loop: str) -> Served:
    """Each of the two."""
    found: Served = request.getfixturevalue(request.param)
    return found
