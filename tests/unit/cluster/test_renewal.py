"""When a node asks for another certificate."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgestore.cluster.certificates import Renewal
from edgestore.config import ClusterConfig

LIFE_MS = ClusterConfig().certificate_life_ms
BEGAN_MS = 1_760_000_000_000


@pytest.mark.parametrize(("share", "is_due"), [(0.0, False), (0.6, False), (0.66, False), (0.67, True), (1.2, True)])
def test_a_certificate_is_renewed_when_two_thirds_of_its_life_are_over(share: float, is_due: bool) -> None:
    meta: Any = SimpleNamespace(log_time_ms=lambda: BEGAN_MS + int(share * LIFE_MS))
    credentials: Any = SimpleNamespace(facts=SimpleNamespace(not_after_ms=BEGAN_MS + LIFE_MS))
    nobody: Any = None
    renewal = Renewal(meta, nobody, nobody, credentials, ClusterConfig(), lambda certificate: None)
    assert renewal._is_due() is is_due
