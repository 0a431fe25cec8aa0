"""Fronts shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.http.served import Served


@pytest.fixture(scope="module")
def fast() -> Iterator[Served]:
    """Both lanes."""
    served = Served("fast")
    yield served
    served.close()


@pytest.fixture(scope="module")
def slow() -> Iterator[Served]:
    """The slow lane for everything."""
    served = Served("slow")
    yield served
    served.close()


@pytest.fixture(params=["fast", "slow"])
def served(request: pytest.FixtureRequest) -> Served:
    """Each of the two."""
    found: Served = request.getfixturevalue(request.param)
    return found
